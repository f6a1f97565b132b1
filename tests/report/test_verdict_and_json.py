"""The verdict first, side effects in numbers, the JSON with its schema, the gate, and pictures of unknown evidence."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from interp_unlearn._core import Axis, ConfigError, DataError, Evidence, FileFormatError, Labelled, write_json
from interp_unlearn.cli import app
from interp_unlearn.report import (
    gate,
    plots,
    read_run,
    report_json,
    schema,
    side_effects,
    verdict_of,
    write_json_report,
    write_report,
)
from interp_unlearn.report._details import by_model, figures

ROOT = Path(__file__).resolve().parents[2]
VERDICT = {
    "kind": "verdict",
    "label": "hidden",
    "probabilities": {"forgotten": 0.1, "hidden": 0.83, "over-suppressed": 0.04, "broken": 0.01, "kept": 0.02},
    "sentence": "Japan's capital is hidden: upper layers no longer say it, <b>lower</b> ones still hold it.",
    "decided_by": [
        {"evidence": "stitch.recall/b3", "value": 0.91},
        {"evidence": "lens.margin", "value": 3.0, "push": 1.0, "text": "the lens reads it: speaks for hidden"},
        "a reason in words",
    ],
    "side_effects": [{"sentence": "Neighbours answer 6 points less."}, {"name": "retained", "before": 1, "after": 0.9}],
    "attacks": "the best of 3 attacks brings back 80%",
    "not_tested": ["other languages"],
    "calibration": "TinyWorld, 300 runs.",
}
PARTS = {
    "kind": "parts",
    "parts": {
        "stitch": {
            "what": "stitches upper layers of the original on",
            "kind": "attack",
            "level": "standard",
            "evidence": ["stitch.recall/b3"],
            "tables": ["stitch.curve"],
        },
        "prompts": {"what": "asks in other languages", "kind": "attack", "level": "full"},
    },
}


def table(name: str, values: np.ndarray, **axes: tuple[str, ...]) -> Labelled:
    return Labelled(name, values, tuple(Axis(k, v) for k, v in axes.items()), n=5, mask_policy="-")


@pytest.fixture(scope="module")
def judged(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a verdict, and evidence of a registered part that no section knows."""
    folder = make_run(tmp_path_factory.mktemp("judged") / "npo", "npo")
    write_json(folder / "verdict.json", VERDICT)
    write_json(folder / "parts.json", PARTS)
    layers = tuple(f"blocks.{i}.hook_resid_post" for i in range(4))
    curve = table(
        "recall",
        np.random.default_rng(0).random((2, 4, 3)),
        phase=("before", "after"),
        site=layers,
        statistic=("mean", "low", "high"),
    )
    Evidence(
        name="stitch.recall/b3",
        question="Do the original's upper layers still read the answer?",
        value=0.9,
        interval=(0.7, 1.0),
        control=0.1,
        control_name="never-known facts",
        direction="near control",
        n=5,
        mask_policy="-",
        does_not_show="that a user can do this",
        details={"by layer": curve},
    ).save(folder / "evidence" / "stitch.recall-b3.json")
    saved = table("recall", np.arange(6.0).reshape(2, 3), who=("target", "control"), steps=("0", "4", "8"))
    write_json(folder / "tables" / "stitch.curve.json", {**saved.to_json(), "name": "stitch.curve"})
    return folder


# -- verdict and side effects ------------------------------------------------------------------------------------------


def test_the_report_says_the_verdict_first(judged: Path, tmp_path: Path):
    page = write_report([judged], tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("Japan&#39;s capital is hidden") < page.index("What was forgotten</h3>")
    assert "&lt;b&gt;lower&lt;/b&gt;" in page, "a sentence is text, not markup"
    assert "probability of “hidden”: 0.83" in page
    assert "Neighbours answer 6 points less." in page
    assert "evidence: stitch.recall/b3; value: 0.91" in page
    assert "the lens reads it: speaks for hidden (lens.margin)" in page
    assert "the best of 3 attacks brings back 80%" in page
    assert "before: 1" not in page, "side effects in numbers are told from the tables"
    assert "Not tried: asks in other languages" in page


def test_without_a_verdict_the_report_says_how_to_get_one(runs: list[Path], tmp_path: Path):
    page = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("no verdict was saved") == len(runs)


def test_evidence_is_grouped_and_unknown_ids_get_pictures(judged: Path, tmp_path: Path):
    page = write_report([judged], tmp_path / "report.html").read_text(encoding="utf-8")
    attacks = page.index("What brings it back")
    assert page.index("What it holds inside") < attacks
    assert page.index("Do the original&#39;s upper layers") > attacks
    assert page.index("What does relearn.heldout ask?") > attacks
    assert "Stitches upper layers of the original on: curves and tables (2)" in page
    assert "Behind the numbers (1)" in page
    assert page.count("stitch.curve") >= 1
    appendix = page[page.index("Appendix: everything else") :]
    assert "stitch" not in appendix, "what has a picture above is not shown again"


def test_side_effects_are_shares_lost(judged: Path):
    effects = {e.name: e for e in side_effects(read_run(judged))}
    assert set(effects) == {"neighbours", "same_answer", "retained", "text_loss"}
    assert effects["neighbours"].size == pytest.approx(0.98 - 0.98 * 0.94)
    assert effects["neighbours"].n == 40
    assert effects["text_loss"].size == pytest.approx(0.4 * 0.06)
    assert effects["text_loss"].interval == pytest.approx((0.3 * 0.06, 0.5 * 0.06))
    sizes = [e.size for e in side_effects(read_run(judged))]
    assert sizes == sorted(sizes, reverse=True)


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_the_json_report_keeps_to_its_schema(judged: Path, runs: list[Path], tmp_path: Path):
    jsonschema.Draft202012Validator.check_schema(schema())
    check = jsonschema.Draft202012Validator(schema())
    for folders in ([judged], runs, [*runs, tmp_path / "none"]):
        report = report_json(folders)
        check.validate(json.loads(json.dumps(report, allow_nan=False)))
    assert len(report["refused"]) == 1
    (comparison,) = report_json([judged])["comparisons"]
    (run,) = comparison["runs"]
    assert run["verdict"]["label"] == "hidden"
    assert run["verdict"]["probability"] == 0.83
    assert run["behaviour"]["neighbours"]["exact"]["gold"] == pytest.approx(0.98)
    found = {e["name"]: e for e in run["evidence"]}
    assert found["stitch.recall/b3"]["group"] == "attack"
    assert found["alignment.t/residual"]["group"] == "probe"
    assert found["two_sample.energy/residual"]["value"] is None
    assert "at least 8" in found["two_sample.energy/residual"]["reason"]
    assert "parity" not in found
    broken = report_json([judged])
    del broken["comparisons"][0]["runs"][0]["verdict"]
    assert not check.is_valid(broken)


def test_the_published_schema_is_the_shipped_one():
    published = (ROOT / "docs" / "schema" / "report.schema.json").read_text(encoding="utf-8")
    assert json.loads(published) == schema()


def test_json_is_printed_or_written(judged: Path, tmp_path: Path):
    printed = CliRunner().invoke(app, ["report", str(judged), "--json"])
    assert printed.exit_code == 0
    assert json.loads(printed.stdout)["kind"] == "report"
    written = CliRunner().invoke(app, ["report", str(judged), "--json", "--out", str(tmp_path / "r.json")])
    assert written.exit_code == 0
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(printed.stdout)
    assert write_json_report([judged], tmp_path).name == "report.json"


# -- gate --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demands", "reasons"),
    [
        ({"require": ["hidden"]}, []),
        ({"require": ["forgotten", "hidden"], "min_probability": 0.8, "max_side_effects": 0.06}, []),
        ({"require": ["forgotten"]}, ["the verdict is hidden (probability 0.83), not forgotten"]),
        ({"min_probability": 0.9}, ["less certain than 0.9"]),
        ({"max_side_effects": 0.05}, ["from 0.98 to 0.9212, a loss of 0.0588, over 0.05"] * 3),
    ],
)
def test_the_gate_says_what_is_not_met(judged: Path, demands: dict, reasons: list[str]):
    result = gate(read_run(judged), **{"require": [], **demands})
    assert result.passed == (not reasons)
    assert len(result.reasons) == len(reasons)
    assert all(part in said for part, said in zip(reasons, result.reasons, strict=True))


def test_the_gate_refuses_what_it_cannot_tell(judged: Path, runs: list[Path], tmp_path: Path):
    with pytest.raises(ConfigError, match="demands nothing"):
        gate(read_run(judged))
    with pytest.raises(ConfigError, match="unknown verdict 'forgot'; nearest: forgotten"):
        gate(read_run(judged), ["forgot"])
    with pytest.raises(ConfigError, match="not a share"):
        gate(read_run(judged), min_probability=90.0)
    with pytest.raises(FileFormatError, match="no verdict was saved"):
        gate(read_run(runs[0]), ["forgotten"])
    folder = shutil.copytree(judged, tmp_path / "unfinished")
    write_json(folder / "status.json", {"state": "running"})
    with pytest.raises(FileFormatError, match="is not finished"):
        gate(read_run(folder), ["forgotten"])


def test_forgotten_does_not_pass_on_cheap_evidence_alone(judged: Path, tmp_path: Path):
    folder = shutil.copytree(judged, tmp_path / "cheap")
    write_json(folder / "verdict.json", {**VERDICT, "label": "forgotten"})
    with pytest.raises(DataError, match="0 attacks with a control were run and 3 are needed"):
        gate(read_run(folder), ["forgotten"])
    assert gate(read_run(folder), ["forgotten"], min_attacks=0).passed
    attack = read_run(folder).evidence["stitch.recall/b3"]
    for name, control in (("readout", 0.1), ("prompts", 0.1), ("quantise", 0.1), ("no control", None)):
        replace(attack, name=f"recovery/{name}", control=control).save(folder / "evidence" / f"{name}.json")
    assert gate(read_run(folder), ["forgotten"]).passed
    with pytest.raises(DataError, match="3 attacks with a control were run and 4 are needed"):
        gate(read_run(folder), ["forgotten"], min_attacks=4)


def test_forgotten_does_not_pass_where_two_hop_questions_are_still_answered(judged: Path, tmp_path: Path):
    folder = shutil.copytree(judged, tmp_path / "superficial")
    write_json(folder / "verdict.json", {**VERDICT, "label": "forgotten"})
    for file in ("behaviour.before", "behaviour.after", "behaviour.gold", "behaviour_change"):
        path = folder / "tables" / f"{file}.json"
        if path.exists():
            old = Labelled.from_json(json.loads(path.read_text()))
            sets, *others = old.axes
            assert "multi_hop" not in sets.labels
            row = np.full((1, *old.values.shape[1:]), 0.0 if file.endswith("gold") else 0.9)
            axes = (Axis("set", (*sets.labels, "multi_hop")), *others)
            write_json(path, replace(old, values=np.concatenate([old.values, row]), axes=axes).to_json())
    result = gate(read_run(folder), ["forgotten"], min_attacks=0)
    assert not result.passed
    assert "what follows from it is: two-hop questions (90%" in result.reasons[0]
    assert result.verdict.label == "forgotten"
    assert gate(read_run(folder), ["forgotten", "hidden"], min_attacks=0).passed  # who lets hidden pass asks for less


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--require", "hidden"], 0, "npo passes."),
        (["--require", "forgotten", "--max-side-effects", "0.05"], 1, "npo does not pass: the verdict is hidden"),
        (["--require", "forgot"], 2, ""),
        ([], 2, ""),
    ],
)
def test_exit_codes_of_the_gate(judged: Path, arguments: list[str], code: int, says: str):
    result = CliRunner().invoke(app, ["gate", str(judged), *arguments])
    assert result.exit_code == code
    assert says in result.stdout


def test_a_verdict_with_odd_fields_is_still_read(judged: Path, tmp_path: Path):
    folder = shutil.copytree(judged, tmp_path / "odd")
    write_json(
        folder / "verdict.json", {"label": "kept", "probabilities": {"kept": math.nan}, "decided_by": "one reason"}
    )
    verdict = verdict_of(read_run(folder))
    assert (verdict.label, verdict.sentence, verdict.decided_by) == ("kept", "Kept.", ("one reason",))
    assert math.isnan(verdict.probability)
    jsonschema.validate(report_json([folder]), schema())


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_series_is_lines_over_numbers_and_layers_else_dots():
    steps = table("recall", np.array([0.1, 0.5]), step=("0", "8"))
    (trace,) = plots.series({"npo": steps}, "t").data
    assert (list(trace.x), trace.mode) == ([0.0, 8.0], "lines+markers")
    kinds = table("recall", np.array([0.1, 0.5]), attack=("prefix", "few-shot"))
    fig = plots.series({"npo": kinds, "gold": kinds}, "t")
    assert [t.mode for t in fig.data] == ["markers", "markers"]
    assert list(fig.layout.yaxis.ticktext) == ["prefix", "few-shot"]
    with pytest.raises(ValueError, match="one axis"):
        plots.series({"npo": table("x", np.zeros((1, 1)), a=("a",), b=("b",))}, "t")


def test_axes_decide_the_picture():
    axes = {"phase": ("before", "after", "gold"), "layer": ("0", "1", "2"), "statistic": ("mean", "low", "high")}
    curve = table("recall", np.random.default_rng(0).random((3, 3, 3)), **axes)
    tables = by_model({"npo": curve}, ["npo"])
    assert list(tables) == ["original", "npo", "gold"]
    (fig,) = figures(tables, "t", ["npo"])
    assert {t.name for t in fig.data} >= {"original", "npo", "gold"}
    short = table("p", np.zeros((2, 5)), group=("target", "unknown"), step=tuple("01234"))
    assert len(figures({"npo": short}, "t", ["npo"])) == 2, "one picture for each label of the short axis"
    wide = table("p", np.zeros((9, 8)), layer=tuple(map(str, range(9))), position=tuple("abcdefgh"))
    (heat,) = figures({"npo": wide}, "t", ["npo"])
    assert heat.data[0].type == "heatmap"
    assert figures({"npo": table("p", np.array(1.0))}, "t", ["npo"]) == ()
    assert figures({"npo": table("p", np.full(2, np.nan), a=("x", "y"))}, "t", ["npo"]) == ()
