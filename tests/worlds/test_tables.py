"""The shipped tables and templates: enough of everything, and no question gives its answer away."""

import re

import pytest

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.worlds import direct_relations, fill_mention, list_worlds, load_world
from interp_unlearn.worlds._questions import PLACEHOLDER, Questions
from interp_unlearn.worlds._real import general_text
from interp_unlearn.worlds._templates import MENTIONS, QUESTIONS, templates_for


def test_there_are_enough_countries_and_people(countries, people):
    assert len(countries.entities) >= 150
    assert len(people.entities) >= 100
    assert direct_relations(countries, "country") == (
        "capital", "continent", "currency", "demonym", "language", "neighbour",
    )  # fmt: skip
    assert direct_relations(people, "person") == ("field", "nationality", "occupation", "work")
    for world in (countries, people):
        assert world.sources
        ids = [e.id for e in (*world.entities, *world.unknown)]
        assert len(set(ids)) == len(ids)
        names = [n.casefold() for e in world.entities for n in (e.name, *e.aliases)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "relation", "answer"),
    [
        ("Japan", "capital", "Tokyo"),
        ("Netherlands", "capital", "Amsterdam"),
        ("UK", "language", "English"),
        ("Swaziland", "currency", "lilangeni"),
        ("brazil", "continent", "South America"),
        ("Kenya", "demonym", "Kenyan"),
    ],
)
def test_known_facts_are_right_under_any_name(countries, name, relation, answer):
    facts = {f.relation: f.answer for f in countries.facts_of(countries.entity(name).id)}
    assert facts[relation] == answer


def test_every_country_has_a_continent_and_neighbours_are_mutual(countries):
    facts = {e.id: {f.relation: f for f in countries.facts_of(e.id)} for e in countries.entities}
    named = {e.name: e.id for e in countries.entities}
    for entity in countries.entities:
        assert "currency" in facts[entity.id], entity.name
        fact = facts[entity.id].get("neighbour")
        for neighbour in (fact.answer, *fact.also) if fact else ():
            if neighbour in named:
                back = facts[named[neighbour]].get("neighbour")
                if back is None:  # its canonical neighbour can be read off its name
                    continue
                assert entity.name in (back.answer, *back.also), (entity.name, neighbour)


@pytest.mark.parametrize("type", sorted(QUESTIONS))
def test_there_are_templates_enough_and_none_twice(type):
    for relation, (train, held) in QUESTIONS[type].items():
        if ">" in relation or relation in ("capital_of", "work_by"):
            assert not train and held
        else:
            least = (4, 6) if relation == "capital" else (3, 3)
            assert (len(train), len(held)) >= least
            assert any("Question:" in t for t in train)
    train, held = MENTIONS[type]
    assert min(len(train), len(held)) >= 6
    templates = templates_for(type)
    assert len({t.text for t in templates}) == len(templates)
    assert len({t.id for t in templates}) == len(templates)
    for template in templates:
        assert len(PLACEHOLDER.findall(template.text)) == 1
        assert template.text == template.text.strip()
        assert template.relation or "{name}" in template.text


def test_no_question_gives_its_answer_away(countries, people):
    for world in (countries, people):
        for split in ("train", "heldout"):
            relations = [r for r in direct_relations(world, world.types[0]) if r != "demonym"]
            for prompt in Questions(world).ask(world.entities, relations, split):
                if prompt.relation == "capital" and prompt.answer.startswith(world.entity(prompt.entity).name):
                    continue  # Mexico City and its like
                assert not re.search(rf"\b{re.escape(prompt.answer)}\b", prompt.text), prompt


def test_spans_cover_what_stands_for_the_entity(countries):
    japan = countries.entity("Japan")
    questions = Questions(countries)
    for prompt in questions.ask([japan], ["capital", "currency"], "heldout"):
        assert prompt.text[slice(*prompt.name_span)] == "Japan"
    (first, *_) = questions.ask([japan], ["capital_of"], "heldout", backwards=True)
    assert (first.full, first.text[slice(*first.name_span)]) == ("Tokyo is the capital of Japan", "Tokyo")
    for template in countries.templates:
        if not template.relation:
            mention = fill_mention(template, japan)
            assert mention.text[slice(*mention.name_span)] == "Japan"


def test_options_are_wrong_and_of_the_same_relation(countries):
    capitals = {f.answer for f in countries.facts if f.relation == "capital"}
    right = {f.subject: {f.answer, *f.also} for f in countries.facts if f.relation == "capital"}
    for prompt in Questions(countries).ask(countries.entities, ["capital"], "train"):
        assert len(prompt.options) == 10 == len(set(prompt.options))
        assert set(prompt.options) <= capitals - right[prompt.entity]


def test_two_hops_arrive(countries, people):
    curie = Questions(people).ask([people.entity("Marie Curie")], ["nationality>capital"], "heldout", hops=2)
    assert curie[0].full == "The capital of the country that Marie Curie came from is Warsaw"
    japan = Questions(countries).ask([countries.entity("Japan")], ["capital>currency"], "heldout", hops=2)
    assert japan[0].full == "The currency of the country whose capital is Tokyo is the yen"


def test_two_hops_are_left_out_where_a_fact_fits_several(countries):
    for name in ("Dominica", "Dominican Republic", "Republic of the Congo"):
        assert "demonym>capital" not in {f.relation for f in countries.facts_of(countries.entity(name).id)}


def test_text_names_nobody_of_the_tables(countries, people):
    train, held = general_text()
    assert min(len(train), len(held)) >= 25
    assert not set(train) & set(held)
    names = [n for w in (countries, people) for e in w.entities for n in (e.name.removeprefix("the "), *e.aliases)]
    names += [f.answer for f in countries.facts if f.relation == "capital"]
    text = " ".join((*train, *held))
    assert [n for n in names if re.search(rf"\b{re.escape(n)}\b", text)] == []


def test_another_text_can_be_used(tmp_path):
    (tmp_path / "text.txt").write_text("one\n\ntwo\nlines\n\n\nthree\n\nfour")
    world = load_world("countries", corpus=tmp_path / "text.txt")
    assert (world.text_train, world.text_eval) == (("one", "two lines"), ("three", "four"))
    assert str(tmp_path / "text.txt") in world.sources[-1]
    with pytest.raises(DataError, match="does not exist"):
        load_world("countries", corpus=tmp_path / "no.txt")
    (tmp_path / "text.txt").write_text("one")
    with pytest.raises(DataError, match="1 paragraphs"):
        load_world("countries", corpus=tmp_path / "text.txt")


# -- load_world -----------------------------------------------------------------------------------------------------


def test_unknown_worlds_and_options_show_the_nearest():
    assert {row["name"] for row in list_worlds()} >= {"tinyworld", "countries", "people", "cities", "songs"}
    with pytest.raises(ConfigError, match="unknown world 'country'; nearest: countries"):
        load_world("country")
    with pytest.raises(ConfigError, match="no option 'n_unknwon'; nearest: n_unknown"):
        load_world("countries", n_unknwon=3)
    with pytest.raises(ConfigError, match="no option 'limit'"):
        load_world("countries", limit=3)
    with pytest.raises(ConfigError, match=r"tinyworld\.n_known = 2"):
        load_world("tinyworld", n_known=2)


def test_entity_files(tmp_path):
    folder = tmp_path / "entities"
    folder.mkdir()
    (folder / "city.json").write_text(
        '[{"qid": "Q1", "name": "Osakari", "country": "Japan"}, {"qid": "Q2", "name": "Lyonelle", "country": "France"},'
        '{"qid": "Q3", "name": "Berolin", "country": "Atlantis"}]'
    )
    world = load_world("cities", data_dir=tmp_path, n_unknown=4)
    assert [e.id for e in world.entities] == ["Q1", "Q2", "Q3"]
    assert {f.relation: f.answer for f in world.facts_of("Q1")} == {
        "country": "Japan", "country>continent": "Asia", "country>currency": "yen",
    }  # fmt: skip
    assert len(world.facts_of("Q3")) == 1
    assert load_world("cities", data_dir=tmp_path, n_unknown=4, limit=2).entities == world.entities[:2]


@pytest.mark.parametrize("name", ["cities", "movies", "songs", "players"])
def test_real_entity_files(name, need_data):
    data = need_data("entities").parent
    world = load_world(name, data_dir=data, n_unknown=20, limit=60)
    assert len(world.entities) == 60
    for relation in direct_relations(world, world.types[0]):
        assert sum(f.relation == relation for f in world.facts) > 30
    prompts = Questions(world).ask(world.entities, direct_relations(world, world.types[0]), "heldout")
    assert all(p.text[slice(*p.name_span)] == world.entity(p.entity).name for p in prompts)


def test_a_missing_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("INTERP_UNLEARN_DATA", raising=False)
    with pytest.raises(DataError, match=r"needs entities/city.json of the data folder; pass data_dir"):
        load_world("cities")
    with pytest.raises(DataError, match=r"has no entities/city.json"):
        load_world("cities", data_dir=tmp_path)
    (tmp_path / "entities").mkdir()
    (tmp_path / "entities" / "city.json").write_text('{"qid": 1}')
    with pytest.raises(DataError, match="must hold a JSON list"):
        load_world("cities", data_dir=tmp_path)
