"""Sweep files: which runs they stand for, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from interp_unlearn._core import ConfigError
from interp_unlearn.runs import configs_from_dict, load_sweep, sweep_from_dict

REPO = Path(__file__).resolve().parents[2]
GOOD: dict[str, Any] = {
    "target": {"relations": ["capital"]},
    "sweep": {"targets": ["Japan", "Egypt"], "seeds": [0, 1]},
    "recipe": [
        {"objective": "ga"},
        {"objective": "npo", "grid": {"lr": [1e-5, 2e-5], "options": {"beta": [0.1, 1.0]}}},
    ],
}


def test_every_combination_is_a_run_in_a_folder_of_its_target_and_seed():
    runs = sweep_from_dict(GOOD, "grid").runs
    assert len(runs) == 2 * 2 * (1 + 4)
    assert [run.name for run in runs[:5]] == [
        "Japan-seed0/ga",
        "Japan-seed0/npo lr=1e-05 beta=0.1",
        "Japan-seed0/npo lr=1e-05 beta=1",
        "Japan-seed0/npo lr=2e-05 beta=0.1",
        "Japan-seed0/npo lr=2e-05 beta=1",
    ]
    assert [run.group for run in runs[::5]] == ["Japan-seed0", "Egypt-seed0", "Japan-seed1", "Egypt-seed1"]
    third = runs[2]
    assert third.method == "npo"
    assert third.config.recipe == {"objective": "npo", "lr": 1e-5, "options": {"beta": 1.0}}
    assert third.config.target.entities == ("Japan",)
    assert third.config.target.relations == ("capital",)
    assert {run.config.shared_key for run in runs[:5]} == {third.config.shared_key}


def test_a_run_of_a_sweep_is_the_run_that_a_config_of_its_own_would_be():
    run = sweep_from_dict(GOOD).runs[0]
    plain = {"target": {"entities": ["Japan"], "relations": ["capital"]}, "seed": 0, "recipe": [{"objective": "ga"}]}
    assert run.config == configs_from_dict(plain)[0]


def test_targets_of_the_same_entity_get_folders_of_their_own():
    targets = [
        "Japan",
        {"entities": ["Japan"], "relations": ["language"]},
        {"entities": ["日本"]},
        {"entities": ["東京"]},
    ]
    runs = sweep_from_dict({"sweep": {"targets": targets}, "recipe": {"objective": "ga"}}).runs
    groups = [run.group for run in runs]
    assert groups[:2] == ["Japan-seed0", "Japan-language-seed0"]
    assert len(set(groups)) == 4
    (run,) = sweep_from_dict({"sweep": {"targets": targets[1:2]}, "recipe": {"objective": "ga"}}).runs
    assert run.group == "Japan-language-seed0", "a target's folder does not depend on the others"
    dots = sweep_from_dict({"sweep": {"targets": ["...And Justice for All"]}, "recipe": {"objective": "ga"}}).runs
    assert dots[0].group == "And-Justice-for-All-seed0"
    long = [{"entities": [f"person-{i}" for i in range(60)]}, {"entities": [f"person-{i}" for i in range(61)]}]
    groups = [r.group for r in sweep_from_dict({"sweep": {"targets": long}, "recipe": {"objective": "ga"}}).runs]
    assert len(set(groups)) == 2
    assert all(len(group) < 100 for group in groups)


def test_grids_take_dotted_names_lists_and_tables():
    grid = {"trainable.layers": [[0, 1], [1, 2]], "transforms": [[], [{"name": "clip_by_module", "norm": 1.0}]]}
    runs = sweep_from_dict({"target": {"entities": ["Japan"]}, "recipe": {"objective": "ga", "grid": grid}}).runs
    assert [run.config.name for run in runs] == [
        "ga layers=0+1 transforms=none",
        "ga layers=0+1 transforms=clip_by_module",
        "ga layers=1+2 transforms=none",
        "ga layers=1+2 transforms=clip_by_module",
    ]
    assert runs[3].config.recipe["trainable"] == {"layers": [1, 2]}


def test_values_that_look_alike_still_get_folders_of_their_own():
    grid = {"lr": [1e-5, 1.00000001e-5]}
    runs = sweep_from_dict({"target": {"entities": ["Japan"]}, "recipe": {"objective": "ga", "grid": grid}}).runs
    assert len({run.name for run in runs}) == 2


def test_only_keeps_methods_and_seeds():
    config = sweep_from_dict(GOOD)
    assert {r.method for r in config.only(["npo"], [1]).runs} == {"npo"}
    assert len(config.only(["npo"], [1]).runs) == 8
    with pytest.raises(ConfigError, match="no method 'npoo'; nearest: npo"):
        config.only(["npoo"])
    with pytest.raises(ConfigError, match="no seed 7; it has: 0, 1"):
        config.only([], [7])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sweep": {}}, None),
        ({"sweep": {}, "recipe": [{"objective": "ga"}]}, "there is nothing to sweep"),
        ({"sweep": "all"}, "write it as a table: [sweep]"),
        ({"sweep": {"seed": [0]}}, "unknown field sweep.seed; nearest: seeds"),
        ({"sweep": {"targets": ["Japan"], "seeds": []}}, "sweep.seeds = []: list at least one"),
        ({"sweep": {"targets": ["Japan"], "seeds": [0, 0]}}, "a seed is listed twice"),
        ({"sweep": {"targets": ["Japan"], "seeds": [-1]}}, "whole numbers from 0 on"),
        ({"sweep": {"targets": ["Japan"], "seeds": [True]}}, "whole numbers from 0 on"),
        ({"seed": 3}, "seed and sweep.seeds are both given"),
        ({"sweep": {"targets": []}}, "sweep.targets = []: list at least one"),
        ({"sweep": {"targets": "Japan"}}, "sweep.targets = 'Japan'"),
        ({"sweep": {"targets": [3]}}, "sweep.targets[0] = 3"),
        ({"sweep": {"targets": ["Japan", "Japan"]}}, "listed twice"),
        ({"sweep": {"targets": [{"entity": "Japan"}]}}, "target.entities"),
        ({"sweep": {"seeds": [0]}}, "sweep.targets is missing"),
        ({"target": {"entities": ["Peru"]}}, "target.entities and sweep.targets are both given"),
        ({"recipe": []}, "recipe is missing"),
        ({"recipe": [3]}, "write [[recipe]] tables"),
        ({"recipe": [{"objective": "npoo"}]}, "unknown objective 'npoo'; nearest: npo"),
        ({"recipe": [{"objective": "ga"}, {"objective": "ga"}]}, "give each [[recipe]] a different name"),
        ({"recipe": [{"objective": "ga", "name": "a/b"}]}, "plain folder name"),
        ({"recipe": [{"objective": "ga", "grid": {"lr": 0.1}}]}, "recipe 'ga': grid.lr = 0.1: give a list"),
        ({"recipe": [{"objective": "ga", "grid": {"lr": []}}]}, "list at least one value"),
        ({"recipe": [{"objective": "ga", "grid": {"lr": [1, 1.0]}}]}, "listed twice"),
        ({"recipe": [{"objective": "ga", "grid": {"lrr": [0.1]}}]}, "unknown field 'lrr'"),
        ({"recipe": [{"objective": "ga", "grid": {"lr": [-0.1]}}]}, "run 'ga lr=-0.1' of the sweep: recipe.lr"),
        ({"recipe": [{"objective": "ga", "grid": [1]}]}, "write it as a table: [recipe.grid]"),
        ({"recipe": [{"objective": "ga", "lr": 0.1, "grid": {"lr": [0.2]}}]}, "it has a value outside the grid too"),
        ({"recipe": [{"objective": "ga", "lr": 0.1, "grid": {"lr.x": [0.2]}}]}, "it has a value outside the grid too"),
        ({"worlds": {}}, "unknown field worlds; nearest: world"),
    ],
)
def test_a_wrong_field_is_named_with_its_fix(change: dict, says: str | None):
    if says is None:
        says = "sweep.targets is missing"
    with pytest.raises(ConfigError) as error:
        sweep_from_dict({**GOOD, **change})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_sweep(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[sweep\n")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_sweep(tmp_path / "bad.toml")


def test_a_sweep_is_not_taken_for_a_run():
    with pytest.raises(ConfigError, match="use: interp-unlearn sweep"):
        configs_from_dict(GOOD)


SHIPPED = {
    "smollm2": 3 * 3 * 28,
    "tinyworld": 5 * 3 * 33,
    "melu_tinyworld": 5 * 3 * 12,
    "tune_tinyworld": 2 * 119,
    "tune_smollm2": 35,
}


def test_the_shipped_sweeps_are_valid():
    folder = REPO / "benchmarks" / "sweeps"
    assert {path.stem: len(load_sweep(path).runs) for path in folder.glob("*.toml")} == SHIPPED
