"""TOFU: questions about 200 invented authors (Maini et al., "A Task of Fictitious Unlearning", arXiv 2401.06121, MIT).

A model is finetuned on ``full``, unlearns ``forget01``, ``forget05`` or ``forget10`` (1, 5 or 10 % of the authors) and
is compared with one finetuned on the matching ``retain99``, ``retain95`` or ``retain90``. The ``_perturbed`` splits add
a paraphrase and wrong answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_unlearn._core import ConfigError, DataError, FileFormatError, nearest

HUB_REPOSITORY = "locuslab/TOFU"
TOFU_SIZES: Mapping[str, int] = {
    "full": 4000,
    "retain90": 3600,
    "retain95": 3800,
    "retain99": 3960,
    "forget01": 40,
    "forget05": 200,
    "forget10": 400,
    "holdout01": 40,
    "holdout05": 200,
    "holdout10": 400,
    "forget01_perturbed": 40,
    "forget05_perturbed": 200,
    "forget10_perturbed": 400,
    "retain_perturbed": 400,
    "real_authors_perturbed": 100,
    "world_facts_perturbed": 117,
}
"""Rows of each split. The hub's ``real_authors`` and ``world_facts`` are left out: their perturbed forms hold the same
questions."""


@dataclass(frozen=True)
class TofuRow:
    """One question.

    Attributes:
        question: The question.
        answer: The right answer, a sentence.
        paraphrased_question: The same question in other words; empty where the split has none.
        paraphrased_answer: The right answer in other words; empty where the split has none.
        perturbed: Wrong answers of the same form; empty where the split has none.
    """

    question: str
    answer: str
    paraphrased_question: str = ""
    paraphrased_answer: str = ""
    perturbed: tuple[str, ...] = ()

    @property
    def right(self) -> str:
        """What the truth ratio calls the right answer: the paraphrased one, where there is one."""
        return self.paraphrased_answer or self.answer


@dataclass(frozen=True)
class TofuSplit:
    """One split, in file order.

    Attributes:
        name: One of `TOFU_SIZES`.
        rows: Its questions; row i of ``forget10_perturbed`` is row i of ``forget10``.
        source: The file, or the hub's repository.
    """

    name: str
    rows: tuple[TofuRow, ...]
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def head(self, n: int) -> TofuSplit:
        """The first n rows."""
        return TofuSplit(self.name, self.rows[:n], self.source)


@dataclass(frozen=True)
class TofuSpan:
    """Where the entity lies in an answer of ``forget10``, for depth scores; published spans, in text.

    Attributes:
        row: Row of ``forget10``.
        question: The question.
        answer: The answer.
        prefix: The answer up to the entity.
        entity: The words that carry the fact.
    """

    row: int
    question: str
    answer: str
    prefix: str
    entity: str


def retain_split(forget: str) -> str:
    """The split that gold is finetuned on, for a forget split: ``forget10`` → ``retain90``.

    Raises:
        ConfigError: If it is no forget split.
    """
    names = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
    base = forget.removesuffix("_perturbed")
    if base not in names:
        raise ConfigError(f"{forget!r} is no forget split of TOFU{nearest(base, names)}; use {', '.join(names)}")
    return names[base]


def load_tofu(split: str, folder: str | Path | None = None, *, hub: bool = False) -> TofuSplit:
    """One split of TOFU.

    Args:
        split: One of `TOFU_SIZES`.
        folder: Where ``<split>.json`` is (a JSON list, or one object per line); default
            ``$INTERP_UNLEARN_DATA/tofu``. A folder is never left for the network.
        hub: Without a folder, and where the file is not in the data folder, download it from the Hugging Face hub.

    Raises:
        ConfigError: If there is no such split.
        DataError: If the file is nowhere, the hub does not give it, or it has another number of rows than published.
        FileFormatError: If the file is not JSON, or a row lacks a field.
    """
    if split not in TOFU_SIZES:
        raise ConfigError(f"TOFU has no split {split!r}{nearest(split, TOFU_SIZES)}; use {', '.join(TOFU_SIZES)}")
    path = _find(f"{split}.json", folder, hub)
    rows = tuple(_row(path, i, data) for i, data in enumerate(_read(path)))
    if len(rows) != TOFU_SIZES[split]:
        raise DataError(
            f"{path} has {len(rows)} rows, but {split} of TOFU has {TOFU_SIZES[split]}; get the published file again"
        )
    return TofuSplit(split, rows, str(path))


def load_tofu_spans(folder: str | Path | None = None) -> tuple[TofuSpan, ...]:
    """Entity spans of ``forget10`` answers (gnueaj/unlearning-depth-score, arXiv 2605.24614), 367 rows.

    Args:
        folder: Where ``forget10_entity_spans.json`` is; default ``$INTERP_UNLEARN_DATA/tofu``.
    """
    path = _find("forget10_entity_spans.json", folder, hub=False)
    try:
        return tuple(
            TofuSpan(int(r["idx"]), str(r["question"]), str(r["answer"]), str(r["prefix"]), str(r["entity"]))
            for r in _read(path)
        )
    except KeyError as error:
        raise FileFormatError(f"{path} is not the published file of entity spans: a row lacks {error}") from error


def _find(name: str, folder: str | Path | None, hub: bool) -> Path:
    """The file, in the folder, the data folder, or the hub's cache."""
    named = os.environ.get("INTERP_UNLEARN_DATA")
    where = Path(folder).expanduser() if folder is not None else Path(named).expanduser() / "tofu" if named else None
    if where is not None and (where / name).is_file():
        return where / name
    if folder is None and hub:
        return _download(name)
    said = f"the folder {where} has no {name}" if where is not None else f"no folder is named that holds {name}"
    raise DataError(
        f"TOFU was not found: {said}; pass folder=…, set INTERP_UNLEARN_DATA to the folder that holds tofu/, or leave "
        "the folder out and ask for hub=True"
    )


def _download(name: str) -> Path:
    """A file of the hub's repository: the cached one where there is one."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_REPOSITORY, name, repo_type="dataset"))
    except OSError as error:  # every error of the hub's client is one
        raise DataError(
            f"{name} of {HUB_REPOSITORY} is neither cached nor to be had from the hub ({error}); give a local folder"
        ) from error


def _read(path: Path) -> list[Any]:
    """A JSON list, or one JSON object per line."""
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x]
    except json.JSONDecodeError as error:
        raise FileFormatError(f"{path} is neither a JSON list nor one JSON object per line ({error})") from error
    if not found or not all(isinstance(row, dict) for row in found):
        raise FileFormatError(f"{path} must hold JSON objects, at least one")
    return found


def _row(path: Path, index: int, data: Mapping[str, Any]) -> TofuRow:
    try:
        return TofuRow(
            question=data["question"].strip(),
            answer=data["answer"].strip(),
            paraphrased_question=data.get("paraphrased_question", "").strip(),
            paraphrased_answer=data.get("paraphrased_answer", "").strip(),
            perturbed=tuple(text.strip() for text in data.get("perturbed_answer", ())),
        )
    except (KeyError, AttributeError) as error:
        raise FileFormatError(f"row {index} of {path} is no TOFU question: {error}") from error
