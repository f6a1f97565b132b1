"""One recipe that diverges: the others run, the report is written, and the exit code says that something failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from interp_unlearn._core import RunsFailedError
from interp_unlearn.cli import app

CONFIG = """
[target]
entities = ["Japan"]

[[recipe]]
name = "wild"
objective = "ga"

[[recipe]]
name = "tame"
objective = "npo"
"""


def test_what_is_done_is_reported_and_the_failure_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "two.toml").write_text(CONFIG)
    reported: list[list[Path]] = []

    class Done:
        path = tmp_path / "out" / "tame"

    def run_many(configs, folder, progress):
        assert [c.name for c in configs] == ["wild", "tame"]
        raise RunsFailedError("1 of 2 recipes failed: wild: the loss is nan", [Done()])

    def write_report(folders, page):
        reported.append(list(folders))
        return page

    monkeypatch.setattr("interp_unlearn.runs.run_many", run_many)
    monkeypatch.setattr("interp_unlearn.report.write_report", write_report)
    monkeypatch.setattr("interp_unlearn.cli._run.print_table", lambda _: None)
    monkeypatch.setattr("interp_unlearn.cli._run.print_verdicts", lambda _: None)
    result = CliRunner().invoke(app, ["run", str(tmp_path / "two.toml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert reported == [[Done.path]]
    assert "report.html" in result.output
    assert "wild: the loss is nan" in result.output + result.stderr
