"""A whole run on images: files, evidence, report, an audit of its delta, and input that is refused."""

import dataclasses
import json

import pytest
import torch

from interp_unlearn._core import ConfigError, DataError, ModelError, NothingToForgetError
from interp_unlearn.report import write_report
from interp_unlearn.runs import RunFolder, WorldSpec, audit, configs_from_dict, open_workbench, run
from interp_unlearn.zoo import open_image_model, save_image_model

OPTIONS = {
    "aligned": 0.8,
    "per_class": 12,
    "test_per_class": 8,
    "never": 16,
    "size": 16,
    "training": {"epochs": 3, "batch_size": 12, "width": 4},
}


def config(name="cupid", **changes):
    data = {
        "model": {"name": "small-resnet"},
        "world": {"name": "coloured-shapes", "options": OPTIONS},
        "target": {"entities": ["circle"]},
        "evidence": {"level": "quick", "layer_stride": 2, "require_known": False},
        "recipe": {"objective": "ga", "steps": 2, "transforms": [{"name": "cupid", "k": 0.2}]},
        **changes,
    }
    return configs_from_dict(data, name)[0]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_UNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    return run(config(), tmp_path_factory.mktemp("runs") / "cupid")


def test_it_is_done_and_has_gold_groups_probes_and_maps(finished):
    assert finished.status()["state"] == "done"
    for phase in ("before", "after", "gold"):
        for table in ("behaviour", "bias", "class_probe", "bias_probe", "maps"):
            assert finished.table(f"{table}.{phase}") is not None, f"{table}.{phase}"
    assert finished.table("bias.gold").at(split="test", quantity="forget") == 0
    assert finished.table("cupid.partition") is not None
    names = {e.name for e in finished.evidence()}
    assert {"bias.forget/test", "bias.gap/test", "bias.worst/train", "bias.shortcut/test", "relearn.rest"} <= names
    assert {"class_probe/features", "bias_probe/features", "maps.object/conflicting", "parity"} <= names
    parity = next(e for e in finished.evidence() if e.name == "parity")
    assert parity.value == 0


def test_steps_are_logged_with_the_split_of_the_gradient(finished):
    step = finished.events("step")[0]
    assert {"forget_nll", "cupid_projected_share", "cupid_cos_update_ascent"} <= set(step)


def test_only_parameters_changed(finished):
    assert not any("running" in name or "num_batches" in name for name in finished.delta())


def test_the_report_has_pictures_and_no_word_of_what_images_lack(finished, tmp_path):
    page = write_report([finished.path], tmp_path / "report.html").read_text(encoding="utf-8")
    for words in (
        "rank correlation with the loss",
        "Where the class is seen",
        "In the usual setting and out of it",
        "Class and setting by block",
    ):
        assert words in page
    assert "multi-hop" not in page.partition("What was not tested")[0]


def test_a_delta_and_a_folder_of_another_tool_are_audited(finished, tmp_path):
    world = WorldSpec("coloured-shapes", options=OPTIONS)
    common = {"target": ["circle"], "world": world, "level": "quick", "relearn": False, "require_known": False}
    bench = open_workbench(config())
    original = tmp_path / "original"
    save_image_model(bench.model, original)
    bench.load(finished.delta())
    save_image_model(bench.model, tmp_path / "edited")
    bench.restore()
    done = audit("small-resnet", finished.path / "delta.safetensors", tmp_path / "one", **common)
    assert torch.equal(done.delta()["head.bias"], finished.delta()["head.bias"])
    done = audit(original, tmp_path / "edited", tmp_path / "two", **common)
    assert done.status()["state"] == "done"
    assert done.table("bias.gold") is None  # nobody knows how a folder was trained
    with pytest.raises(ModelError, match="nothing changed"):
        audit(original, original, tmp_path / "three", **common)
    facts = json.loads((tmp_path / "edited" / "config.json").read_text())
    (tmp_path / "edited" / "config.json").write_text(json.dumps({**facts, "classes": facts["classes"][::-1]}))
    with pytest.raises(ModelError, match="the unlearned model has the classes in another order"):
        audit(original, tmp_path / "edited", tmp_path / "turned", **common)
    other = tmp_path / "other"
    save_image_model(open_workbench(_wider()).model, other)
    with pytest.raises(ModelError, match=r"not an edit of this original|another number of weights"):
        audit(original, other, tmp_path / "four", **common)


def test_options_of_another_type_are_refused():
    wrong = {"training": [1]}, {"aligned": "0.9"}, {"noise": "a"}, {"size": "64"}, {"seed": "a"}
    for options in wrong:
        with pytest.raises(ConfigError, match=next(iter(options))):
            open_workbench(config(world={"name": "coloured-shapes", "options": {**OPTIONS, **options}}))


def _wider():
    options = {**OPTIONS, "training": {**OPTIONS["training"], "width": 2}}
    return config(world={"name": "coloured-shapes", "options": options})


def test_input_that_cannot_be_used_is_refused():
    with pytest.raises(DataError, match="no class 'dog'"):
        open_workbench(config(target={"entities": ["dog"]}))
    with pytest.raises(ConfigError, match="forgets one class"):
        open_workbench(config(target={"entities": ["circle", "ring"]}))
    with pytest.raises(ModelError, match="neither an image model"):
        open_workbench(config(model={"name": "smollm2-135m"}))
    with pytest.raises(ConfigError, match="without adapters and SAEs"):
        open_workbench(config(latents={"sae": "train"}))


def test_a_class_that_the_model_does_not_know_is_refused(tmp_path):
    bench = open_workbench(config())
    with torch.no_grad():
        bench.model.module.head.bias[0] -= 100
    save_image_model(bench.model, tmp_path / "without")
    asked = config(model={"name": str(tmp_path / "without")})
    asked = dataclasses.replace(asked, evidence=dataclasses.replace(asked.evidence, require_known=True))
    with pytest.raises(NothingToForgetError, match="nothing to forget"):
        open_workbench(asked)
    assert open_image_model(tmp_path / "without").source["kind"] == "path"
