"""Everything that is registered has a page, in the navigation, that says what it must."""

import re
from pathlib import Path

import pytest

import interp_unlearn.runs  # noqa: F401  (registers every part)
from interp_unlearn.attacks import attacks
from interp_unlearn.metrics import METRICS
from interp_unlearn.probes import PARTS
from interp_unlearn.unlearn import OBJECTIVES, SAMPLERS, TRANSFORMS
from interp_unlearn.worlds import EVERY_MODALITY

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDERS = {"probe": "probes", "attack": "attacks", "behaviour": "metrics"}
METHODS = sorted({*OBJECTIVES, *TRANSFORMS, *SAMPLERS})
VIEWS = sorted(name for name in PARTS if PARTS[name].kind == "view")
EVIDENCE = sorted(
    {(FOLDERS[PARTS[name].kind], name) for name in PARTS if name not in VIEWS} | {("attacks", name) for name in attacks}
)


def page(folder: str, name: str) -> str:
    path = DOCS / folder / f"{name}.md"
    assert path.is_file(), f"{name} is registered and has no page: write docs/{folder}/{name}.md"
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_page(name):
    text = page("methods", name)
    assert re.search(r"^    \S", text, re.MULTILINE), "no formula"
    for part in ("costs?", "tends to hide inside", "(reconstructed|differs?|different)"):
        assert re.search(rf"^## .*{part}", text, re.IGNORECASE | re.MULTILINE), f"no section on: {part}"
    assert "```toml" in text, "no example"
    index = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    assert f"[`{name}`]({name}.md)" in index, "not in the overview"


def test_the_overview_says_what_works_on_every_kind_of_model():
    index = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    said = re.search(r"Of the objectives above, (.*?) read labelled items", index, re.DOTALL)
    assert said is not None
    everywhere = {name for name in OBJECTIVES if OBJECTIVES[name].modalities == EVERY_MODALITY}
    assert set(re.findall(r"`(\w+)`", said[1])) == everywhere - {"delete", "scrub"}  # which have rows of their own


@pytest.mark.parametrize(("folder", "name"), EVIDENCE)
def test_a_part_of_the_evidence_has_its_page(folder, name):
    text = page(folder, name)
    for word in ("cost", "not show", "control"):
        assert word in text.lower(), f"says nothing about: {word}"
    index = (DOCS / folder / "index.md").read_text(encoding="utf-8")
    assert f"]({name}.md)" in index, "not in the overview"


@pytest.mark.parametrize("name", VIEWS)
def test_a_part_for_pictures_is_on_their_page(name):
    assert f"`{name}`" in (DOCS / "views.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_has_its_page(name):
    text = page("metrics", name)
    said = " ".join(text.split())
    facts = METRICS[name]
    assert text.lower().startswith(f"# {facts.title}\n".lower())
    for fact in (facts.formula, facts.reference, *facts.failure_modes):
        assert " ".join(fact.split()) in said, f"docs/metrics/{name}.md lacks: {fact}"
    assert "**Cost.**" in text
    index = (DOCS / "metrics" / "index.md").read_text(encoding="utf-8")
    assert f"[`{name}`]({name}.md)" in index, "not in the overview"


def test_every_room_is_in_the_reference():
    rooms = {p.parent.name for p in (DOCS.parent / "interp_unlearn").glob("*/__init__.py")} - {"_core", "cli"}
    assert {p.stem for p in (DOCS / "reference").glob("*.md")} == {*rooms, "index"}


@pytest.mark.parametrize("folder", ["methods", "probes", "attacks", "metrics"])
def test_no_page_is_left_behind(folder):
    known = {"methods": {*METHODS, "melu"}, "metrics": {*METRICS}}.get(folder, set())
    known |= {name for where, name in EVIDENCE if where == folder} | {"index"}
    assert {p.stem for p in (DOCS / folder).glob("*.md")} <= known
