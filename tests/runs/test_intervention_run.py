"""A run of a method that changes no weight: the saved intervention is what "after" measures, and it resumes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_unlearn._core import FileFormatError
from interp_unlearn.hooked import load_intervention
from interp_unlearn.latents import random_dictionary
from interp_unlearn.metrics import behaviour
from interp_unlearn.report import write_report
from interp_unlearn.runs import EvidenceSpec, RunConfig, RunFolder, Workbench, configs_from_dict, run
from interp_unlearn.runs._evidence import saved_config
from interp_unlearn.worlds import TinyWorldConfig, make_task, tinyworld
from interp_unlearn.zoo import tinyworld_model

OPTIONS = {"n_known": 12, "n_unknown": 12, "n_layers": 2, "d_model": 32, "steps": 1, "batch_size": 8}


def config(objective: str, **options) -> RunConfig:
    data = {
        "model": {"name": "tinyworld"},
        "world": {"name": "tinyworld", "options": OPTIONS, "n_known": 8, "n_unknown": 8},
        "target": {"entities": ["person-0"]},
        "recipe": {"objective": objective, "steps": 2, "options": options},
    }
    quick = EvidenceSpec(layer_stride=1, lens=False, relearn=False, gold=False, require_known=False, level="quick")
    return dataclasses.replace(configs_from_dict(data, objective)[0], evidence=quick)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bench(cache: Path) -> Workbench:
    """A TinyWorld model of one training step, and a random dictionary in place of an SAE."""
    torch.set_num_threads(1)  # fixtures of a module come before those of a test
    settings = TinyWorldConfig(**OPTIONS)
    model, world = tinyworld_model(settings, progress=lambda *_: None), tinyworld(settings)
    task = make_task(world, ["person-0"], tokenizer=model.tokenizer, n_known=8, n_unknown=8, max_prompts=8)
    task = dataclasses.replace(task, text_eval=task.text_eval[:4])
    sae = random_dictionary(32, 96, 8, 0, "blocks.0.hook_resid_post")
    return Workbench(model, task, world, {"main": sae})


@pytest.fixture(scope="module")
def finished(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    options = {"unit": "activation", "value": 4.0, "gate_percentile": 50.0}
    return run(config("dsg", **options), tmp_path_factory.mktemp("runs") / "dsg", bench=bench)


def test_after_is_the_edited_model_and_before_the_bare_one(finished: RunFolder, bench: Workbench):
    assert finished.status()["state"] == "done"
    before, after = (finished.table(f"behaviour.{p}") for p in ("before", "after"))
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.values, behaviour(bench.model, bench.task).values)
    assert not np.array_equal(before.values, after.values)
    with load_intervention(finished.path).applied(bench.model):
        np.testing.assert_array_equal(after.values, behaviour(bench.model, bench.task).values)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bench.model.module.modules())
    read = {p: finished.activations(p).flat("blocks.0.hook_resid_post") for p in ("before", "after")}
    assert not torch.equal(read["before"], read["after"])


def test_no_weights_are_saved_and_views_do_without(finished: RunFolder, tmp_path: Path):
    assert finished.delta() == {}
    assert not (finished.path / "delta.safetensors").exists()
    assert finished.table("weights.relative_change") is None
    assert "dsg" in write_report([finished.path], tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_killed_before_measuring_measures_the_same_when_resumed(
    finished: RunFolder, bench: Workbench, tmp_path: Path
):
    first = run(saved_config(finished), tmp_path / "dsg", bench=bench)
    status = first.status()
    names = [n for n in status["finished"] if n not in ("after", "evidence")]
    first.write_status("running", finished=names)
    (first.path / "tables" / "behaviour.after.json").unlink()
    again = run(saved_config(finished), first.path, bench=bench)
    one, two = (f.table("behaviour.after") for f in (finished, again))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one.values, two.values)


def test_a_trained_run_has_no_intervention(tmp_path: Path):
    folder = RunFolder(tmp_path)
    assert folder.intervention() is None
    with pytest.raises(FileFormatError, match="does not exist"):
        folder.delta()
