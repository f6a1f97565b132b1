"""The scripts that make the calibration: the plan, the table from run folders, and the page with its numbers."""

import dataclasses
import gzip
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from interp_unlearn._core import DataError, write_json
from interp_unlearn.verdict import Calibration, Dataset, evaluate, fit, load_calibration

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = REPO / "benchmarks" / "verdict"
NAMES = ("plan", "edits", "make_runs", "collect", "fit", "tables")


@pytest.fixture
def script(monkeypatch):
    """Import one of the scripts, whose neighbours are found beside it."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda name: __import__(name)
    for name in NAMES:
        sys.modules.pop(name, None)


def has_levels() -> bool:
    from interp_unlearn.runs import EvidenceSpec, ModelSpec

    fields = {f.name for spec in (EvidenceSpec, ModelSpec) for f in dataclasses.fields(spec)}
    return {"level", "edited"} <= fields


@pytest.mark.skipif(not has_levels(), reason="needs runs with evidence levels and edited checkpoints")
def test_the_plan_covers_what_it_must(script, tmp_path):
    from interp_unlearn.unlearn import OBJECTIVES

    plan = script("plan")
    runs = plan.plan()
    assert len(runs) >= 300
    assert len({r.path for r in runs}) == len(runs)
    assert {r.size for r in runs} == {1, 5, 20} and {r.world for r in runs} == {0, 1}
    assert {n for n in OBJECTIVES if "language" in OBJECTIVES[n].modalities} <= {r.method for r in runs}
    assert set(plan.MADE_AS) == {r.trick for r in runs} - {"plain"}
    people: Counter[tuple[int, str]] = Counter()
    for world, entities in {(r.world, tuple(r.config["target"]["entities"])) for r in runs}:
        people.update((world, e) for e in entities)
    assert max(people.values()) == 1  # no person is in two targets of a world
    for r in runs:
        assert r.run(tmp_path / "edit.safetensors" if r.edit else None).config.name == r.name
    strengths = {r.name for r in runs if r.method == "npo" and r.trick == "plain"}
    assert len(strengths) >= 2
    first = script("make_runs").spread(runs)[:9]
    assert len({r.trick for r in first}) == 9


def write_run(folder, findings, **config):
    write_json(folder / "config.json", {"kind": "run", **config})
    write_json(folder / "status.json", {"state": "done"})
    for i, item in enumerate(findings.evidence.values()):
        item.save(folder / "evidence" / f"{i}.json")
    for name, table in findings.tables.items():
        write_json(folder / "tables" / f"{name}.json", table.to_json())


def test_run_folders_become_a_table(script, tmp_path, make_findings, monkeypatch, capsys):
    facts = {"method": "npo", "trick": "late", "made_as": "hidden", "target": "t0", "size": 1, "world": 0}
    root = tmp_path / "runs"
    write_run(root / "t0" / "planned", make_findings("hidden"))
    config = {"name": "idk@late", "recipe": {"objective": "idk"}, "seed": 1, "world": {"name": "countries"}}
    write_run(root / "t0" / "other", make_findings("kept"), target={"entities": ["Japan"], "relations": []}, **config)
    write_run(root / "t0" / "unfinished", make_findings("kept"), target={"entities": ["Japan"]}, **config)
    write_json(root / "t0" / "unfinished" / "status.json", {"state": "running"})
    write_json(root / "plan.json", {"t0/planned": facts})
    monkeypatch.setattr(sys, "argv", ["collect.py", str(root), "--out", str(tmp_path / "data")])
    assert script("collect").main() == 0
    data = Dataset.load(tmp_path / "data.csv")
    assert data.runs == ("t0/other", "t0/planned") and data.labels == ("kept", "hidden")
    assert data.groups["trick"] == ("late", "late") and data.groups["method"] == ("idk", "npo")
    assert data.groups["target"] == ("Japan seed 1", "t0")
    assert (tmp_path / "data-measurements.csv.gz").stat().st_size > 0
    said = capsys.readouterr().out
    assert "t0/unfinished: not finished" in said and "made as hidden" in said
    other = tmp_path / "other machine"
    write_run(other / "t1" / "planned", make_findings("forgotten"))
    write_json(other / "plan.json", {"t1/planned": facts})
    monkeypatch.setattr(sys, "argv", ["collect.py", str(other), "--out", str(tmp_path / "data")])
    assert script("collect").main() == 0
    assert Dataset.load(tmp_path / "data.csv").runs == ("t0/other", "t0/planned", "t1/planned")
    kept = gzip.decompress((tmp_path / "data-measurements.csv.gz").read_bytes()).decode()
    assert {line.split(",")[0] for line in kept.splitlines()[1:]} == {"t0/other", "t0/planned", "t1/planned"}


def test_the_verdict_reads_what_its_level_measures(script):
    names = {level: {f.name for f in script("fit").offered(level)} for level in ("quick", "standard", "full")}
    assert names["quick"] < names["standard"] < names["full"]
    less = {f.name for f in script("fit").offered("standard", "weights.")}
    assert names["standard"] - less == {n for n in names["standard"] if n.startswith("weights.")} != set()
    assert "fisher.trace" in names["full"] - names["standard"] and "uds" in names["standard"] - names["quick"]


def test_numbers_go_between_the_markers_of_the_page(script, data, calibration: Calibration):
    tables = script("tables")
    found = evaluate(data, calibration=calibration, draws=20)
    text = tables.markdown(data, calibration, {"method": found}, found)
    assert calibration.version in text and "| **verdict** |" in text and "Transfer" in text
    page = (REPO / "docs" / "verdict.md").read_text(encoding="utf-8")
    filled = tables.fill(page, text)
    assert text.strip() in filled and tables.fill(filled, text) == filled
    before, after = page.split(tables.START)[0], page.split(tables.END)[1]
    assert filled.startswith(before) and filled.endswith(after)
    with pytest.raises(DataError, match="lacks the markers"):
        tables.fill("nothing", text)


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_calibrations_are_those_of_the_shipped_data(script, quick):
    """Whoever fits again gets what is shipped; and what the docs say of it is what it says of itself."""
    shipped = load_calibration(quick=quick)
    level = shipped.provenance["level"]
    assert level == ("quick" if quick else "standard")
    data = Dataset.load(SCRIPTS / "data" / "tinyworld.csv")
    again = fit(data, features=script("fit").offered(level))
    assert again.provenance["data"] == shipped.provenance["data"]
    assert again.scales == shipped.scales and again.classes == shipped.classes
    np.testing.assert_allclose(again.coefficients, shipped.coefficients, atol=1e-3)
    np.testing.assert_allclose(again.temperature, shipped.temperature, rtol=1e-2)
    tested = shipped.metrics["left out method and target"]
    page = (REPO / "docs" / "verdict.md").read_text(encoding="utf-8")
    assert f"{tested['verdict']['value']:.3f}" in page and f"{tested['ece']:.3f}" in page
    assert f"`{shipped.version}`" in page
