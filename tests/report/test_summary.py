"""Many runs in one table: means over targets, intervals by hand, differences from the original and gold, and files."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from interp_unlearn._core import ConfigError, FileFormatError, read_json, write_json
from interp_unlearn.cli import app
from interp_unlearn.report import (
    Summary,
    estimate,
    find_runs,
    headline,
    markdown,
    read_runs,
    summarise,
    write_csv,
    write_runs_csv,
    write_summary,
)
from interp_unlearn.report._compare import compare
from interp_unlearn.report._headline import nearest
from interp_unlearn.report._summary import Measure

TRAIN = "Target, trained on: exact"
CELLS = {  # (method, target, seed): exact match on train templates after forgetting; before 0.98, gold 0.05
    ("ga", "Japan", 0): 0.10,
    ("ga", "Japan", 1): 0.20,
    ("ga", "Egypt", 0): 0.30,
    ("ga", "Egypt", 1): 0.50,
    ("npo", "Japan", 0): 0.05,
    ("npo", "Japan", 1): 0.05,
    ("npo", "Egypt", 0): 0.10,
    ("npo", "Egypt", 1): 0.20,
}


def edit(path: Path, **changes: object) -> None:
    write_json(path, {**read_json(path), **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Path:
    """A sweep: two methods, two targets, two seeds, laid out as `interp-unlearn sweep` does."""
    root = tmp_path_factory.mktemp("sweep")
    for (method, target, seed), exact in CELLS.items():
        run = make_run(root / f"{target}-seed{seed}" / method, method, target=target)
        config = read_json(run / "config.json")
        edit(run / "config.json", seed=seed, target={**config["target"], "entities": [target]})
        for phase, lost in (("before", 0.0), ("after", 0.5)):  # choice: the targets differ, what they lose does not
            file = run / "tables" / f"behaviour.{phase}.json"
            table = read_json(file)
            table["values"][0][2] = (1.0 if target == "Japan" else 0.7) - lost
            table["values"][0][1] = exact if phase == "after" else 0.98
            write_json(file, table)
        (root / f"{target}-seed{seed}" / ".baseline-0" / "tables").mkdir(parents=True, exist_ok=True)
    return root


def load(folder: Path, **options: object) -> Summary:
    found = summarise(read_runs(find_runs([folder]))[0], **options)
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return load(folder)


def measure(summary: Summary, name: str = TRAIN) -> Measure:
    return next(m for m in summary.measures if m.name == name)


# -- estimates ---------------------------------------------------------------------------------------------------------


def test_targets_are_the_unit_whatever_the_number_of_their_seeds():
    found = estimate({("a", "0"): 0.0, ("a", "1"): 0.2, ("a", "2"): 0.4, ("b", "0"): 0.6})
    assert found.mean == pytest.approx((0.2 + 0.6) / 2)
    assert (found.n, found.units, found.how) == (4, 2, "t over 2 targets")
    half = stats.t.ppf(0.975, 1) * found.sd / math.sqrt(2)
    assert found.sd == pytest.approx(np.std([0.2, 0.6], ddof=1))
    assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half))


def test_the_t_interval_is_the_textbook_one():
    values = {("a", str(i)): float(v) for i, v in enumerate((1, 2, 3, 4))}
    found = estimate(values)
    low, high = stats.ttest_1samp([1, 2, 3, 4], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.how == "t over 4 seeds"


def test_a_single_number_has_no_interval_and_equal_numbers_have_none_to_show():
    one = estimate({("a", "0"): 0.3})
    assert one.mean == 0.3
    assert math.isnan(one.low)
    assert one.how == ""
    same = estimate({("a", "0"): 0.3, ("b", "0"): 0.3})
    assert (same.low, same.high, same.sd) == (0.3, 0.3, 0.0)
    assert estimate({}).missing
    assert estimate({("a", "0"): math.nan}).missing


def test_the_bootstrap_resamples_targets_and_repeats_itself():
    values = {(f"t{i}", "0"): float(i % 5) for i in range(20)}
    found = estimate(values, "bootstrap")
    assert found == estimate(values, "bootstrap")
    assert found.how == "bootstrap over 20 targets"
    assert 0 < found.low < found.mean < found.high < 4


# -- the summary -------------------------------------------------------------------------------------------------------


def test_means_differences_and_the_mark_are_those_worked_out_by_hand(summary: Summary):
    assert summary.rows == ("original", "ga", "npo", "gold")
    assert summary.targets == ("Egypt (capital)", "Japan (capital)")
    assert summary.seeds == ("0", "1")
    exact = measure(summary)
    ga, npo = summary.at("ga", exact), summary.at("npo", exact)
    assert ga.value.mean == pytest.approx((0.15 + 0.40) / 2)
    assert ga.value.n == 4
    original, gold = summary.at("original", exact).value.mean, summary.at("gold", exact).value.mean
    assert ga.change.mean == pytest.approx(ga.value.mean - original)
    assert ga.gap.mean == pytest.approx(ga.value.mean - gold)
    assert (npo.nearest, ga.nearest) == (True, False)
    assert summary.notices == ()


def test_every_number_is_a_cell_of_the_headline_table(folder: Path, summary: Summary):
    views = read_runs(find_runs([folder / "Japan-seed0"]))[0]
    head = headline(compare(views)[0], wide=True)
    row = next(r for r in head.rows if r.name == "npo")
    cells = {
        f"{c.group}: {c.label.split(' / ')[0]}": cell.value for c, cell in zip(head.columns, row.cells, strict=True)
    }
    mine = {
        n.measure.name: n.value
        for n in summary.numbers
        if (n.target, n.seed, n.method) == ("Japan (capital)", "0", "npo")
    }
    assert mine
    controls = {"Relearned: control", "Two-sample: floor"}
    controls |= {"Alignment: unknown", "Alignment in the SAE: unknown"}
    assert set(mine) - set(cells) == controls
    assert all(cells[name] == value for name, value in mine.items() if name in cells)
    narrow = {f"{c.group}: {c.label}" for c in headline(compare(views)[0]).columns}
    assert "Alignment: t / unknown" in narrow
    assert not any("SAE" in name or "MB" in name for name in narrow), "those are for tables of many runs"


def test_differences_are_taken_within_each_target_and_seed(summary: Summary):
    entry = summary.at("npo", measure(summary, "Target, trained on: choice"))
    assert entry.value.mean == pytest.approx(0.35)
    assert entry.value.high - entry.value.low > 1, "the targets differ"
    assert (entry.change.low, entry.change.mean, entry.change.high) == pytest.approx((-0.5, -0.5, -0.5))


def test_controls_are_measures_of_their_own(summary: Summary):
    names = [m.name for m in summary.measures]
    assert names.index("Relearned: control") == names.index("Relearned: level") + 1
    assert summary.at("ga", measure(summary, "Relearned: control")).value.mean == pytest.approx(0.49)
    assert summary.at("ga", measure(summary, "Two-sample: floor")).value.mean == pytest.approx(0.62)


def test_unfinished_runs_are_left_out_and_named(make_run, tmp_path: Path):
    for method in ("ga", "npo"):
        make_run(tmp_path / method, method)
    edit(tmp_path / "npo" / "status.json", state="stopped", message="its worker was killed")
    summary = load(tmp_path)
    assert summary.methods == ("ga",)
    assert any("npo is not finished (state: stopped; its worker was killed)" in n for n in summary.notices)
    edit(tmp_path / "ga" / "status.json", state="running", message="")
    summary = load(tmp_path)
    assert summary.measures == ()
    assert "No finished run" in write_summary([summary], tmp_path / "x.html").read_text(encoding="utf-8")


def test_what_makes_means_hard_to_compare_is_said(make_run, tmp_path: Path):
    for seed, methods in ((0, ("ga", "npo")), (1, ("npo",))):
        for method in methods:
            run = make_run(tmp_path / f"s{seed}" / method, method)
            edit(run / "config.json", seed=seed, version=f"0.{seed}.0")
    run = tmp_path / "s1" / "npo" / "config.json"
    edit(run, recipe={**read_json(run)["recipe"], "steps": 61})
    said = " | ".join(load(tmp_path, interval="bootstrap").notices)
    assert "ga has no finished run for Japan (capital) seed 1" in said
    assert "npo stands for 2 different recipes under one name" in said
    assert "different versions of interp-unlearn are averaged: 0.0.0, 0.1.0" in said
    assert "bootstrap intervals over fewer than 6 targets" in said


def test_models_and_worlds_are_never_averaged(make_run, tmp_path: Path):
    make_run(tmp_path / "a", "npo")
    run = make_run(tmp_path / "b", "npo")
    edit(run / "config.json", model={"name": "other"})
    assert [s.model for s in summarise(read_runs(find_runs([tmp_path]))[0])] == ["smollm2-135m", "other"]
    edit(run / "config.json", model={"name": "smollm2-135m"})  # as an older version would have written it
    assert len(summarise(read_runs(find_runs([tmp_path]))[0])) == 1


# -- finding and reading -----------------------------------------------------------------------------------------------


def test_runs_are_found_at_any_depth_and_once(folder: Path):
    assert len(find_runs([folder])) == 8
    assert len(find_runs([folder, folder / "Japan-seed0", folder / "Japan-seed0" / "npo"])) == 8
    assert find_runs([folder / "Japan-seed0" / "npo"]) == (folder / "Japan-seed0" / "npo",)


def test_paths_without_runs_are_refused(tmp_path: Path):
    with pytest.raises(FileFormatError, match="holds no run folder"):
        find_runs([tmp_path])
    with pytest.raises(FileFormatError, match="holds no run folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="at least one run folder"):
        find_runs([])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(FileFormatError, match="holds no run folder"):
        find_runs([tmp_path])


def test_a_half_written_run_is_left_out_with_its_reason(make_run, tmp_path: Path):
    make_run(tmp_path / "npo", "npo")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.json").write_text('{"kind": "run", "na')
    runs, refused = read_runs(find_runs([tmp_path]))
    assert [run.name for run in runs] == ["npo"]
    assert len(refused) == 1
    assert "not valid JSON" in refused[0]
    with pytest.raises(FileFormatError, match="not valid JSON"):
        read_runs(find_runs([tmp_path / "cut"]))


def test_results_of_another_version_become_gaps_with_a_reason(make_run, tmp_path: Path):
    run = make_run(tmp_path / "npo", "npo")
    (run / "tables" / "behaviour.after.json").write_text(json.dumps({"kind": "labelled", "values": [1]}))
    summary = load(tmp_path)
    assert summary.at("npo", measure(summary)).value.missing
    assert any("behaviour.after.json is not a saved result of this version" in n for n in summary.notices)


# -- files -------------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_csv_holds_the_numbers(summary: Summary, tmp_path: Path):
    lines = rows_of(write_csv([summary], tmp_path / "a.csv"))
    line = next(x for x in lines if (x["method"], x["measure"]) == ("ga", TRAIN))
    assert float(line["mean"]) == pytest.approx(0.275)
    assert float(line["gap_to_gold"]) == pytest.approx(summary.at("ga", measure(summary)).gap.mean)
    assert line["interval"] == "t over 2 targets"
    assert line["runs"] == "4"
    original = next(x for x in lines if (x["method"], x["measure"]) == ("original", TRAIN))
    assert original["change_from_original"] == ""
    runs = rows_of(write_runs_csv([summary], tmp_path / "b.csv"))
    exact = [x for x in runs if x["measure"] == TRAIN]
    assert len(exact) == 8
    assert {float(x["value"]) for x in exact if x["method"] == "ga"} == {0.1, 0.2, 0.3, 0.5}
    assert {x["original"] for x in exact} == {"0.98"}


def test_markdown_has_a_row_for_each_model(summary: Summary):
    lines = markdown(summary).splitlines()
    assert len(lines) == 2 + 4
    assert lines[3].startswith("| ga | 4 | 0.28 [")
    assert len({line.count("|") for line in lines}) == 1


def test_the_page_is_self_contained_and_escaped(folder: Path, make_run, tmp_path: Path):
    evil = "<img src=x onerror=alert(1)>"
    run = make_run(tmp_path / "evil", "npo")
    edit(run / "config.json", name=evil)
    runs = read_runs(find_runs([folder, tmp_path]))[0]
    page = write_summary(summarise(runs), tmp_path / "out.html", ["no <b>run</b>"]).read_text(encoding="utf-8")
    assert evil not in page
    assert "no &lt;b&gt;run" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "Difference from gold" in page
    assert 'class="best"' in page


@pytest.mark.parametrize("show", ["value", "change", "gap"])
def test_the_command_prints_the_table_and_writes_the_files(folder: Path, tmp_path: Path, show: str):
    files = {name: tmp_path / f"x.{name}" for name in ("csv", "csv-runs", "html")}
    options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    result = CliRunner().invoke(app, ["compare", str(folder), "--show", show, *options], env={"COLUMNS": "220"})
    assert result.exit_code == 0, result.output
    assert all(path.stat().st_size > 500 for path in files.values())
    for word in ("npo", "neighbours", "t over 2 targets", "nearest to gold"):
        assert word in result.output
    header = next(line for line in result.output.splitlines() if "npo" in line and "ga" in line)
    assert ("original" in header, "gold" in header) == (show != "change", show != "gap")


def test_the_command_prints_markdown_and_refuses_what_it_does_not_know(folder: Path):
    result = CliRunner().invoke(app, ["compare", str(folder), "--markdown"])
    assert "| ga | 4 | 0.28 [" in result.output
    for options in (["--show", "values"], ["--interval", "z"]):
        result = CliRunner().invoke(app, ["compare", str(folder), *options])
        assert result.exit_code == 2
        assert "is not one of" in result.output


def test_measures_can_be_chosen_by_a_part_of_their_names(summary: Summary):
    chosen = summary.only(["NEIGHBOURS", "held out"])
    assert chosen.measures[0].name == "Exact on other sets: neighbours"
    assert [m.label for m in chosen.measures[1:]] == ["exact", "choice", "prob."]
    with pytest.raises(ConfigError, match=r"no measure of .* has 'colour' in its name; measures: Target"):
        summary.only(["colour"])


def test_the_command_prints_the_chosen_measures_only(folder: Path):
    done = CliRunner().invoke(app, ["compare", str(folder), "--markdown", "--measure", "neighbours"])
    assert done.exit_code == 0, done.output
    head = next(line for line in done.stdout.splitlines() if line.startswith("| model"))
    assert head == "| model | runs | Exact on other sets: neighbours |"


# -- runs that look alike ----------------------------------------------------------------------------------------------


def forgets(run: Path, exact: float) -> Path:
    file = run / "tables" / "behaviour.after.json"
    table = read_json(file)
    table["values"][0][1] = exact
    write_json(file, table)
    return run


def test_a_method_run_twice_on_one_target_is_named_apart(make_run, tmp_path: Path):
    for place, exact in (("x", 0.1), ("y", 0.9)):
        run = forgets(make_run(tmp_path / place / "npo", "npo"), exact)
        edit(run / "config.json", world={"name": "countries", "data_dir": place, "n_known": 40, "n_unknown": 40})
    found = load(tmp_path)
    assert found.methods == ("npo", "npo (y/npo)")
    assert [found.at(m, measure(found)).value.mean for m in found.methods] == [0.1, 0.9]
    assert any(
        f"npo was run more than once on Japan (capital), seed 0; {tmp_path / 'y' / 'npo'}" in n for n in found.notices
    )
    values = {
        x["folder"]: x["value"] for x in rows_of(write_runs_csv([found], tmp_path / "r.csv")) if x["measure"] == TRAIN
    }
    assert values == {str(tmp_path / "x" / "npo"): "0.1", str(tmp_path / "y" / "npo"): "0.9"}


def test_a_target_written_in_two_ways_overwrites_nothing(make_run, tmp_path: Path):
    for name, exact in (("country:JP", 0.1), ("Japan", 0.9)):
        run = forgets(make_run(tmp_path / name.partition(":")[0] / "npo", "npo"), exact)
        edit(run / "config.json", target={"entities": [name], "relations": ["capital"]})
    found = load(tmp_path)
    assert found.at("npo", measure(found)).value.mean == pytest.approx(0.5)
    assert found.at("npo", measure(found)).value.n == 2
    assert any("seed 0 comes more than once" in notice for notice in found.notices)
    exact = [n for n in found.numbers if n.measure.name == TRAIN]
    assert sorted((n.seed, n.value) for n in exact) == [("0", 0.9), ("0 (2)", 0.1)]


def test_a_field_that_an_older_version_did_not_write_parts_no_runs(make_run, tmp_path: Path):
    for name in ("a", "b"):
        make_run(tmp_path / name, name)
    old, new = (tmp_path / name / "config.json" for name in ("a", "b"))
    edit(new, world={**read_json(old)["world"], "neighbours": False, "options": {}})
    edit(new, target={**read_json(old)["target"], "relations": ["capital"]})
    assert len(compare(read_runs(find_runs([tmp_path]))[0])) == 1


def test_chosen_measures_hold_for_every_run_too(summary: Summary, tmp_path: Path):
    lines = rows_of(write_runs_csv([summary.only(["neighbours"])], tmp_path / "r.csv"))
    assert {x["measure"] for x in lines} == {"Exact on other sets: neighbours"}
    page = write_summary([summary.only(["neighbours"])], tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<td>Exact on other sets: neighbours</td>" in page
    assert f"<td>{TRAIN}</td>" not in page


def test_a_group_without_a_finished_run_does_not_stop_the_others(make_run, tmp_path: Path):
    make_run(tmp_path / "a", "npo")
    run = make_run(tmp_path / "b", "npo")
    edit(run / "config.json", model={"name": "other"})
    edit(run / "status.json", state="failed")
    done = CliRunner().invoke(app, ["compare", str(tmp_path), "--measure", "neighbours", "--markdown"])
    assert done.exit_code == 0, done.output
    assert "| npo | 1 |" in done.stdout
    assert "No finished run has a number to show." in done.stdout


def test_csv_counts_targets_and_seeds_of_each_number(make_run, tmp_path: Path):
    for method, target, seed in (("ga", "Japan", 0), ("ga", "Japan", 1), ("ga", "Egypt", 0), ("npo", "Japan", 0)):
        run = make_run(tmp_path / f"{target}{seed}" / method, method, target=target)
        edit(run / "config.json", seed=seed, target={"entities": [target], "relations": ["capital"]})
    lines = rows_of(write_csv([load(tmp_path)], tmp_path / "a.csv"))
    counts = {x["method"]: (x["runs"], x["targets"], x["seeds"]) for x in lines if x["measure"] == TRAIN}
    assert (counts["ga"], counts["npo"]) == (("3", "2", "2"), ("1", "1", "1"))


def test_a_distance_that_is_not_known_decides_nothing():
    for gaps in ({"a": math.nan, "b": 0.1, "c": 0.5}, {"b": 0.1, "a": math.nan, "c": 0.5}):
        assert nearest(gaps) == ["b"]
    assert nearest({"a": math.nan, "b": 0.1}) == []
