"""The parts ``maps`` and ``channels``: where in an image, and in which channels, the forgotten class is seen.

For the logit of the forgotten class and a block's maps A (channel, height, width), with slopes ``w_c`` = mean over
places of ``∂logit/∂A_c``: the map is ``ReLU(Σ_c w_c A_c)`` (Grad-CAM, Selvaraju et al. 2017), and a channel's
attribution is the mean over places of ``A_c ∂logit/∂A_c``. Both are first-order pictures of one model, not causes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import Axis, DataError, Evidence, Labelled
from interp_unlearn.benchmarks import ALIGNED, CONFLICTING, ImageTask
from interp_unlearn.hooked import HookedModel, tap
from interp_unlearn.probes._catalogue import Kind, evidence, missing
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._phases import Phases
from interp_unlearn.worlds import ItemSet, labelled_task

SHOWN = 8
LEAST_PLACES = 6
MOST_PIXELS = 48
BATCH = 64
_NO_CAUSE = "A map is a first-order picture: what lights up need not be what the answer depends on."
KINDS: Mapping[str, Kind] = {
    "maps.object": Kind(
        "What share of the map for the forgotten class lies on the object?",
        "near control",
        "gold (retrained without the class)",
        f"{_NO_CAUSE} A model that forgot has a map too, only a weak one; strength is in config.",
    ),
    "channels.similarity": Kind(
        "Do the same channels still speak for the forgotten class (cosine of attributions, before against after)?",
        "low",
        "gold against the original, whose channels have no order in common",
        f"{_NO_CAUSE} Channels that trade places look like change.",
    ),
}


def map_site(model: HookedModel, task: ImageTask) -> str:
    """The deepest block whose maps still have some places each way, else the first with maps.

    Raises:
        DataError: If no block gives maps (channel, height, width).
    """
    shape = task.shape(model)
    sites = [f"{path}.output" for path in shape.blocks]
    with torch.no_grad(), tap(model.sites, sites, stop=False) as taps:
        taps.run(lambda: task.logits(model, task.forget_train.ids[:1]))
        maps = [s for s in sites if taps[s].dim() == 4]
        fine = [s for s in maps if min(taps[s].shape[2:]) >= LEAST_PLACES]
    if not maps:
        raise DataError(f"{model.name} has no block with maps (channel, height, width), so there are no places to show")
    return fine[-1] if fine else maps[0]


def slopes(
    model: HookedModel, task: ImageTask, items: ItemSet, site: str
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
    """Maps at ``site``, the slopes of the forgotten class's logit there, and that logit, of each image."""
    maps, found, logit = [], [], []
    flags = {p: p.requires_grad for p in model.module.parameters()}
    try:
        for p in flags:
            p.requires_grad_(True)
        with torch.enable_grad():
            for ids in items.ids.split(BATCH):
                with tap(model.sites, [site], stop=False) as taps:
                    own = taps.run(lambda ids=ids: task.logits(model, ids))[:, task.label]
                    value = taps[site]
                found.append(torch.autograd.grad(own.sum(), value)[0].float().cpu())
                maps.append(value.detach().float().cpu())
                logit.append(own.detach().float().cpu())
    finally:
        for p, flag in flags.items():
            p.requires_grad_(flag)
    return torch.cat(maps), torch.cat(found), torch.cat(logit)


def class_maps(maps: Float[Tensor, "n c h w"], slope: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """``ReLU(Σ_c mean(slope_c) maps_c)`` of each image."""
    return (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu()


def shown_items(task: ImageTask) -> ItemSet:
    """A few evaluation images of the class, aligned and conflicting in turns."""
    items = task.forget_heldout if len(task.forget_heldout) else task.forget_train
    bias = items.groups["bias"]
    sides = [[i for i, b in enumerate(bias) if b == side][: SHOWN // 2] for side in (ALIGNED, CONFLICTING)]
    return items.take([i for side in sides for i in side], "shown")


def _measure(model: HookedModel, task: ImageTask) -> dict[str, Tensor]:
    site = map_site(model, task)
    shown, items = shown_items(task), task.forget_heldout if len(task.forget_heldout) else task.forget_train
    maps, slope, logit = slopes(model, task, items, site)
    out = {"attribution": (maps * slope).mean((2, 3)), "logit": logit, "strength": class_maps(maps, slope).mean((1, 2))}
    if task.data.mask is not None:
        out["object"] = _on_object(class_maps(maps, slope), task.data.mask[items.ids])
    out["shown"] = class_maps(*slopes(model, task, shown, site)[:2])
    return out


def _on_object(maps: Float[Tensor, "n h w"], mask: Tensor) -> Float[Tensor, " n"]:
    """Share of each map's mass where the object is; NaN for an empty map."""
    covered = nn.functional.adaptive_avg_pool2d(mask[:, None].float(), (maps.shape[1], maps.shape[2]))[:, 0]
    return (maps * covered).sum((1, 2)) / maps.sum((1, 2)).where(maps.sum((1, 2)) > 0, torch.nan)


def _pictures(task: ImageTask, items: ItemSet) -> Labelled:
    """The images themselves, axes (image, y, x, channel), 0 to 255."""
    pixels = task.data.images[items.ids].float()
    if max(pixels.shape[2:]) > MOST_PIXELS:
        pixels = nn.functional.interpolate(pixels, (MOST_PIXELS, MOST_PIXELS), mode="bilinear", antialias=True)
    values = pixels.round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    height, width = values.shape[1:3]
    axes = (
        _axis("image", [f"{b}: {n}" for b, n in zip(items.groups["bias"], items.names, strict=True)]),
        _axis("y", range(height)),
        _axis("x", range(width)),
        Axis("channel", ("red", "green", "blue")),
    )
    return Labelled("maps.pictures", values, axes, n=1, mask_policy="items", note="pixels, 0 to 255")


def _axis(name: str, labels: object) -> Axis:
    return Axis(name, tuple(str(v) for v in labels))  # type: ignore[attr-defined]


def _map_table(values: Tensor, pictures: Labelled, phase: str) -> Labelled:
    array = values.double().numpy()
    axes = (pictures.axes[0], _axis("y", range(array.shape[1])), _axis("x", range(array.shape[2])))
    note = "ReLU of the slope-weighted sum of channels for the forgotten class's logit; one unit for all phases"
    return Labelled(f"maps.{phase}", array, axes, n=1, mask_policy="items", note=note)


def _measured(phases: Phases, progress: Progress) -> tuple[ImageTask, dict[str, Mapping[str, Tensor]]]:
    task = labelled_task(phases.any_task, ImageTask, "drawing maps of images")
    found = {}
    for i, phase in enumerate(phases.names):
        progress(f"drawing maps ({phase})", i, len(phases.names))
        found[phase] = phases.once(phase, "maps", lambda m: _measure(m, task))
    return task, found


def look_maps(phases: Phases, progress: Progress) -> Found:
    """Maps of a few images on every phase, and how much of all maps lies on the object."""
    task, found = _measured(phases, progress)
    shown = shown_items(task)
    pictures = _pictures(task, shown)
    tables = {pictures.name: pictures}
    tables |= {f"maps.{phase}": _map_table(parts["shown"], pictures, phase) for phase, parts in found.items()}
    if "object" not in found["after"]:
        reason = f"{task.world} does not say where the object is"
        return Found((missing("maps.object", "all", reason, mask_policy="items", catalogue=KINDS),), tables)
    bias = np.array((task.forget_heldout if len(task.forget_heldout) else task.forget_train).groups["bias"])
    out = [_object_evidence(side, np.isin(bias, [side]), found, task, phases.seed) for side in (ALIGNED, CONFLICTING)]
    return Found(tuple(out), tables)


def _object_evidence(
    side: str, rows: np.ndarray, found: Mapping[str, Mapping[str, Tensor]], task: ImageTask, seed: int
) -> Evidence:
    def mean(values: Tensor) -> float:
        own = values.double().numpy()[rows]
        return float(np.nanmean(own)) if np.isfinite(own).any() else float("nan")

    share = {phase: mean(parts["object"]) for phase, parts in found.items()}
    strength = {f"strength_{phase}": mean(parts["strength"]) for phase, parts in found.items()}
    assert task.data.mask is not None
    items = task.forget_heldout if len(task.forget_heldout) else task.forget_train
    area = float(task.data.mask[items.ids].double().mean())
    return evidence(
        "maps.object",
        side,
        share["after"],
        n=int(rows.sum()),
        mask_policy="items",
        catalogue=KINDS,
        control=share.get("gold"),
        config={**share, **strength, "share_of_area": area},
        reason="" if share["after"] == share["after"] else "every map of the edited model is empty",
        seed=seed,
    )


def look_channels(phases: Phases, progress: Progress) -> Found:
    """Attribution of channels to the forgotten class, by group, on every phase."""
    task, found = _measured(phases, progress)
    bias = np.array((task.forget_heldout if len(task.forget_heldout) else task.forget_train).groups["bias"])
    sides = [s for s in (ALIGNED, CONFLICTING) if (bias == s).any()]
    tables = {}
    for phase, parts in found.items():
        values = np.stack([parts["attribution"].double().numpy()[bias == s].mean(0) for s in sides], 1)
        axes = (_axis("channel", range(len(values))), Axis("group", tuple(sides)))
        note = "mean over places of activation × slope of the forgotten class's logit"
        tables[f"channels.{phase}"] = Labelled(
            f"channels.{phase}", values, axes, n=len(bias), mask_policy="items", note=note
        )

    def cosine(one: str, other: str, s: int) -> float | None:
        if one not in found or other not in found:
            return None
        a, b = (tables[f"channels.{phase}"].values[:, s] for phase in (one, other))
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / size if size > 0 else float("nan")

    out = []
    for s, side in enumerate(sides):
        value = cosine("before", "after", s)
        assert value is not None
        out.append(
            evidence(
                "channels.similarity",
                side,
                value,
                n=int((bias == side).sum()),
                mask_policy="items",
                catalogue=KINDS,
                control=cosine("before", "gold", s),
                reason="" if value == value else "an attribution is zero in every channel",
                seed=phases.seed,
            )
        )
    return Found(tuple(out), {name: replace(t, seed=phases.seed) for name, t in tables.items()})


register_part(Part("maps", "where in an image the class is seen", "probe", "quick", look_maps, modalities=("image",)))
register_part(
    Part("channels", "which channels speak for the class", "probe", "standard", look_channels, modalities=("image",))
)
