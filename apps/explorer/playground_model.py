"""What the playground computes: the models of one run, one in memory at a time, asked anything. Knows no streamlit.

The only module of the explorer that needs torch; it is imported when the playground is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from interp_unlearn._core import Axis, Labelled, ModelError
from interp_unlearn.hooked import Edit, HookedModel, ablate, capture, edit, patch, steer
from interp_unlearn.latents import SAE
from interp_unlearn.probes import logit_lens_grid
from interp_unlearn.runs import Progress, RunFolder, RunPhases, reopen_workbench, saved_config
from interp_unlearn.worlds import Prompt

BEFORE, AFTER, EDITED = "before", "after", "after, with the change"
LIKELIEST = 8
ACTIONS = {
    "patch": "put the original's activation in",
    "steer": "add the difference to the original, times",
    "ablate": "set it to zero",
}


@dataclass(frozen=True)
class Change:
    """A change of the edited model at one token of one site.

    Attributes:
        action: One of `ACTIONS`.
        site: Where.
        token: Which token.
        strength: Of steering.
    """

    action: str
    site: str
    token: int
    strength: float = 1.0


@dataclass
class Opened:
    """The models of one run. Sessions share it, so each question waits for the one before.

    Attributes:
        phases: Original and edited model.
        name: Of the run, for titles.
        model: The model in its present phase; only its tokenizer, sites and sizes are read outside a phase.
    """

    phases: RunPhases
    name: str
    model: HookedModel
    lock: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def phase(self, which: str) -> Iterator[HookedModel]:
        """The original (``"before"``) or the edited model (``"after"``) inside the block."""
        with self.lock, self.phases.open(which) as model:
            yield model

    @property
    def sae(self) -> SAE | None:
        """The run's SAE, where it has one."""
        return self.phases.saes.get("main")

    def sites(self) -> list[str]:
        """Sites at which one token can be changed, the residual stream first."""
        names = [name for name, site in self.model.sites.items() if site.layer is not None]
        return sorted(names, key=lambda name: (not name.endswith("resid_post"), int(name.split(".")[1]), name))

    def tokens(self, prompt: str) -> list[str]:
        """The text of each token of a prompt."""
        return [self.model.tokenizer.decode([int(i)]) for i in self.model.batch(prompt).tokens[0]]


def open_run(folder: Path, progress: Progress) -> Opened:
    """Open the models of a run.

    Raises:
        ModelError: If they read no text.
        InterpUnlearnError: If the run or its models cannot be opened.
    """
    out = RunFolder.open(folder)
    config = saved_config(out)
    bench = reopen_workbench(config, out, progress)
    if not bench.model.is_language_model or bench.model.tokenizer is None:
        raise ModelError("the model of this run reads no text, so there is nothing to type; its other pages show it")
    return Opened(RunPhases(config, out, bench, progress), config.name, bench.model)


@torch.no_grad()
def next_tokens(opened: Opened, prompt: str, change: Change | None = None) -> Labelled:
    """Probabilities of the likeliest next tokens before, after, and after with a change, as `next_token_bars` draws."""
    logprob: dict[str, Tensor] = {}
    with opened.phase(BEFORE) as model:
        logprob[BEFORE] = _last(model, prompt)
    with opened.phase(AFTER) as model:
        logprob[AFTER] = _last(model, prompt)
    if change is not None:
        edits = _edits(opened, prompt, change)
        with opened.phase(AFTER) as model, edit(model, *edits):
            logprob[EDITED] = _last(model, prompt)
    rows = torch.stack(list(logprob.values()))
    ids = rows.topk(min(LIKELIEST, rows.shape[1])).indices.unique()
    ids = ids[rows[:, ids].max(0).values.argsort(descending=True)]
    words = [opened.model.tokenizer.decode([int(i)]) for i in ids]
    axes = (Axis("prompt", (prompt,)), Axis("phase", tuple(logprob)), Axis("place", tuple(map(str, range(len(ids))))))
    facts = {"prompts": [{"text": prompt, "set": "typed"}], "tokens": [words]}
    return Labelled(
        "probability of the next token",
        rows[:, ids].exp().double().numpy()[None],
        axes,
        n=1,
        mask_policy="last token of the prompt",
        config=facts,
    )


def generate(opened: Opened, prompt: str, length: int, change: Change | None = None) -> dict[str, str]:
    """Greedy continuations before, after, and after with a change at a token of the prompt."""
    out = {}
    for which in (BEFORE, AFTER):
        with opened.phase(which) as model:
            out[which] = model.generate(prompt, max_new_tokens=length)[0]
    if change is not None:
        edits = _edits(opened, prompt, change)
        with opened.phase(AFTER) as model, edit(model, *edits):
            # Without a cache every pass shows the whole sequence, so that the change stays at its token.
            out[EDITED] = model.generate(prompt, max_new_tokens=length, use_cache=False)[0]
    return out


def lens(opened: Opened, prompt: str) -> dict[str, Labelled]:
    """The logit lens at each layer and token, before and after; its answer is the original's likeliest next token."""
    with opened.phase(BEFORE) as model:
        answer = model.tokenizer.decode([int(_last(model, prompt).argmax())]).strip() or "."
    asked = Prompt(prompt, answer, entity="", relation="", template="typed", name_span=(0, 0))
    found = {}
    for which in (BEFORE, AFTER):
        with opened.phase(which) as model:
            found[which] = logit_lens_grid(model, asked)
    return found


@torch.no_grad()
def latents(opened: Opened, prompt: str, token: int, top: int = 12) -> dict[str, Labelled]:
    """The SAE's latents at one token: those that fire most before or after, in either.

    Raises:
        ModelError: If the run has no SAE.
    """
    sae = opened.sae
    if sae is None:
        raise ModelError("this run has no SAE; name one in its config: [latents] sae = …")
    fired: dict[str, Tensor] = {}
    for which in (BEFORE, AFTER):
        with opened.phase(which) as model:
            fired[which] = sae.encode(_state(model, prompt, sae.site, token)[None])[0].float().cpu()
    best = torch.stack(list(fired.values())).max(0).values.topk(min(top, len(next(iter(fired.values()))))).indices
    labels = tuple(str(int(i)) for i in best)
    return {
        which: Labelled(
            "activation", values[best].double().numpy(), (Axis("latent", labels),), n=1, mask_policy=f"token {token}"
        )
        for which, values in fired.items()
    }


def _last(model: HookedModel, prompt: str) -> Tensor:
    """Log-probabilities of the token after a prompt."""
    return model(prompt)[0, -1].float().log_softmax(-1).cpu()


def _state(model: HookedModel, prompt: str, site: str, token: int) -> Tensor:
    """The activation of one token at one site."""
    return capture(model, prompt, [site], positions=[token], mask_policy="all")[site][0, 0]


def _edits(opened: Opened, prompt: str, change: Change) -> list[Edit]:
    if change.action == "ablate":
        return [ablate(change.site, positions=[change.token])]
    with opened.phase(BEFORE) as model:
        original = _state(model, prompt, change.site, change.token)
    if change.action == "patch":
        return [patch(change.site, original, positions=[change.token])]
    with opened.phase(AFTER) as model:
        direction = original - _state(model, prompt, change.site, change.token)
    return [steer(change.site, direction, change.strength, positions=[change.token])]
