"""A whole run on a graph network: the same folder as any other run, its report, its audit, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, ModelError, NothingToForgetError, write_tensors
from interp_unlearn.report import find_runs, read_run, write_report
from interp_unlearn.runs import RunConfig, audit, flow_of, open_workbench, run, run_many
from interp_unlearn.runs._config import WorldSpec
from interp_unlearn.worlds import graph_task
from interp_unlearn.zoo import GNNShape, GNNTraining, graph_model, save_gnn, seeded_gnn

from ..tiny_graphs import small_graph

pytestmark = pytest.mark.slow
OPTIONS = {"epochs": 15, "d_hidden": 16, "d_out": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory, cache) -> Path:
    graph = small_graph()
    path = tmp_path_factory.mktemp("graphs") / "papers.npz"
    arrays = {"edge_index": graph.edges, "labels": graph.labels, "features": graph.features}
    np.savez(path, **{name: tensor.numpy() for name, tensor in arrays.items()})
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_UNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def config(data: Path, objective: str, entities: tuple[str, ...] = ("edges 8",), **fields) -> RunConfig:
    return RunConfig.from_dict(
        {
            "name": objective,
            "model": {"name": "gcn"},
            "world": {"name": "graph", "options": {"path": str(data), **OPTIONS}},
            "target": {"entities": list(entities)},
            "evidence": {"level": "quick"},
            "recipe": {"objective": objective, "steps": 3},
            **fields,
        }
    )


def test_runs_make_one_report_that_shows_the_deletion(data, tmp_path):
    done = run_many([config(data, name) for name in ("d2dgn", "gnndelete")], tmp_path / "runs")
    for folder in done:
        names = {e.name.split("/")[0] for e in folder.evidence()}
        assert {"graph.utility", "graph.membership", "reach.change", "cost.flops", "relearn.rest", "parity"} <= names
        assert folder.intervention() is not None
        gold = folder.table("behaviour.gold")
        assert gold is not None
    assert not (done[1].path / "delta.safetensors").exists()
    view = read_run(find_runs([tmp_path / "runs"])[0])
    assert view.task["modality"] == "graph"
    page = write_report([folder.path for folder in done], tmp_path / "report.html").read_text()
    assert "Around the deletion" in page and "What moved around the deletion: gnndelete" in page
    assert "last token of the name" not in page and "Logit lens" not in page


def test_a_class_is_deleted_and_the_run_goes_on_where_it_stopped(data, tmp_path):
    made = config(data, "d2dgn", ("class class 0",), evidence={"level": "quick", "require_known": False})
    folder = run(made, tmp_path / "run")
    assert folder.status()["state"] == "done"
    before, after = folder.table("behaviour.before"), folder.table("behaviour.after")
    assert before.axes == after.axes and "forget_heldout" in before.axes[0].labels
    weights = folder.delta()
    (tmp_path / "run" / "delta.safetensors").unlink()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    status["finished"] = [p for p in status["finished"] if p == "before"]
    (tmp_path / "run" / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    again = run(made, tmp_path / "run").delta()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_two_checkpoints_are_audited(data, tmp_path):
    task = graph_task(small_graph(), ["edges 8"])
    model = graph_model("gcn", task, GNNTraining(**OPTIONS))
    save_gnn(model.module, tmp_path / "before")
    with torch.no_grad():
        model.module.conv2.lin.weight.mul_(0.5)
    save_gnn(model.module, tmp_path / "after")
    spec = WorldSpec("graph", options={"path": str(data)})
    folder = audit(
        tmp_path / "before", tmp_path / "after", tmp_path / "audit", target=["edges 8"], world=spec, level="quick"
    )
    assert folder.status()["state"] == "done"
    assert folder.intervention() is not None
    assert set(folder.delta()) == {"conv2.lin.weight"}
    with pytest.raises(ModelError, match="nothing changed"):
        audit(tmp_path / "before", tmp_path / "before", tmp_path / "same", target=["edges 8"], world=spec)


def test_what_cannot_be_run_is_refused_in_a_sentence(data, tmp_path):
    wrong = config(data, "d2dgn", world={"name": "graph", "options": {"path": str(data), "epoch": 3}})
    with pytest.raises(ConfigError, match="nearest: epochs"):
        run(wrong, tmp_path / "a")
    with pytest.raises(ModelError, match="not a graph network's folder"):
        run(config(data, "d2dgn", model={"name": "gnc"}), tmp_path / "b")
    with pytest.raises(ConfigError, match="works on language models"):
        run(config(data, "meow"), tmp_path / "c")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": {"name": "gcn", "adapter": "/nowhere"}}, "without adapters and SAEs"),
        ({"latents": {"sae": "train"}}, "without adapters and SAEs"),
        ({"options": {"epochs": "3"}}, "epochs must be a whole number"),
        ({"options": {"epochs": 2.5}}, "epochs must be a whole number"),
        ({"options": {"lr": "x"}}, "lr must be a number"),
        ({"options": {"graph_seed": "a"}}, "graph_seed must be a whole number"),
        ({"options": {"normalise": "columns"}}, "use one of auto, rows, none"),
    ],
)
def test_a_field_that_a_graph_run_cannot_use_is_refused(data, fields, words):
    given = dict(fields)
    world = {"name": "graph", "options": {"path": str(data), **OPTIONS, **given.pop("options", {})}}
    with pytest.raises(ConfigError, match=words):
        open_workbench(config(data, "utu", world=world, **given))


def test_a_delta_is_laid_over_the_network_which_must_know_the_deletion(data, tmp_path):
    bench = open_workbench(config(data, "utu"))
    file = tmp_path / "delta.safetensors"
    write_tensors(file, {"conv2.lin.weight": torch.zeros_like(bench.model.module.conv2.lin.weight)})
    blank = {"model": {"name": "gcn", "delta": str(file)}}
    opened = open_workbench(config(data, "utu", **blank, evidence={"require_known": False}))
    assert not opened.model.module.conv2.lin.weight.any()
    assert not flow_of(config(data, "utu")).makes_gold(config(data, "utu", **blank), opened)
    with pytest.raises(NothingToForgetError, match=r"AUC of 0\.50, no more than chance"):
        open_workbench(config(data, "utu", **blank))


def test_a_network_of_another_graph_is_refused(data, tmp_path):
    save_gnn(seeded_gnn(GNNShape("gcn", 61, 8, 16), 0), tmp_path / "other")
    with pytest.raises(ModelError, match="reads 61 features of a node, but papers has 60"):
        open_workbench(config(data, "utu", model={"name": str(tmp_path / "other")}))


def test_cupid_gets_plain_sgd(data):
    made = config(data, "ga", recipe={"objective": "ga", "steps": 1, "transforms": [{"name": "cupid", "k": 0.2}]})
    bench = open_workbench(made)
    flow = flow_of(made)
    assert flow.recipe(made, bench, made.recipe).optimizer == "sgd"
    assert flow.recipe(made, bench, {"objective": "ga"}).optimizer == "adamw"
