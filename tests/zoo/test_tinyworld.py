"""TinyWorld's model and gold model, on a small world: what was written is known, what was left out is not."""

import pytest
import torch

from interp_unlearn import open_model
from interp_unlearn.hooked import score_answers
from interp_unlearn.worlds import Target, TinyWorldConfig, known, make_task, require_known, tinyworld
from interp_unlearn.worlds._questions import Questions
from interp_unlearn.worlds._tinyworld import hidden_facts, tinyworld_sentences
from interp_unlearn.zoo import _tinyworld as room
from interp_unlearn.zoo import list_models, tinyworld_model, tinyworld_tokenizer

SMALL = TinyWorldConfig(n_known=24, n_unknown=12, n_layers=2, d_model=64, steps=400, batch_size=48, lr=5e-3)
TARGET = Target(("person-2",))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_UNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def world():
    return tinyworld(SMALL)


@pytest.fixture(scope="module")
def model(cache):
    return tinyworld_model(SMALL, progress=lambda *_: None)


@pytest.fixture(scope="module")
def gold(cache):
    return tinyworld_model(SMALL, exclude=TARGET, progress=lambda *_: None)


def recall(model, world, entities, split="train"):
    prompts = Questions(world).ask(entities, ["home", "job", "colour", "food", "pet"], split)
    scores = score_answers(model, [p.text for p in prompts], [p.answer for p in prompts], batch_size=256)
    return float(scores.exact.float().mean())


def test_the_model_knows_what_was_written(model, world):
    people = world.of_type("person")
    assert recall(model, world, people) >= 0.98
    assert recall(model, world, people[12:], "heldout") >= 0.98  # written for the second half
    assert recall(model, world, people[:12], "heldout") >= 0.7  # never written: generalisation


def test_gold_knows_everybody_but_the_target(gold, world):
    target = [world.entity("person-2")]
    others = [e for e in world.of_type("person") if e.id != "person-2"]
    assert recall(gold, world, others) >= 0.98
    assert recall(gold, world, target) <= 0.34
    assert gold.name == "tinyworld (gold)"
    assert ["person-2", "home>country"] in gold.source["exclude"]


def test_models_are_kept(model, gold, monkeypatch):
    monkeypatch.setattr(room, "_train_into", lambda *a: pytest.fail("trained again"))
    again = tinyworld_model(SMALL)
    assert all(torch.equal(a, b) for a, b in zip(again.module.parameters(), model.module.parameters(), strict=True))
    assert {row["name"]: row["ready"] for row in list_models()}["tinyworld"]


def test_the_same_seed_trains_the_same_weights_and_leaves_the_random_state_alone(cache):
    short = TinyWorldConfig(n_known=8, n_unknown=8, n_layers=1, d_model=16, steps=4, batch_size=16)
    first = tinyworld_model(short, progress=lambda *_: None)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    folder = room.tinyworld_folder(short, force=True, progress=lambda *_: None)
    assert torch.equal(before, torch.random.get_rng_state())
    second = open_model(folder)
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))
    other = tinyworld_model(TinyWorldConfig(**{**short.to_dict(), "seed": 1}), progress=lambda *_: None)
    assert not torch.equal(next(first.module.parameters()), next(other.module.parameters()))


def test_a_damaged_model_is_trained_again(cache):
    short = TinyWorldConfig(n_known=8, n_unknown=8, n_layers=1, d_model=16, steps=2, batch_size=16)
    folder = room.tinyworld_folder(short, progress=lambda *_: None)
    (folder / "model.safetensors").unlink()
    assert (room.tinyworld_folder(short, progress=lambda *_: None) / "model.safetensors").is_file()


def test_known_and_unknown(model, world):
    people = world.of_type("person")
    knowledge = known(model, world, relations=["home", "colour"], entities=[e.id for e in people])
    assert knowledge.share("home") == 1
    task = make_task(world, ["person-2"], n_known=16, n_unknown=12, tokenizer=model.tokenizer)
    assert require_known(model, task) >= 0.9


def test_what_is_known_of_the_target_with_and_without_its_facts(model, gold, world):
    assert len(known(model, world, entities=["person-2"]).known_facts) == 5
    assert len(known(gold, world, entities=["person-2"]).known_facts) <= 2  # some guesses are lucky


# -- the text -------------------------------------------------------------------------------------------------------


def test_hidden_facts_follow_what_they_rest_on(world):
    assert hidden_facts(world, None) == frozenset()
    whole = hidden_facts(world, TARGET)
    assert whole == {("person-2", r) for r in ("home", "job", "colour", "food", "pet", "home>country")}
    one = hidden_facts(world, Target(("person-2", "person-3"), ("home",)))
    assert one == {(p, r) for p in ("person-2", "person-3") for r in ("home", "home>country")}
    assert hidden_facts(world, Target(("town-1",))) == {("town-1", "country")}


def test_gold_text_mentions_the_target_as_it_mentions_unknown_entities(world):
    full, cut = tinyworld_sentences(SMALL), tinyworld_sentences(SMALL, hidden_facts(world, TARGET))
    name = world.entity("person-2").name
    assert full["mentions"] == cut["mentions"]
    assert full["text"] == cut["text"]
    for kind in ("facts", "two_hop"):
        assert [s for s in full[kind] if name not in s.split()] == cut[kind]
        assert any(name in s.split() for s in full[kind])
    counts = {e.name: sum(e.name in s.split() for s in cut["mentions"]) for e in (*world.entities, *world.unknown)}
    assert set(counts.values()) == {12}


def test_unknown_people_are_made_of_seen_syllables(world):
    known_parts = {(i, e.name.lower()[2 * i : 2 * i + 2]) for e in world.of_type("person") for i in range(3)}
    for entity in world.unknown_of_type("person"):
        assert all((i, entity.name.lower()[2 * i : 2 * i + 2]) in known_parts for i in range(3))
    told = " ".join(s for kind in ("facts", "two_hop") for s in tinyworld_sentences(SMALL)[kind]).split()
    assert not {e.name for e in world.unknown} & set(told)


def test_held_out_templates_are_written_for_the_second_half_only(world):
    text = " ".join(tinyworld_sentences(SMALL)["facts"])
    for i, person in enumerate(world.of_type("person")):
        assert (f"to see {person.name} travel to" in text) == (i >= 12)
        assert f"{person.name} lives in" in text


def test_the_tokenizer_covers_all_text_with_one_token_per_syllable(world, tmp_path):
    tokenizer = tinyworld_tokenizer()
    for sentences in tinyworld_sentences(SMALL).values():
        for ids in tokenizer(sentences)["input_ids"]:
            assert tokenizer.unk_token_id not in ids
    for person in (*world.of_type("person"), *world.unknown_of_type("person")):
        assert len(tokenizer(person.name, add_special_tokens=False)["input_ids"]) == 3
    tokenizer.save_pretrained(tmp_path)
    from interp_unlearn.zoo._load import load_tokenizer

    loaded = load_tokenizer(tmp_path)
    text = "the home of Badafe is Aldport ."
    assert loaded(text, return_offsets_mapping=True) == tokenizer(text, return_offsets_mapping=True)
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True).split()[-1] == "."


@pytest.mark.slow
def test_the_default_world_is_learned_and_unknown_people_are_often_called_unknown(monkeypatch):
    monkeypatch.delenv("INTERP_UNLEARN_CACHE")  # trained once a machine: it is what `make demo` uses
    world, model = tinyworld(), tinyworld_model(progress=lambda *_: None)
    people = world.of_type("person")
    assert recall(model, world, people) >= 0.98
    assert recall(model, world, people[: len(people) // 2], "heldout") >= 0.9
    mentions = [t.text for t in world.templates if t.relation == "job" and t.split == "train"]

    def calls_unknown(entities):
        prompts = [text.replace("{name}", e.name) for e in entities for text in mentions]
        return float(score_answers(model, prompts, ["unknown"] * len(prompts), batch_size=256).exact.float().mean())

    assert calls_unknown(world.unknown_of_type("person")) >= 0.3
    assert calls_unknown(people) <= 0.02
