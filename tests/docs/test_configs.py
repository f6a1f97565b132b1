"""Every config in README and the documentation is read by the parser that a user's file goes through."""

import json
import tomllib

import pytest

from interp_unlearn.latents import SAETrainConfig
from interp_unlearn.runs import configs_from_dict, sweep_from_dict

from .blocks import BLOCKS

CONFIGS = [block for block in BLOCKS if block.language == "toml"]
JSONS = [block for block in BLOCKS if block.language == "json"]


def test_there_are_configs():
    assert len(CONFIGS) > 20


@pytest.mark.parametrize("block", CONFIGS, ids=str)
def test_config_is_valid(block):
    data = tomllib.loads(block.text)
    if "sae" in data:
        SAETrainConfig.from_dict(data["sae"])
        return
    # A part of a config is completed with the least that a whole one needs.
    data.setdefault("target", {"entities": ["Japan"]})
    if "edited" not in data.get("model", {}):
        data.setdefault("recipe", {"objective": "ga"})
    if "sweep" in data:
        sweep_from_dict(data)
    else:
        configs_from_dict(data)


@pytest.mark.parametrize("block", JSONS, ids=str)
def test_json_is_valid(block):
    rest = block.text.strip()
    while rest:
        row, end = json.JSONDecoder().raw_decode(rest)
        assert isinstance(row, dict)
        rest = rest[end:].lstrip()
