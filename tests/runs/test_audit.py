"""Audits of checkpoints made by other tools: what becomes of them, and what is refused in one sentence."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp_unlearn._core import ConfigError, DataError, FileFormatError, ModelError
from interp_unlearn.probes import PARTS
from interp_unlearn.report import report_json, write_report
from interp_unlearn.runs import RunFolder, Workbench, WorldSpec, audit, resume
from interp_unlearn.runs._edited_checks import check_gold
from interp_unlearn.worlds import Task, TinyWorldConfig, World, tinyworld
from interp_unlearn.zoo._tinyworld import tinyworld_folder

from .tiny import OPTIONS, Counting, tiny_bench

QUICK = {"level": "quick", "relearn": False, "require_known": False, "layer_stride": 1}
EMBED, TOP = "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(autouse=True)
def no_parts(monkeypatch):
    monkeypatch.setattr(PARTS, "_items", {})


@pytest.fixture(scope="module")
def original(cache: Path) -> Path:
    return tinyworld_folder(TinyWorldConfig(**OPTIONS), progress=lambda *_: None)


@pytest.fixture(scope="module")
def bench(original: Path) -> Workbench:
    return tiny_bench(original)


@pytest.fixture
def edited(original: Path, tmp_path: Path):
    """Saves the original with some tensors changed, as another tool would, and gives the folder."""

    def make(name: str = "edited", change=None, **config) -> Path:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = tmp_path / name
        if config:
            settings = AutoModelForCausalLM.from_pretrained(original).config
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(type(settings).from_dict({**settings.to_dict(), **config}))
        else:
            model = AutoModelForCausalLM.from_pretrained(original)
        with torch.no_grad():
            if change is not None:
                change(dict(model.named_parameters(remove_duplicate=False)))
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(original).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of questions in TinyWorld's own words, since its tokenizer knows no others."""
    world: World = tinyworld(TinyWorldConfig(**OPTIONS))
    texts = [t.text for t in world.templates if t.type == "person" and t.relation == "home" and t.hops == 1][:2]
    rows = []
    for i, person in enumerate(world.of_type("person")[:7]):
        home = next(f for f in world.facts_of(person.id) if f.relation == "home")
        plain, other = (t.replace("{name}", person.name) for t in texts)
        facts = {"question": plain, "answer": home.answer, "entity": person.name, "paraphrases": [other]}
        rows.append({"role": "retain" if i else "forget", **facts})
    rows += [{"role": "unknown", "entity": e.name} for e in world.unknown_of_type("person")[:20]]
    path = tmp_path_factory.mktemp("own") / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def louder(tensors: dict[str, torch.Tensor]) -> None:
    tensors[TOP].mul_(1.5)


def test_a_folder_of_another_tool_becomes_a_run(bench: Workbench, original: Path, edited, tmp_path: Path):
    part = Counting("quick")
    PARTS._items["quick"] = part.part()
    folder = edited("npo-model", louder)
    out = audit(original, folder, tmp_path / "audit", target=["person-0"], world="tinyworld", bench=bench, **QUICK)
    assert out.status()["state"] == "done"
    assert "edited" in out.status()["finished"]
    assert "train" not in out.status()["finished"]
    delta = out.delta()
    assert set(delta) == {TOP}
    assert torch.equal(delta[TOP], 1.5 * dict(bench.model.module.named_parameters())[TOP])
    assert out.table("behaviour.after") is not None
    assert not list((out.path / "checkpoint").glob("*"))
    assert part.looked == 1
    page = write_report([out.path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "npo-model" in page
    (run,) = report_json([out.path])["comparisons"][0]["runs"]
    assert run["external"]
    assert run["edited"] == str(folder)
    assert resume(out.path).status()["state"] == "done"


def test_a_checkpoint_that_changed_since_is_not_taken_for_the_old_one(
    bench: Workbench, original: Path, edited, tmp_path: Path
):
    folder = edited("step", louder)
    arguments = {"target": ["person-0"], "world": "tinyworld", "bench": bench, **QUICK}
    audit(original, folder, tmp_path / "audit", **arguments)
    assert audit(original, folder, tmp_path / "audit", **arguments).status()["state"] == "done"
    edited("step", lambda t: t[TOP].mul_(0.5))
    with pytest.raises(FileFormatError, match=r"step are not those that .* measured"):
        audit(original, folder, tmp_path / "audit", **arguments)


def test_audits_of_one_original_are_compared_and_share_its_measurements(
    bench: Workbench, original: Path, edited, tmp_path: Path
):
    folders = [edited("one", louder), edited("two", lambda t: t[TOP].mul_(0.5))]
    done = [
        audit(original, f, tmp_path / f"a-{f.name}", target=["person-0"], world="tinyworld", bench=bench, **QUICK)
        for f in folders
    ]
    assert len(list(tmp_path.glob(".baseline-*"))) == 1
    (comparison,) = report_json([out.path for out in done])["comparisons"]
    assert [run["name"] for run in comparison["runs"]] == ["one", "two"]


def test_a_delta_and_an_adapter_are_laid_over_the_original(bench: Workbench, original: Path, tmp_path: Path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    own = dict(bench.model.module.named_parameters())
    save_file(
        {"lm_head.weight": own[EMBED].detach() + 0.01, TOP: own[TOP].detach().clone()}, tmp_path / "d.safetensors"
    )
    out = audit(
        original,
        tmp_path / "d.safetensors",
        tmp_path / "delta",
        target=["person-0"],
        world="tinyworld",
        bench=bench,
        **QUICK,
    )
    assert set(out.delta()) == {EMBED}, "a tied tensor is known by the original's name; an equal one is no change"
    adapter = get_peft_model(
        AutoModelForCausalLM.from_pretrained(original), LoraConfig(r=2, target_modules=["down_proj"])
    )
    with torch.no_grad():
        for name, p in adapter.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    adapter.save_pretrained(tmp_path / "lora")
    out = audit(
        original, tmp_path / "lora", tmp_path / "l", target=["person-0"], world="tinyworld", bench=bench, **QUICK
    )
    assert set(out.delta()) == {TOP.replace("1", "0"), TOP}


def test_own_questions_need_no_world(original: Path, edited, questions: Path, tmp_path: Path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(f"the town has a river {i}" for i in range(8)))  # the model's context is short
    world = WorldSpec("questions", options={"corpus": str(texts)})
    out = audit(original, edited("gone", louder), tmp_path / "own", world=world, questions=questions, **QUICK)
    task = json.loads((out.path / "task.json").read_text())
    assert len(task["forget_train"]["prompts"]) == len(task["forget_heldout"]["prompts"]) == 1
    assert len(task["unknown_eval"]) == 10
    assert out.config()["world"]["options"]["path"] == str(questions)
    assert out.config()["target"]["entities"] == [e["name"] for e in task["target_entities"]]
    names = {e.name for e in out.evidence()}
    assert {"alignment.t/residual", "two_sample.energy/residual"} <= names


REFUSED = [
    ("another architecture", {"num_hidden_layers": 3}, "another number of layers (3) than the original (2)"),
    ("another width", {"hidden_size": 64}, "another width (64) than the original (32)"),
    ("another vocabulary", {"vocab_size": 900}, "a vocabulary of 900 tokens"),
    ("the same", None, "nothing changed: the unlearned model holds the weights of the original"),
    ("rounded", lambda t: [p.copy_(p.bfloat16().float()) for p in t.values()], "by rounding to bfloat16 alone"),
    ("NaN", lambda t: t[TOP].fill_(float("nan")), "collapsed: model.layers.1.mlp.down_proj.weight holds NaN"),
    ("constant", lambda t: t["model.norm.weight"].zero_(), "its logits are the same for every prompt"),
]


@pytest.mark.parametrize(("change", "says"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_audited_is_refused_and_leaves_nothing(
    bench: Workbench, original: Path, edited, tmp_path: Path, change, says: str
):
    folder = edited(**change) if isinstance(change, dict) else edited("e", change)
    out = tmp_path / "audit"
    with pytest.raises(ModelError) as error:
        audit(original, folder, out, target=["person-0"], world="tinyworld", bench=bench, **QUICK)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()
    assert not bench.originals


def test_another_tokenizer_is_refused(bench: Workbench, original: Path, edited, tmp_path: Path):
    folder = edited("e", louder)
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    words = data["model"]["vocab"]
    one, two = list(words)[20:22]
    words[one], words[two] = words[two], words[one]
    file.write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"tokenizer of the unlearned model is not that of the original.*token"):
        audit(original, folder, tmp_path / "a", target=["person-0"], world="tinyworld", bench=bench, **QUICK)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    out = audit(original, folder, tmp_path / "b", target=["person-0"], world="tinyworld", bench=bench, **QUICK)
    assert out.status()["state"] == "done", "a checkpoint without a tokenizer is read with the original's"


def test_too_few_unknown_entities_are_refused(bench: Workbench, original: Path, edited, tmp_path: Path):
    few = dataclasses.replace(bench, any_task=dataclasses.replace(bench.task, unknown_eval=bench.task.unknown_eval[:7]))
    with pytest.raises(DataError, match=r"there are 7 held-out unknown entities.*at least 8.*at least 16"):
        audit(
            original,
            edited("e", louder),
            tmp_path / "a",
            target=["person-0"],
            world="tinyworld",
            bench=few,
            **QUICK,
        )


class Known:
    """Stands for a model that answers a share of questions."""

    def __init__(self, share: float) -> None:
        self.share = share


@pytest.mark.parametrize(("share", "knows"), [(0.9, True), (0.5, True), (0.3, False), (0.0, False)])
def test_a_gold_that_knows_the_target_is_refused(bench: Workbench, monkeypatch, share: float, knows: bool):
    class Ranked:
        def __init__(self, exact):
            self.exact = exact

    def rank(model: Known, prompts):
        n = len(prompts)
        return Ranked([i < round(model.share * n) for i in range(n)])

    monkeypatch.setattr("interp_unlearn.runs._edited_checks.rank_answers", rank)
    task: Task = bench.task
    plain = check_gold.__wrapped__ if hasattr(check_gold, "__wrapped__") else check_gold
    if knows:
        with pytest.raises(ModelError, match="the gold model knows the target: it answers"):
            plain(Known(0.9), Known(share), task)  # type: ignore[arg-type]
    else:
        plain(Known(0.9), Known(share), task)  # type: ignore[arg-type]


def test_a_gold_folder_is_measured(bench: Workbench, original: Path, edited, tmp_path: Path):
    gold = edited("gold", lambda t: t[TOP].mul_(0.9))
    out = audit(
        original,
        edited("e", louder),
        tmp_path / "a",
        target=["person-0"],
        world="tinyworld",
        gold=gold,
        bench=bench,
        **QUICK,
    )
    assert out.table("behaviour.gold") is not None
    assert list(tmp_path.glob(".gold-*"))
    with pytest.raises(ModelError, match=r"the gold model has another number of layers"):
        audit(
            original,
            edited("e2", louder),
            tmp_path / "b",
            target=["person-0"],
            world="tinyworld",
            gold=edited("g3", num_hidden_layers=3),
            bench=bench,
            **QUICK,
        )


def test_wrong_arguments_are_said(bench: Workbench, original: Path, edited, tmp_path: Path):
    with pytest.raises(ConfigError, match="name at least one entity"):
        audit(original, edited("e", louder), tmp_path / "a")
    with pytest.raises(FileFormatError, match="is not a safetensors file"):
        (tmp_path / "x.safetensors").write_text("no")
        audit(original, tmp_path / "x.safetensors", tmp_path / "a", target=["person-0"], world="tinyworld", bench=bench)
    with pytest.raises(ModelError, match=r"neither a model folder nor a \.safetensors delta"):
        (tmp_path / "x.txt").write_text("no")
        audit(original, tmp_path / "x.txt", tmp_path / "a", target=["person-0"], world="tinyworld", bench=bench)
    own = {EMBED + "s": torch.zeros(2)}
    save_file(own, tmp_path / "y.safetensors")
    with pytest.raises(ModelError, match=r"which the original does not have; nearest: model\.embed_tokens\.weight"):
        audit(original, tmp_path / "y.safetensors", tmp_path / "a", target=["person-0"], world="tinyworld", bench=bench)
    run_folder = tmp_path / "run"
    shutil.copytree(edited("z", louder), run_folder)
    save_file(own, run_folder / "delta.safetensors")
    with pytest.raises(ModelError, match=r"is a run folder; give its .*delta\.safetensors"):
        audit(original, run_folder, tmp_path / "a", target=["person-0"], world="tinyworld", bench=bench)
    assert not (tmp_path / "a").exists()


def test_a_folder_that_holds_something_else_is_left_alone(bench: Workbench, original: Path, edited, tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with pytest.raises(FileFormatError, match="not empty"):
        audit(original, edited("e", louder), tmp_path / "a", target=["person-0"], world="tinyworld", bench=bench)
    assert (tmp_path / "a" / "mine.txt").exists()
    same = audit(
        original, edited("f", louder), tmp_path / "b", target=["person-0"], world="tinyworld", bench=bench, **QUICK
    )
    before = (same.path / "delta.safetensors").stat().st_mtime_ns
    again = audit(
        original, tmp_path / "f", tmp_path / "b", target=["person-0"], world="tinyworld", bench=bench, **QUICK
    )
    assert (again.path / "delta.safetensors").stat().st_mtime_ns == before
    assert RunFolder.open(tmp_path / "b").config()["model"]["edited"] == str(tmp_path / "f")
