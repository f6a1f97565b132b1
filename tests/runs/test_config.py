"""Configs: what is refused names the field and the fix."""

from pathlib import Path

import pytest

from interp_unlearn._core import ConfigError
from interp_unlearn.runs import RunConfig, configs_from_dict, load_configs
from interp_unlearn.runs._language_open import open_original

GOOD = {"target": {"entities": ["Japan"], "relations": ["capital"]}, "recipe": {"objective": "npo"}}


def test_round_trip_keeps_everything():
    config = configs_from_dict({**GOOD, "seed": 3, "world": {"n_known": 10}}, "x")[0]
    assert config.name == "x"
    assert RunConfig.from_dict(config.to_dict()) == config


def test_several_recipes_share_the_measurements_of_the_original():
    data = {**GOOD, "recipe": [{"objective": "ga"}, {"objective": "npo", "name": "npo long", "steps": 90}]}
    first, second = configs_from_dict(data)
    assert (first.name, second.name) == ("ga", "npo long")
    assert "name" not in second.recipe
    assert first.shared_key == second.shared_key
    assert first.shared_key != configs_from_dict({**data, "seed": 1})[0].shared_key


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipes": {}}, "unknown field recipes; nearest: recipe"),
        ({"target": {"entities": []}}, "target.entities = []: name at least one entity"),
        ({"target": {"entities": "Japan"}}, 'write a list, e.g. entities = ["Japan"]'),
        ({"target": {"entitys": ["Japan"]}}, "unknown field target.entitys; nearest: entities"),
        ({"recipe": {"objective": "npoo"}}, "npo"),
        ({"recipe": {"steps": 3}}, "recipe.objective is missing"),
        ({"recipe": {"objective": "npo", "steps": 0}}, "steps"),
        ({"recipe": [{"objective": "ga"}, {"objective": "ga"}]}, "different name"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": True}, "seed"),
        ({"model": "smollm2"}, "write it as a table: [model]"),
        ({"world": {"n_known": "many"}}, "world.n_known"),
        ({"world": {"n_known": 1}}, "at least 4"),
        ({"model": {"name": "a", "adapter": "x", "delta": "y"}}, "not both"),
        ({"evidence": {"layer_stride": 0}}, "at least 1"),
        ({"name": "../x"}, "plain folder name"),
        ({"name": 3}, "plain folder name"),
        ({"recipe": {"objective": "ga", "name": 3}}, "plain folder name"),
        ({"recipe": []}, "list at least one [[recipe]]"),
        ({"evidence": {"also": 3}}, "evidence.also must be a list"),
        ({"evidence": {"also": "readout"}}, "evidence.also must be a list"),
        ({"latents": {"sae": 3}}, "latents.sae must be a text, got 3"),
        ({"world": {"data_dir": 3}}, "world.data_dir must be a text, got 3"),
        ({"world": {"name": ""}}, "world.name = ''"),
    ],
)
def test_a_wrong_field_is_named_with_its_fix(change: dict, says: str):
    with pytest.raises(ConfigError) as error:
        configs_from_dict({**GOOD, **change})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_configs(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_configs(tmp_path)
    (tmp_path / "bom.toml").write_text(
        '[target]\nentities = ["Japan"]\n[recipe]\nobjective = "ga"\nname = "mine"', "utf-8-sig"
    )
    assert load_configs(tmp_path / "bom.toml")[0].name == "mine"
    (tmp_path / "bad.toml").write_text("[target\n")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_configs(tmp_path / "bad.toml")


@pytest.mark.parametrize("options", [{"foo": 1}, {"steps": "many"}, {"steps": 1.5}, {"seed": "x"}])
def test_settings_of_tinyworld_are_checked(options: dict):
    config = configs_from_dict(
        {**GOOD, "model": {"name": "tinyworld"}, "world": {"name": "tinyworld", "options": options}}
    )
    with pytest.raises(ConfigError, match=r"world\.options"):
        open_original(config[0])


def test_another_state_of_a_checkpoint_is_measured_again(tmp_path: Path):
    """Runs on one original share its measurements; a folder whose files changed is another original."""
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(b"one")
    (config,) = configs_from_dict({**GOOD, "model": {"name": str(tmp_path / "model")}})
    first = config.shared_key
    assert first == config.shared_key
    file.write_bytes(b"three")
    assert config.shared_key != first
    assert config.model.fingerprints().keys() == {"name"}


def test_a_missing_table_is_named():
    with pytest.raises(ConfigError, match="target is missing"):
        configs_from_dict({"recipe": {"objective": "ga"}})
    with pytest.raises(ConfigError, match="recipe is missing"):
        configs_from_dict({"target": {"entities": ["Japan"]}})


def test_neighbours_are_a_switch_of_the_world():
    assert configs_from_dict({**GOOD, "world": {"neighbours": True}})[0].world.neighbours
    with pytest.raises(ConfigError, match=r"world\.neighbours"):
        configs_from_dict({**GOOD, "world": {"neighbours": "yes"}})
