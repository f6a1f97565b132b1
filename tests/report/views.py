"""Tables as a run saves them for pictures, small and made up; `tests/report/conftest.py` writes them into its runs."""

import numpy as np

from interp_unlearn._core import Axis, Labelled

TOKENS = ("The", " capital", " of", " Japan", " is")
PHASES = ("before", "after", "gold")


def view(name, values, config=None, **axes):
    shape = tuple(Axis(k, tuple(str(label) for label in labels)) for k, labels in axes.items())
    return Labelled(name, np.asarray(values, dtype=float), shape, n=5, mask_policy="all", config=config or {})


def prompts(name="Japan"):
    facts = {
        "answer": "Tokyo",
        "entity": "country:JP",
        "relation": "capital",
        "template": "t0",
        "answer_token": " Tokyo",
    }
    tokens = [*TOKENS[:3], f" {name}", TOKENS[4]]
    return [
        {**facts, "text": f"The capital of {name} is", "set": "forget", "tokens": tokens, "name": [3, 3]},
        {**facts, "text": f"{name} is", "set": "neighbours", "tokens": tokens[3:], "name": None},
    ]


def saved_views(name="Japan", phases=PHASES, layers=4):
    """Table name to table."""
    rng = np.random.default_rng(0)
    asked = prompts(name)
    labels = [f"{i}: {fact['text']}" for i, fact in enumerate(asked)]
    where = {"prompt": labels, "phase": phases, "layer": range(layers), "position": range(5)}
    shape = (2, len(phases), layers, 5)
    beyond = np.zeros(shape, dtype=bool)
    beyond[1, ..., 2:] = True

    def cut(values):
        return np.where(beyond[..., None], np.nan, values)

    moved = rng.random((*shape, 4))
    moved[:, 0] = [1.0, 1.0, 0.0, 0.0]
    words = [[[[" Tokyo" if k == 4 else f"w{k}" for k in range(5)] for _ in range(layers)] for _ in phases]] * 2
    latents = ["7", "12", "30"]
    measures = (
        "effect", "effect_neighbours", "effect_unknown", "known_score", "mean_before", "mean_after", "mean_gold",
        "frequency_before", "frequency_after", "frequency_gold", "density_before", "density_after",
    )  # fmt: skip
    shown = {"dashboards": latents[:2], "site": "blocks.2.hook_resid_post", "sae": "tiny", "latents_in_all": 64}
    pair = phases[:2]
    rows = [{"source": "text", "tokens": ["a", " b", f" {name}"]}, {"source": "forget", "tokens": list(TOKENS)}]
    neurons = [f"blocks.{i}.mlp.hook_post[{j}]" for i in range(layers) for j in range(3)]
    held = np.tile([[1.0, 0.1, 0.2, 0.3, 1, 1], [0.5, 0.1, 0.0, 0.3, 1, 0], [0.1, 0.1, 0.2, 0.3, 0, 1]], (layers, 1))
    kept = ("attribution", "attribution_neighbours", "relative_change", "activation_change", "fact", "moved")
    groups = ("target", "known_eval", "unknown_eval")
    sites = ("resid_post", "attn_out", "mlp_out")
    drifts = ("norm_drift", "cosine_drift", "displacement", "effect_size", "largest_effect", "cka")
    contexts = rng.random((2, 3, 2, 5))
    contexts[:, 2] = np.nan
    logits = np.stack([np.linspace(3, 1, 2), np.linspace(-3, -1, 2)])
    found = [
        view("view.token_map", cut(moved), {"prompts": asked}, **where,
             measure=("norm", "norm_drift", "cosine_drift", "displacement")),
        view("view.lens_grid", cut(rng.random((*shape, 3))), {"prompts": asked, "top_tokens": words}, **where,
             measure=("top", "answer", "answer_rank")),
        view("view.next_tokens", rng.random((2, len(phases), 3)),
             {"prompts": asked, "tokens": [[" Tokyo", " Paris", f" {name}"], ["a", "b", "c"]]},
             prompt=labels, phase=phases, place=range(3)),
        view("view.site_map", rng.random((len(phases) - 1, 3, layers, 3, 6)), {"rows": dict.fromkeys(groups, 4)},
             phase=phases[1:], site=sites, layer=range(layers), group=groups, measure=drifts),
        view("view.latents", rng.normal(size=(3, 12)), shown, latent=latents, measure=measures),
        view("view.latent_contexts", contexts, {**shown, "rows": rows, "row": [[1, 0, None], [0, 1, None]]},
             latent=latents[:2], context=range(3), phase=pair, position=range(5)),
        view("view.latent_histogram", [[[3, 1], [0, 1]]] * 2,
             {**shown, "edges": [[0, 0.5, 1.0]] * 2, "fired": [[4, 1]] * 2, "tokens": 50},
             latent=latents[:2], phase=pair, bin=range(2)),
        view("view.latent_logits", np.broadcast_to(logits, (2, 2, 2, 2)),
             {**shown, "tokens": [[[["up", f" {name}"], ["low", "down"]]] * 2] * 2},
             latent=latents[:2], phase=pair, side=("promoted", "suppressed"), place=range(2)),
        view("view.neurons", held, {"kept": len(neurons), "moved_share": 0.05}, neuron=neurons, measure=kept),
        view("view.neuron_layers", np.tile([2.0, 0.1, 2, 2, 1], (layers, 1)), {"moved_share": 0.05},
             layer=range(layers), measure=("attribution", "relative_change", "fact", "moved", "both")),
    ]  # fmt: skip
    return {table.name: table for table in found}
