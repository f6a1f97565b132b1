"""The run folder: every file of a run, written atomically; the only thing that views read."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from interp_unlearn._core import (
    Evidence,
    FileFormatError,
    Labelled,
    __version__,
    append_jsonl,
    config_hash,
    read_json,
    read_jsonl,
    read_tensors,
    run_folders,
    write_json,
    write_jsonl,
    write_tensors,
)
from interp_unlearn.hooked import Activations, Intervention, load_intervention, save_intervention
from interp_unlearn.runs._cost import Cost

State = Literal["running", "done", "failed", "stopped"]


def file_name(name: str) -> str:
    """A result's name as a file name (slashes and spaces become dashes)."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-")


class RunFolder:
    """Reads and writes one run folder (layout in ``docs/architecture.md``)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run folder.

        Raises:
            FileFormatError: If it does not exist or is not a run folder.
        """
        folder = cls(path)
        if not (folder.path / "config.json").exists():
            raise FileFormatError(f"{folder.path} is not a run folder (it has no config.json)")
        if folder.config().get("kind") != "run":
            raise FileFormatError(f"{folder.path / 'config.json'} was not written by interp-unlearn run")
        return folder

    @staticmethod
    def find(path: str | Path) -> list[RunFolder]:
        """The run folder at ``path``, or the run folders below it at any depth, by name, as `run_folders` finds them.

        Raises:
            FileFormatError: If there is none, or one of them cannot be read.
        """
        found = run_folders(path)
        if not found:
            raise FileFormatError(f"{path} holds no run folder; give a folder made by: interp-unlearn run CONFIG")
        return [RunFolder.open(p) for p in found]

    # -- config, status, events --------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """The saved config with versions."""
        data = read_json(self.path / "config.json")
        if not isinstance(data, dict):
            raise FileFormatError(f"{self.path / 'config.json'} does not hold a run config")
        return data

    def write_config(
        self, config: Mapping[str, Any], versions: Mapping[str, str], models: Mapping[str, str] | None = None
    ) -> None:
        """Write ``config.json``, and remove what an earlier config left here before anything was measured.

        Args:
            config: Plain values.
            versions: Versions of the packages that numbers depend on.
            models: Fingerprints of the checkpoints that are local files, by field.
        """
        for name in ("recipe.json", "events.jsonl", "status.json", "task.json"):
            (self.path / name).unlink(missing_ok=True)
        facts = {"kind": "run", "version": __version__, "versions": versions, "models": dict(models or {})}
        write_json(self.path / "config.json", {**facts, **config})

    def status(self) -> dict[str, Any]:
        """The last written status, ``{"state": "running", "finished": []}`` before the first."""
        file = self.path / "status.json"
        found = read_json(file) if file.exists() else {"state": "running", "finished": []}
        if not isinstance(found, dict) or not isinstance(found.get("state"), str):
            raise FileFormatError(f"{file} does not hold the status of a run; delete {self.path} and run again")
        return found

    def write_status(self, state: State, **facts: Any) -> None:
        """Update ``status.json``, keeping facts not named."""
        write_json(self.path / "status.json", {**self.status(), "state": state, "updated": time.time(), **facts})

    def finish_part(self, part: str, cost: Cost) -> None:
        """Note that a part of the run is complete and what it cost, so that `resume` skips it."""
        status = self.status()
        self.write_status(
            status["state"], finished=[*status.get("finished", []), part], **_with_cost(status, part, cost)
        )

    def add_cost(self, part: str, cost: Cost) -> None:
        """Note what was spent on a part before it was interrupted; a later session adds its own."""
        status = self.status()
        self.write_status(status["state"], **_with_cost(status, part, cost))

    def finished(self, part: str) -> bool:
        """Whether `finish_part` was called for ``part``."""
        return part in self.status().get("finished", [])

    def log(self, kind: str, **facts: Any) -> None:
        """Append one event."""
        append_jsonl(self.path / "events.jsonl", {"kind": kind, **facts})

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Events in order, optionally of one kind."""
        return [e for e in read_jsonl(self.path / "events.jsonl") if kind is None or e.get("kind") == kind]

    def drop_events_after(self, step: int) -> None:
        """Forget events of steps later than ``step`` (they will be written again on resume)."""
        events = self.events()
        kept = [e for e in events if e.get("step", -1) <= step]
        if len(kept) < len(events):
            write_jsonl(self.path / "events.jsonl", kept)

    # -- results -----------------------------------------------------------------------------------------------------

    def save_tables(self, tables: Iterable[Labelled]) -> None:
        """Write each table to ``tables/<name>.json``."""
        for table in tables:
            write_json(self.path / "tables" / f"{file_name(table.name)}.json", table.to_json())

    def table(self, name: str) -> Labelled | None:
        """A saved table, or None."""
        file = self.path / "tables" / f"{file_name(name)}.json"
        return Labelled.from_json(read_json(file)) if file.exists() else None

    def save_evidence(self, evidence: Iterable[Evidence]) -> None:
        """Write each evidence to ``evidence/<name>.json``."""
        for item in evidence:
            item.save(self.path / "evidence" / f"{file_name(item.name)}.json")

    def evidence(self) -> list[Evidence]:
        """All saved evidence, by file name."""
        return [Evidence.load(p) for p in sorted((self.path / "evidence").glob("*.json"))]

    def drop_evidence(self, name: str) -> None:
        """Remove one evidence, if it is there."""
        (self.path / "evidence" / f"{file_name(name)}.json").unlink(missing_ok=True)

    def parts(self) -> dict[str, dict[str, Any]]:
        """What is known of the registered parts of the evidence, by name: what each does and what it saved."""
        file = self.path / "parts.json"
        found = read_json(file) if file.exists() else {"parts": {}}
        if not isinstance(found, dict) or not isinstance(found.get("parts"), dict):
            raise FileFormatError(f"{file} does not hold the parts of the evidence; delete it, or run again")
        return found["parts"]

    def write_parts(self, parts: Mapping[str, Mapping[str, Any]]) -> None:
        """Write ``parts.json``."""
        write_json(self.path / "parts.json", {"kind": "parts", "version": __version__, "parts": dict(parts)})

    def save_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Write ``verdict.json``, as `Verdict.to_json` gives it."""
        write_json(self.path / "verdict.json", dict(verdict))

    def measured_file(self, phase: str, name: str) -> Path:
        """File of one measurement of a phase, without suffix; names that are no file names get a hash."""
        plain = file_name(name)
        if plain != name or len(plain) > 100:
            plain = f"{plain[:90]}-{config_hash({'name': name})[:8]}"
        return self.path / "measured" / phase / plain

    def save_activations(self, phase: str, acts: Activations) -> None:
        """Write the mention activations of one phase."""
        acts.save(self.path / "activations" / phase)

    def has_activations(self, phase: str) -> bool:
        """Whether mention activations of one phase were saved whole."""
        return (self.path / "activations" / phase / "activations.json").exists()

    def activations(self, phase: str) -> Activations:
        """Read the mention activations of one phase."""
        return Activations.load(self.path / "activations" / phase)

    # -- weights -----------------------------------------------------------------------------------------------------

    def save_checkpoint(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write the training state; the pointer file changes last, so a kill leaves the old or the new state whole."""
        folder = self.path / "checkpoint"
        write_tensors(folder / f"state-{step}.safetensors", tensors)
        write_json(folder / "latest.json", {"step": step, "facts": facts})
        for file in folder.glob("state-*.safetensors"):
            if file.name != f"state-{step}.safetensors":
                file.unlink()

    def checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """The last whole training state: (step, tensors, facts), or None."""
        pointer = self.path / "checkpoint" / "latest.json"
        if not pointer.exists():
            return None
        data = read_json(pointer)
        return data["step"], read_tensors(pointer.parent / f"state-{data['step']}.safetensors"), data["facts"]

    def drop_checkpoint(self) -> None:
        """Remove the training state of a finished run."""
        for file in (self.path / "checkpoint").glob("*"):
            file.unlink()

    def save_delta(self, tensors: Mapping[str, Tensor], base: Mapping[str, Any]) -> None:
        """Write the changed tensors (their new values) and where the base came from."""
        write_tensors(self.path / "delta.safetensors", tensors, {"base": json.dumps(dict(base), default=str)})

    def delta(self) -> dict[str, Tensor]:
        """The changed tensors; none for a method that only edits the model while it runs."""
        file = self.path / "delta.safetensors"
        return {} if not file.exists() and self._has_intervention() else read_tensors(file)

    def _has_intervention(self) -> bool:
        return (self.path / "intervention.json").exists()

    def save_intervention(self, intervention: Intervention) -> None:
        """Write what is done to the model while it runs."""
        save_intervention(self.path, intervention)

    def intervention(self) -> Intervention | None:
        """What is done to the model while it runs, or None."""
        return load_intervention(self.path) if self._has_intervention() else None

    def link_phase_from(self, other: RunFolder, phase: str) -> None:
        """Take over tables and activations of ``phase`` from another folder (hard links if possible, else copies)."""
        files = [*other.path.glob(f"tables/*.{phase}.json"), *other.path.glob(f"activations/{phase}/*")]
        for file in files:
            _link(file, self.path / file.relative_to(other.path))


def _with_cost(status: Mapping[str, Any], part: str, cost: Cost) -> dict[str, Any]:
    """The costs in ``status`` with those of one more session: times add up, of peaks the larger one stays."""
    facts: dict[str, Any] = {}
    for name, value in asdict(cost).items():
        known = dict(status.get(name, {}))
        if value is not None:
            known[part] = max(known.get(part, 0.0), value) if name == "peak_mb" else known.get(part, 0.0) + value
        facts[name] = known
    return facts


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
