"""A small TinyWorld, trained once for these tests in a cache of its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp_unlearn.runs import RunConfig, Workbench, configs_from_dict, open_workbench

BASE: dict[str, Any] = {
    "seed": 0,
    "model": {"name": "tinyworld"},
    "world": {
        "name": "tinyworld",
        "n_known": 12,
        "n_unknown": 20,
        "options": {
            "n_known": 24,
            "n_unknown": 30,
            "n_layers": 2,
            "d_model": 64,
            "steps": 250,
            "batch_size": 64,
            "lr": 5e-3,
        },
    },
    "target": {"entities": ["person-0"]},
    "latents": {"sae": "train"},
    "evidence": {"layer_stride": 1, "level": "quick"},
}


def tiny_config(name: str = "ga", **recipe: Any) -> RunConfig:
    return configs_from_dict({**BASE, "recipe": {"objective": "ga", "steps": 12, **recipe}}, name)[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder for models, gold models and SAEs of these tests."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("INTERP_UNLEARN_CACHE")
    os.environ["INTERP_UNLEARN_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["INTERP_UNLEARN_CACHE"]
    else:
        os.environ["INTERP_UNLEARN_CACHE"] = before


@pytest.fixture(scope="module")
def bench(cache: Path) -> Workbench:
    return open_workbench(tiny_config())


@pytest.fixture(scope="session")
def make_config():
    return tiny_config
