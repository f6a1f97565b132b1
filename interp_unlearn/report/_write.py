"""`write_report`: from run folders to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp_unlearn._core import ConfigError, __version__
from interp_unlearn.report._appendix import Leftover, appendix
from interp_unlearn.report._compare import Comparison, compare
from interp_unlearn.report._evidence import EvidenceGroup, evidence_groups, parity
from interp_unlearn.report._find import read_runs
from interp_unlearn.report._headline import Headline, headline
from interp_unlearn.report._html import page_path, render, write_page
from interp_unlearn.report._pictures import Pictures, pictures
from interp_unlearn.report._provenance import Provenance, provenance
from interp_unlearn.report._untested import untested
from interp_unlearn.report._verdict import VerdictView, verdicts


@dataclass(frozen=True)
class Chapter:
    """Everything that the template shows of one comparison."""

    id: str
    comparison: Comparison
    notices: tuple[str, ...]
    headline: Headline
    pictures: tuple[Pictures, ...]
    verdicts: tuple[VerdictView, ...]
    evidence: tuple[EvidenceGroup, ...]
    parity: tuple[tuple[str, str, str], ...]
    provenance: Provenance
    untested: tuple[str, ...]
    appendix: dict[str, tuple[Leftover, ...]]


def write_report(run_folders: Sequence[Path], out: Path) -> Path:
    """Write one self-contained HTML file about one or several runs.

    Runs of the same model, world, target and seed are shown side by side; others get chapters of their own. Only saved
    files are read. What is missing, half-written or foreign is said in the report.

    Args:
        run_folders: Run folders, in the order in which methods are shown.
        out: The HTML file, or a folder for ``report.html``.

    Returns:
        The path of the file.

    Raises:
        ConfigError: If no folder is given.
        FileFormatError: If none of the folders is a run folder, or ``out`` is a file of other origin.
    """
    if not run_folders:
        raise ConfigError("a report needs at least one run folder; give one made by: interp-unlearn run CONFIG")
    path = page_path(out)
    runs, refused = read_runs(run_folders)
    chapters = tuple(_chapter(i, comparison) for i, comparison in enumerate(compare(runs), 1))
    page = render("report.html.j2", {"chapters": chapters, "refused": refused, "version": __version__})
    write_page(path, page)
    return path


def _chapter(number: int, comparison: Comparison) -> Chapter:
    return Chapter(
        id=f"c{number}",
        comparison=comparison,
        notices=(*comparison.doubts(), *_notices(comparison)),
        headline=headline(comparison),
        pictures=pictures(comparison),
        verdicts=verdicts(comparison),
        evidence=evidence_groups(comparison),
        parity=_parity(comparison),
        provenance=provenance(comparison),
        untested=untested(comparison),
        appendix=appendix(comparison),
    )


def _notices(comparison: Comparison) -> list[str]:
    """One sentence per unfinished run and per run with unreadable files."""
    said = []
    for name, run in comparison.runs.items():
        if not run.done:
            state, message = run.status.get("state", "unknown"), run.status.get("message")
            done = ", ".join(str(part) for part in run.status.get("finished") or ()) or "nothing"
            said.append(
                f"{name} is not finished (state: {state}; complete so far: {done})"
                + (f": {message}" if message else ".")
            )
        if run.problems:
            said.append(f"{name}: {'; '.join(run.problems)}.")
    return said


def _parity(comparison: Comparison) -> tuple[tuple[str, str, str], ...]:
    rows = []
    for method, item in parity(comparison).items():
        identical = item.config.get("identical")
        verdict = " (bit-identical)" if identical is True else " (not identical)" if identical is False else ""
        rows.append((method, f"largest difference {item.value:.3g}{verdict}", f"n = {item.n} tokens"))
    return tuple(rows)
