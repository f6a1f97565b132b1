"""What the command line adds for images: the demo's config, and options of a world."""

import pytest
from typer.testing import CliRunner

from interp_unlearn._core import ConfigError
from interp_unlearn.benchmarks import IMAGE_SETS
from interp_unlearn.cli import app
from interp_unlearn.cli._audit import world_options
from interp_unlearn.cli._demo import demo_config
from interp_unlearn.runs import configs_from_dict, flow_of
from interp_unlearn.zoo import IMAGE_MODELS


def test_the_demo_is_a_valid_run_on_images():
    configs = configs_from_dict(demo_config("vision", "ring", seed=3))
    assert [c.name for c in configs] == ["neggrad", "cupid", "delete"]
    for config in configs:
        assert flow_of(config).modality == "image"
        assert config.world.name in IMAGE_SETS
        assert config.model.name in IMAGE_MODELS
        assert (config.target.entities, config.seed) == (("ring",), 3)


def test_a_graphs_file_needs_the_graph_demo():
    found = CliRunner().invoke(app, ["demo", "--data", "g.npz"])
    assert found.exit_code == 2
    assert "add --graph" in found.output


def test_options_of_a_world_are_written_as_in_toml():
    given = ["aligned=0.995", 'pairs={dog="grass", cat="rock"}']
    assert world_options(given) == {"aligned": 0.995, "pairs": {"dog": "grass", "cat": "rock"}}
    assert world_options([]) == {}
    with pytest.raises(ConfigError, match="not KEY=VALUE"):
        world_options(["aligned"])
