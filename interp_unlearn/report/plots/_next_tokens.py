"""What the model would say next."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from interp_unlearn._core import Labelled
from interp_unlearn.report.plots._data import footer, pick
from interp_unlearn.report.plots._style import finish, plain, styles
from interp_unlearn.report.plots._words import visible


def next_token_bars(
    table: Labelled, prompt: int = 0, *, phases: Sequence[str] = (), top: int = 12, name: str = ""
) -> go.Figure:
    """Probabilities of the likeliest next tokens of one prompt, a bar for each phase.

    Look at what took the answer's place: other answers of its type (as in gold), a refusal, or noise. It shows one
    prompt and one token; a low probability here says nothing about other wordings.

    Args:
        table: ``view.next_tokens`` of a run, axes prompt, phase and place, or an array of the same form;
            ``config["tokens"]`` holds the tokens of each prompt, ``config["prompts"]`` what it asks.
        prompt: Which prompt.
        phases: Phases to draw; default all.
        top: At most so many tokens.
        name: Method, for the title.
    """
    cut = pick(table, "prompt", table.axes[0].labels[prompt])
    tokens = list(table.config["tokens"][prompt])[:top]
    facts = table.config["prompts"][prompt]
    drawn = [phase for phase in cut.axes[0].labels if not phases or phase in phases]
    looks = styles(drawn)
    answer = facts.get("answer_token")
    labels = [f"<b>{visible(t)}</b> ◂ answer" if t == answer else visible(t) for t in tokens]
    fig = go.Figure()
    for phase in drawn:
        fig.add_bar(
            x=cut.at(phase=phase)[: len(tokens)],
            y=list(range(len(tokens))),
            orientation="h",
            name=plain(phase),
            marker={"color": looks[phase].colour, "line": {"width": 0}},
            customdata=[visible(t) for t in tokens],
            hovertemplate=f"{plain(phase)}, “%{{customdata}}”: p = %{{x:.3f}}{footer(table)}<extra></extra>",
        )
    finish(
        fig,
        f"Next token: {name}" if name else "Next token",
        f"“{facts['text']}”",
        "probability",
        "",
        height=130 + (9 + 9 * len(drawn)) * max(3, len(tokens)),
    )
    fig.update_yaxes(tickvals=list(range(len(tokens))), ticktext=labels, autorange="reversed", showgrid=False)
    fig.update_layout(barmode="group", bargap=0.25)
    return fig
