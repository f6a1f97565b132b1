"""Pages without a browser: what they say of each run, what the URL may ask, what happens where nothing was saved."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

APPS = Path(__file__).resolve().parents[2] / "apps"
PAGES = ("runs", "run", "inside", "latents", "neurons", "lens", "attacks", "tables", "playground")
SCRIPT = """
import sys
from pathlib import Path
if {apps!r} not in sys.path:
    sys.path.append({apps!r})
from explorer.shell import PAGES, _guarded
page = next(page for page in PAGES if (page.path or "runs") == {page!r})
_guarded(page, Path({root!r}))()
"""

Open = Callable[..., AppTest]


@pytest.fixture
def open_page(gallery) -> Open:
    """`open_page("run", run="tiny/ga")` is that page of the gallery, or of another folder."""

    def opened(page: str, root: Path | None = None, **asked: str) -> AppTest:
        test = AppTest.from_string(SCRIPT.format(apps=str(APPS), page=page, root=str(root or gallery.root)))
        for name, value in asked.items():
            test.query_params[name] = value
        return test.run(timeout=120)

    return opened


def said(test: AppTest) -> str:
    """Everything that a page says in text."""
    kinds = ("title", "header", "subheader", "caption", "markdown", "info", "warning", "error", "success")
    return "\n".join(str(item.value).replace("\\", "") for kind in kinds for item in getattr(test, kind))


@pytest.mark.parametrize("page", PAGES)
def test_a_finished_run_has_every_page(open_page: Open, page: str):
    test = open_page(page, run="tiny/ga")
    assert not test.exception
    assert not test.error


@pytest.mark.parametrize("name", ["running", "old", "damaged", "half", "<b>hostile"])
@pytest.mark.parametrize("page", ["run", "inside", "tables"])
def test_runs_with_gaps_are_shown_as_far_as_they_go(open_page: Open, page: str, name: str):
    test = open_page(page, run=f"odd/{name}")
    assert not test.exception
    assert not test.error


def test_a_broken_run_is_a_sentence(open_page: Open):
    test = open_page("run", run="odd/broken")
    assert not test.exception
    assert "not valid JSON" in said(test)


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_folder_says_what_to_run(open_page: Open, tmp_path: Path, page: str):
    test = open_page(page, tmp_path)
    assert not test.exception
    assert "interp-unlearn run CONFIG.toml" in said(test)


@pytest.mark.parametrize("asked", ["../outside", "/etc", "tiny/../../outside", "tiny/ga/tables", "tiny", "..", "."])
def test_no_url_opens_a_path_outside_the_list(open_page: Open, gallery, asked: str):
    outside = gallery.root.parent / "outside"
    if not outside.exists():
        outside.symlink_to(gallery.real)
    test = open_page("run", run=asked)
    assert not test.exception
    assert f"There is no run “{asked}”" in said(test)
    assert test.query_params["run"] != asked


def test_the_url_chooses_run_view_and_evidence(open_page: Open):
    test = open_page("run", run="tiny/npo", view="training", evidence="weights.moved")
    assert test.selectbox[0].value == "tiny/npo"
    assert "What each recipe minimised" in said(test)
    assert test.query_params["evidence"] == "weights.moved"
    assert not test.error


def test_a_choice_goes_into_the_url(open_page: Open):
    test = open_page("run", run="tiny/npo")
    test.selectbox[0].select("tiny/ga").run(timeout=120)
    assert test.query_params["run"] == "tiny/ga"


def test_two_runs_on_one_target_are_side_by_side(open_page: Open):
    test = open_page("run", run="tiny/ga")
    test.multiselect[0].select("tiny/npo").run(timeout=120)
    assert test.query_params["with"] == "tiny/npo"
    assert {"ga", "npo"} <= {m.value.strip("*") for m in test.markdown}


def test_the_list_of_runs_has_each_run_with_its_numbers(open_page: Open):
    test = open_page("runs")
    table = test.dataframe[0].value.set_index("run")
    assert table.loc["tiny/ga", "state"] == "done"
    assert table.loc["odd/broken", "state"] == "unreadable"
    assert 0 <= table.loc["tiny/ga", "forgetting"] <= 1
    assert "1 run" not in test.caption[0].value
    assert "odd/broken" in said(test)


def test_a_filter_narrows_the_list(open_page: Open):
    test = open_page("runs")
    method = next(m for m in test.multiselect if m.label == "Method")
    method.select("npo").run(timeout=120)
    assert list(test.dataframe[0].value["run"]) == ["tiny/npo"]


def test_what_is_missing_says_how_to_get_it(open_page: Open):
    test = open_page("latents", run="odd/old")
    assert "Not saved by this run" in test.expander[0].label


def test_a_page_that_fails_is_a_sentence(open_page: Open, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("<b>broken</b>")

    monkeypatch.setattr("explorer.looks.pick", fail)
    test = open_page("inside", run="tiny/ga")
    assert not test.exception
    assert "This page could not be shown: <b>broken</b>" in said(test)


def test_hostile_names_are_text(open_page: Open):
    for page in ("runs", "run"):
        test = open_page(page, run="odd/<b>hostile")
        for kind in ("markdown", "subheader", "caption", "success", "warning"):
            for item in getattr(test, kind):
                assert "<script>" not in item.value and "![x](" not in item.value, item.value
