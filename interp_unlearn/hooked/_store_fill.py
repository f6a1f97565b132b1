"""`write_store`: stream texts through a model into an activation store, resumably."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from interp_unlearn._core import DataError
from interp_unlearn.hooked._batch import Batch, MaskPolicy, batch_from_ids
from interp_unlearn.hooked._forward import evaluating
from interp_unlearn.hooked._inputs import check_batch
from interp_unlearn.hooked._model import HookedModel
from interp_unlearn.hooked._quantile import Quantile
from interp_unlearn.hooked._sites import Site
from interp_unlearn.hooked._store import DTYPES, ActivationStore, Manifest
from interp_unlearn.hooked._store_writer import SHARD_BYTES, StoreWriter
from interp_unlearn.hooked._tap import tap

Progress = bool | Callable[[str, int, int], None]
BATCHES_PER_COMMIT = 4
UNKNOWN_DATA = "the data must be texts, lists of token ids, or Batch objects"


def write_store(
    model: HookedModel,
    data: Iterable[Any] | Batch,
    site: str,
    folder: str | Path,
    *,
    mask_policy: MaskPolicy = "inner",
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
    max_rows: int | None = None,
    winsorise: float | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = True,
) -> ActivationStore:
    """Write the activations of every counted token of ``data`` at one site, in order, and open the store.

    After a kill, the same call with the same data goes on where the last commit was, and ends with the same bytes as
    an uninterrupted run (on the same machine with the same number of threads). A finished store is only checked and
    opened. Memory does not grow with the data: a few batches are held at a time.

    Args:
        model: A language model.
        data: Texts, lists of token ids, or `Batch` objects; anything that can be walked through again in the same
            order. Longer than the context is an error: cut documents with `text_windows`.
        site: One site name.
        folder: New, empty, or that of the interrupted run.
        mask_policy: Which tokens get a row. ``"inner"`` leaves out special tokens and the first one, whose
            activations are massive in most language models.
        batch_size: Sequences per forward pass; sequences of like length run together.
        dtype: float32, float16 or bfloat16.
        max_rows: Stop after so many rows.
        winsorise: Shorten rows to at most this many times the median norm of the rows so far (5–10 tames what massive
            activations remain after ``"inner"``). Off by default; the manifest says it.
        shard_bytes: Size of the files.
        progress: Show a bar, or call this with (what, done, total).

    Raises:
        DataError: If the folder holds a store of other data, weights or settings, or a text does not fit the context.
        FileFormatError: If the folder holds something else, or files of the store are cut or changed.
        InterpUnlearnError: If the disk is full; run the same call again after freeing space.
    """
    folder = Path(folder)
    if batch_size < 1 or (max_rows is not None and max_rows < 1) or (winsorise is not None and winsorise <= 0):
        raise DataError("batch_size and max_rows must be at least 1, and winsorise above 0")
    if dtype not in DTYPES:
        raise DataError(f"a store holds float32, float16 or bfloat16, not {dtype}")
    settings = {
        "site": site,
        "model": model.name,
        "weights": weights_fingerprint(model),
        "mask_policy": mask_policy,
        "batch_size": batch_size,
        "dtype": DTYPES[dtype][0],
        "max_rows": max_rows,
        "winsorise": winsorise,
        "shard_bytes": shard_bytes,
    }
    items = _items(data)
    if (folder / "manifest.json").exists():
        manifest = Manifest.read(folder)
        digest = _skip(folder, manifest, settings, items)
        if manifest.complete:
            if max_rows is None and next(items, None) is not None:
                raise DataError(f"{folder} is finished, but now there is more data than it had; choose a new folder")
            return ActivationStore.open(folder)
        writer = StoreWriter.resume(folder)
    else:
        digest = ""
        writer = StoreWriter.create(
            folder,
            model.name,
            site,
            d=_width(model, site),
            dtype=dtype,
            mask_policy=mask_policy,
            winsorise=winsorise,
            shard_bytes=shard_bytes,
            facts={"settings": settings, "digest": "", "source": model.source},
        )
    total = max_rows if max_rows is not None else len(data) if isinstance(data, Sized) else 0
    with writer, _report(progress, site, total) as report:
        _fill(model, items, writer, digest, settings, report)
    return ActivationStore.open(folder)


def _fill(
    model: HookedModel,
    items: Iterator[_Item],
    writer: StoreWriter,
    digest: str,
    settings: dict[str, Any],
    report: Callable[[int], None],
) -> None:
    """Read windows of a few batches; each window is committed as a whole."""
    clip = _Winsoriser.load(settings["winsorise"], writer.manifest.facts.get("winsoriser"))
    max_rows, size = settings["max_rows"], settings["batch_size"]
    n = writer.manifest.n_sequences
    while max_rows is None or writer.manifest.n_rows < max_rows:
        report(writer.manifest.n_rows if max_rows is not None else n)
        window = list(islice(items, size * BATCHES_PER_COMMIT))
        if not window:
            break
        rows, tokens, nth, positions = _read_window(model, window, settings["site"], settings["mask_policy"], size)
        if max_rows is not None:
            left = max_rows - writer.manifest.n_rows
            rows, tokens, nth, positions = rows[:left], tokens[:left], nth[:left], positions[:left]
        facts: dict[str, Any] = {}
        if clip is not None:
            rows = clip(rows)
            facts["winsoriser"] = clip.state()
        writer.append(rows, tokens, nth + n, positions)
        for item in window:
            digest = item.digest(digest)
        n += len(window)
        writer.commit(n, {**facts, "digest": digest})
    report(writer.manifest.n_rows if max_rows is not None else n)
    if writer.manifest.n_rows == 0:
        raise DataError(
            f"no token counts under mask policy {settings['mask_policy']!r} in {n} sequences; nothing to store"
        )


@torch.no_grad()
def _read_window(
    model: HookedModel, window: Sequence[_Item], site: str, mask_policy: MaskPolicy, batch_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, token ids, number within the window and position of all counted tokens, in the order of the window."""
    rows_of_ids = _encode(model, window)
    special_ids = list(model.tokenizer.all_special_ids) if model.tokenizer is not None else []
    order = sorted(range(len(window)), key=lambda i: len(rows_of_ids[i]))
    found: list[tuple[Tensor, Tensor, Tensor]] = [(torch.empty(0),) * 3] * len(window)  # type: ignore[list-item]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = check_batch(model, batch_from_ids([rows_of_ids[i] for i in chosen], special_ids=special_ids))
        for row, i in enumerate(chosen):
            special = window[i].special
            if special is not None:
                batch.special[row, : len(special)] = torch.tensor(special)
        batch = batch.to(model.device)
        mask = batch.mask(mask_policy)
        values = _rows_at(model, batch, mask, site)
        counts = mask.sum(1).tolist()
        parts = [t.split(counts) for t in (values, batch.tokens[mask].cpu(), batch.position_ids()[mask].cpu())]
        for row, i in enumerate(chosen):
            found[i] = (parts[0][row], parts[1][row], parts[2][row])
    numbers = [torch.full((len(f[1]),), i) for i, f in enumerate(found)]
    rows, tokens, positions = (torch.cat([f[k] for f in found]) for k in range(3))
    return rows, tokens, torch.cat(numbers), positions


def _rows_at(model: HookedModel, batch: Batch, mask: Tensor, site: str) -> Tensor:
    shape = (batch.tokens.shape[0], batch.tokens.shape[1])

    def keep(where: Site, value: Tensor) -> Tensor:
        return where.shape_in(value, shape).flatten(2)[mask.to(value.device)].cpu()

    with evaluating(model.module), tap(model.sites, [site], keep=keep) as taps:
        taps.run(lambda: model.forward(batch))
        return taps[site]


@torch.no_grad()
def _width(model: HookedModel, site: str) -> int:
    """Features of a site, from a pass over one token."""
    tokens = torch.zeros(1, 1, dtype=torch.bool)
    batch = Batch(tokens.long(), ~tokens, tokens).to(model.device)
    model.lm  # noqa: B018  # a plain module has no tokens to give rows to: its error says so
    return int(_rows_at(model, batch, batch.attended, site).shape[1])


@dataclass(frozen=True)
class _Item:
    """One sequence as it was given: a text, or ids with perhaps their special tokens."""

    text: str | None
    ids: tuple[int, ...] = ()
    special: tuple[bool, ...] | None = None

    def digest(self, before: str) -> str:
        """Chain of SHA-256 over the sequences read so far."""
        own = self.text.encode() if self.text is not None else np.asarray(self.ids, dtype=np.int64).tobytes()
        kind = b"text" if self.text is not None else b"ids" + bytes(self.special or ())
        return hashlib.sha256(b"|".join([before.encode(), kind, own])).hexdigest()


def _items(data: Iterable[Any] | Batch) -> Iterator[_Item]:
    if isinstance(data, (str, Batch)):
        data = [data]
    for item in data:
        if isinstance(item, str):
            yield _Item(item)
        elif isinstance(item, Batch):
            for tokens, attended, special in zip(item.tokens, item.attended, item.special, strict=True):
                yield _Item(None, tuple(tokens[attended].tolist()), tuple(special[attended].tolist()))
        else:
            try:
                ids = torch.as_tensor(item)
            except (TypeError, ValueError, RuntimeError) as error:
                raise DataError(UNKNOWN_DATA) from error
            if ids.dim() not in (1, 2) or ids.is_floating_point():
                raise DataError(UNKNOWN_DATA)
            for row in ids if ids.dim() == 2 else ids[None]:
                yield _Item(None, tuple(row.tolist()))


def _encode(model: HookedModel, window: Sequence[_Item]) -> list[list[int]]:
    texts = [item.text for item in window if item.text is not None]
    if texts and model.tokenizer is None:
        raise DataError("this model was opened without a tokenizer; pass token ids, or open_model(…, tokenizer=…)")
    encoded = iter(model.tokenizer(texts, verbose=False)["input_ids"] if texts else [])
    rows = [list(item.ids) if item.text is None else next(encoded) for item in window]
    for item, row in zip(window, rows, strict=True):
        if not row:
            raise DataError(f"the text {item.text!r} has no tokens; leave empty texts out")
    return rows


def _skip(folder: Path, manifest: Manifest, settings: dict[str, Any], items: Iterator[_Item]) -> str:
    """Compare an existing store with what is asked now, and walk past the sequences it has; returns their digest."""
    before = manifest.facts.get("settings")
    if before is None:
        raise DataError(f"{folder} was not made by write_store, so it cannot be continued; choose a new folder")
    for key, value in settings.items():
        if before.get(key) != value:
            what = "other weights" if key == "weights" else f"{key} {before.get(key)!r}, not {value!r}"
            raise DataError(f"{folder} was made with {what}; choose a new folder, or ask for the same")
    digest, seen = "", 0
    for item in islice(items, manifest.n_sequences):
        digest, seen = item.digest(digest), seen + 1
    if seen < manifest.n_sequences or digest != manifest.facts.get("digest"):
        raise DataError(
            f"{folder} was made from other data: its first {manifest.n_sequences} sequences are not those given now, "
            "or their text was cut otherwise then; choose a new folder"
        )
    return digest


def weights_fingerprint(model: HookedModel) -> str:
    """A hash of names, shapes and evenly spaced numbers of every parameter; changes when weights are trained."""
    state = hashlib.sha256()
    for name, parameter in model.module.named_parameters():
        state.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        if parameter.device.type != "meta":
            flat = parameter.detach().reshape(-1)
            state.update(flat[:: max(1, flat.numel() // 1024)].double().cpu().numpy().tobytes())
    return state.hexdigest()[:16]


class _Winsoriser:
    """Shortens rows to a multiple of the running median norm, and remembers how many."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.norms = Quantile(0.01, smallest=1e-6, largest=1e8)
        self.shortened = 0

    @classmethod
    def load(cls, factor: float | None, state: dict[str, Any] | None) -> _Winsoriser | None:
        if factor is None:
            return None
        made = cls(factor)
        if state is not None:
            full = made.norms.add(torch.zeros(1, 1)).state_dict()
            full["counts"].zero_()
            for key, count in state["counts"].items():
                full["counts"][int(key)] = count
            full["n"] = torch.tensor(state["n"])
            full["low"].fill_(state["low"])
            full["high"].fill_(state["high"])
            made.norms.load_state_dict(full)
            made.shortened = state["shortened"]
        return made

    def state(self) -> dict[str, Any]:
        """JSON-ready; `load` reads it back."""
        if self.norms.n == 0:
            return {"n": 0, "counts": {}, "low": 0.0, "high": 0.0, "shortened": 0, "limit": None}
        counts = self.norms.state_dict()["counts"][:, 0]
        filled = {str(i): int(counts[i]) for i in counts.nonzero()[:, 0].tolist()}
        limit = self.factor * float(self.norms.median)
        extremes = {"low": float(self.norms.low), "high": float(self.norms.high)}
        return {"n": self.norms.n, "counts": filled, **extremes, "shortened": self.shortened, "limit": limit}

    def __call__(self, rows: Tensor) -> Tensor:
        if len(rows) == 0:
            return rows
        norms = rows.double().norm(dim=1, keepdim=True)
        limit = self.factor * self.norms.add(norms).median
        self.shortened += int((norms > limit).sum())
        return (rows.double() * (limit / norms.clamp(min=1e-30)).clamp(max=1.0)).to(rows.dtype)


@contextmanager
def _report(progress: Progress, site: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that is told how far the work is."""
    if callable(progress):
        yield lambda done: progress(f"storing {site}", done, total)
        return
    with tqdm(total=total or None, desc=f"storing {site}", unit="", disable=not progress) as bar:

        def move(done: int) -> None:
            bar.update(done - bar.n)

        yield move
