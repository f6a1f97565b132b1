"""Where and how much weights moved, as evidence: shallow edits are the cheapest sign of something hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn._core import Axis, Evidence, Labelled, generator
from interp_unlearn.diff._changed import Changed, changed_tensors
from interp_unlearn.diff._weights import compare_weights
from interp_unlearn.hooked import HookedModel, score_answers
from interp_unlearn.probes import Found, Measured, Part, Phases, register_part
from interp_unlearn.probes._catalogue import Kind, evidence, missing
from interp_unlearn.probes._parts import Progress

MOVED, DEPTH, BREADTH, RANK = "weights.moved", "weights.depth", "weights.breadth", "weights.rank"

WEIGHTS: Mapping[str, Kind] = {
    MOVED: Kind(
        "How far did the changed weights move, relative to their size?",
        "high",
        "what rounding the same weights to 8 bits moves (largest of each row)",
        "A large change can leave a fact in place, and a small one can remove it. A change far below the control may "
        "be undone by quantisation.",
    ),
    DEPTH: Kind(
        "At what depth is the centre of mass of the change (0: first block, 1: last)?",
        "near control",
        "the same change in every block",
        "Late edits often leave a fact readable below them; an edit in early or middle blocks is no proof of erasure.",
    ),
    BREADTH: Kind(
        "Over what share of the blocks is the change spread?",
        "high",
        "all of it in one block",
        "A change that is spread over all blocks can still be a thin mask in each.",
    ),
    RANK: Kind(
        "How many directions does the change of a matrix use, as a share of those it has?",
        "high",
        "random numbers in matrices of the same shapes",
        "Adapters give low ranks by construction, whatever they do to a fact.",
    ),
}
NOTHING = "nothing moved: every weight of the edited model is that of the original"
SAME = f"{NOTHING}, and it gives the same answers"
RUNNING = f"{NOTHING}, yet its answers differ: it is edited while it runs (an intervention), and can be undone by that"
MATRICES = 12  # matrices whose effective rank is taken, those with the largest change
MAX_ENTRIES = 4_000_000  # larger matrices are left out: a singular value decomposition takes minutes
AGREE = 1e-4  # nats within which answers count as the same


def block_changes(model: HookedModel, changed: Changed) -> tuple[Float[np.ndarray, " blocks"], dict[str, float]]:
    """Relative change of every block (all its parameters together), and of each changed parameter outside blocks.

    A module that is no language model counts every parameter as a block of its own, in the module's order.
    """
    names = list(changed.square_norms)
    if model.is_language_model:
        blocks = [f"{path}." for path in model.lm.blocks]
        home = {n: next((i for i, b in enumerate(blocks) if n.startswith(b)), -1) for n in names}
    else:
        blocks = names
        home = {n: i for i, n in enumerate(names)}
    moved = np.zeros(len(blocks))
    size = np.zeros(len(blocks))
    outside: dict[str, float] = {}
    for name in names:
        delta2 = 0.0
        if name in changed.old:
            delta2 = float((changed.new[name].float() - changed.old[name].float()).norm()) ** 2
        if home[name] >= 0:
            moved[home[name]] += delta2
            size[home[name]] += changed.square_norms[name]
        elif delta2:
            outside[name] = float(np.sqrt(delta2 / changed.square_norms[name])) if changed.square_norms[name] else 1.0
    return np.sqrt(moved / np.where(size > 0, size, 1)), outside


def centre_and_breadth(change: Float[np.ndarray, " blocks"]) -> tuple[float, float]:
    """Centre of mass (0…1) and effective share of blocks of a change, by the squares of each block's relative change.

    The share is the exponential of the entropy over the number of blocks; both are NaN where no block moved.
    """
    share = change**2
    if not share.sum() > 0:
        return float("nan"), float("nan")
    share = share / share.sum()
    depth = np.linspace(0, 1, len(share)) if len(share) > 1 else np.zeros(1)
    some = share[share > 0]
    return float(share @ depth), float(np.exp(-(some * np.log(some)).sum()) / len(share))


def rounding(weights: Mapping[str, Tensor]) -> float:
    """Relative change by rounding every row to 8 bits (symmetric, scaled by its largest entry)."""
    moved = size = 0.0
    for value in weights.values():
        rows = value.float().reshape(-1, value.shape[-1]) if value.dim() else value.float().reshape(1, 1)
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
        moved += float(((rows / scale).round() * scale - rows).norm()) ** 2
        size += float(rows.norm()) ** 2
    return float(np.sqrt(moved / size)) if size else float("nan")


def weights_evidence(phases: Phases) -> Found:
    """How far weights moved, at what depth, over how many blocks and in how many directions.

    Nothing that moved is said in words: ``weights.moved`` is then 0 and the others are missing, with the reason.

    Returns:
        ``weights.moved``, ``weights.depth``, ``weights.breadth`` and ``weights.rank``, each ``/all``; tables of the
        change by block and by parameter.
    """
    changed = changed_tensors(phases)
    if not changed.old:
        return _nothing(phases)
    if not all(bool(v.isfinite().all()) for v in changed.new.values()):
        reason = "the edited model's weights are not finite; the model is broken"
        return Found(tuple(_absent(kind, reason) for kind in WEIGHTS))
    with phases.open("before") as model:
        change, outside = block_changes(model, changed)
    tables = {f"weights.{t.name}": t for t in compare_weights(changed.old, changed.new)}
    total2 = sum(changed.square_norms.values())
    delta2 = sum(float((changed.new[n].float() - changed.old[n].float()).norm()) ** 2 for n in changed.old)
    facts: dict[str, Any] = {
        "nothing_moved": False,
        "changed_parameters": len(changed.old),
        "changed_entries": int(tables["weights.changed_entries"].values.sum()),
        "relative_to_all_weights": float(np.sqrt(delta2 / total2)),
        "outside_blocks": outside,
    }
    by_block = Labelled(
        "relative change of weights by block",
        change,
        (Axis("block", tuple(str(i) for i in range(len(change)))),),
        n=len(changed.old),
        mask_policy="-",
        note="Frobenius norm of the change of all weights of a block over that of the original",
    )
    out = [
        _found(
            MOVED,
            float(tables["weights.relative_change"].config["total"]),
            n=len(changed.old),
            control=rounding(changed.old),
            details={"blocks": by_block},
            config=facts,
        ),
        *_places(change, by_block, facts),
        _rank(changed, phases.seed),
    ]
    return Found(tuple(out), {**tables, "weights.by_block": by_block})


def _places(change: np.ndarray, by_block: Labelled, facts: dict[str, Any]) -> list[Evidence]:
    centre, breadth = centre_and_breadth(change)
    if np.isnan(centre):
        reason = f"no block moved; only {', '.join(facts['outside_blocks'])} did"
        return [_absent(kind, reason) for kind in (DEPTH, BREADTH)]
    moved = np.flatnonzero(change)
    late = change[-max(1, len(change) // 3) :]
    config = {
        "first_block": int(moved[0]),
        "last_block": int(moved[-1]),
        "blocks_moved": len(moved),
        "blocks": len(change),
        "share_in_last_third": float((late**2).sum() / (change**2).sum()),
    }
    return [
        _found(DEPTH, centre, n=len(change), control=0.5, details={"blocks": by_block}, config=config),
        _found(BREADTH, breadth, n=len(change), control=1 / len(change), details={"blocks": by_block}, config=config),
    ]


def _rank(changed: Changed, seed: int) -> Evidence:
    """Mean effective rank of the matrices that changed most, over the rank they could have."""
    matrices = {n: v for n, v in changed.new.items() if v.dim() >= 2 and min(v.flatten(1).shape) > 1}
    fitting = {n: v for n, v in matrices.items() if v.numel() <= MAX_ENTRIES}
    if not fitting:
        return _absent(RANK, "no matrix changed" if not matrices else "every changed matrix is too large to decompose")
    size = {n: float((v.float() - changed.old[n].float()).norm()) for n, v in fitting.items()}
    chosen = sorted(sorted(fitting, key=lambda n: -size[n])[:MATRICES])
    ranks = compare_weights(changed.old, {n: fitting[n] for n in chosen}, effective_rank=True)[-1]
    full = np.array([min(fitting[n].flatten(1).shape) for n in chosen])
    at_random: dict[tuple[int, ...], float] = {}
    for n in chosen:
        shape = tuple(fitting[n].flatten(1).shape)
        if shape not in at_random:
            noise = torch.randn(shape, generator=generator(seed, "effective rank", *shape))
            other = compare_weights({"x": torch.zeros(shape)}, {"x": noise}, effective_rank=True)[-1]
            at_random[shape] = float(other.values[0]) / min(shape)
    control = float(np.mean([at_random[tuple(fitting[n].flatten(1).shape)] for n in chosen]))
    table = Labelled(
        "effective rank of the change, as a share of the full rank",
        ranks.values / full,
        ranks.axes,
        n=len(chosen),
        mask_policy="-",
    )
    config = {"matrices": len(chosen), "changed_matrices": len(matrices), "too_large": len(matrices) - len(fitting)}
    value = float(np.mean(table.values))
    return _found(RANK, value, n=len(chosen), control=control, details={"matrices": table}, config=config, seed=seed)


def _nothing(phases: Phases) -> Found:
    """Say loudly that no weight moved, and whether the answers did."""

    def answers(model: HookedModel) -> Measured:
        prompts = [*phases.task.forget_train.prompts[:4], *phases.task.forget_heldout.prompts[:4]]
        if not prompts:
            return {"logprob": torch.zeros(0)}
        return {"logprob": score_answers(model, [p.text for p in prompts], [p.answer for p in prompts]).logprob}

    before = phases.once("before", "weights.answers", answers)["logprob"]
    with phases.open("after") as model:
        after = answers(model)["logprob"]
    same = torch.allclose(before, after, rtol=0, atol=AGREE)
    reason = SAME if same else RUNNING
    gap = float((before - after).abs().max()) if len(before) else 0.0
    config = {"nothing_moved": True, "answers_differ_by": gap, "said": reason}
    none = _found(MOVED, 0.0, n=0, control=None, config=config)
    return Found((none, *(_absent(kind, reason, config=config) for kind in (DEPTH, BREADTH, RANK))))


def _found(kind: str, value: float, *, n: int, **fields: Any) -> Evidence:
    return evidence(kind, "all", value, n=n, mask_policy="-", catalogue=WEIGHTS, **fields)


def _absent(kind: str, reason: str, **fields: Any) -> Evidence:
    return missing(kind, "all", reason, mask_policy="-", catalogue=WEIGHTS, **fields)


def look(phases: Phases, progress: Progress) -> Found:
    """Weights that moved."""
    progress("comparing weights", 0, 0)
    return weights_evidence(phases)


register_part(Part("weights", "where and how far weights moved", "probe", "quick", look))
