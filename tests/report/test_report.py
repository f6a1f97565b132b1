"""The report as a file: self-contained, escaped, complete, and forgiving about what is missing."""

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from interp_unlearn._core import ConfigError, FileFormatError, read_json, write_json
from interp_unlearn.report import write_report

REPO = Path(__file__).resolve().parents[2]
EVIL = "<script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would see: tags with attributes, text, and the contents of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.text: list[str] = []
        self.inside: dict[str, str | None] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = {"tag": tag, **dict(attrs)}

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside = None

    def handle_data(self, data):
        if self.inside is not None:
            self.raw.append((self.inside, data))
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))

    def figures(self) -> list[dict]:
        return [json.loads(data) for attrs, data in self.raw if attrs.get("type") == "application/json"]


@pytest.fixture(scope="module")
def html(runs, tmp_path_factory):
    out = write_report(runs, tmp_path_factory.mktemp("out") / "report.html")
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture
def light(monkeypatch):
    """Without the 5 MB of plotly, for tests that read the page's own words."""
    monkeypatch.setattr("interp_unlearn.report._html.get_plotlyjs", lambda: "/* plotly */ Plotly.newPlot")


def test_nothing_is_loaded_from_elsewhere(page):
    loading = {"src", "srcset", "href", "action", "data", "poster", "background", "formaction"}
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img"), (tag, attrs)
        for name in loading & set(attrs):
            assert str(attrs[name]).startswith("#"), (tag, attrs)
    styles = [data for attrs, data in page.raw if attrs["tag"] == "style"]
    assert len(styles) == 1
    assert not re.search(r"url\(|@import|https?:", styles[0])
    own = [
        data
        for attrs, data in page.raw
        if attrs["tag"] == "script" and "type" not in attrs and "Plotly.newPlot" in data
    ]
    ours = [data for data in own if len(data) < 20_000]
    assert len(ours) == 1
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|import\(", ours[0])


def test_plotly_is_inside_once_and_the_policy_names_exactly_the_two_scripts(html, page):
    head = get_plotlyjs()[:60]
    assert html.count(head) == 1
    scripts = [data for attrs, data in page.raw if attrs["tag"] == "script" and "type" not in attrs]
    assert len(scripts) == 2
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    hashes = re.findall(r"'sha256-([^']+)'", str(policy))
    assert hashes == [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert str(policy).startswith("default-src 'none'")


def test_every_picture_has_its_data_and_no_number_is_nan(page):
    plots = [a for t, a in page.tags if t == "div" and a.get("class") == "plot"]
    figures = page.figures()
    assert len(plots) == len(figures) >= 25
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    for node in plots:
        assert f"{node['id']}-data" in ids
        assert node["aria-label"]
    assert all(figure["data"] for figure in figures)


def test_headline_shows_saved_numbers_and_marks_the_nearest_to_gold(html, page):
    table = html.split('<table class="headline"')[1].split("</table>")[0]
    rows = re.findall(r"<tr class=\"(?:method|reference)\">(.*?)</tr>", table, re.S)
    names = [re.search(r"<span>([^<]+)</span></span></th>", row.replace("<wbr>", "")).group(1) for row in rows]
    assert names == ["original", "ga", "npo", "sae_guided", "gold"]
    cells = {name: re.findall(r"<td ([^>]*)>(.*?)</td>", row, re.S) for name, row in zip(names, rows, strict=True)}
    text = {name: [re.sub("<[^>]+>", "", value).strip() for _, value in found] for name, found in cells.items()}
    assert text["original"][0] == "0.98"
    assert text["sae_guided"][3] == "0.03"
    assert text["npo"][8] == "+2.4 %"
    assert text["sae_guided"][9] == "0.93 / 1.00"
    assert text["ga"][11] == "0.90 / 0.62"
    assert (text["original"][12], text["ga"][12], text["gold"][12]) == ("0.90", "0.35 / 0.49", "0.49")
    assert "faster than never known" in cells["ga"][12][0]
    assert "faster than never known" not in cells["sae_guided"][12][0]
    assert "backwards" not in table  # no run asked that, and the column is optional
    assert 'class="best"' in cells["sae_guided"][9][1]
    assert not any('class="best"' in value for _, value in cells["gold"] + cells["original"])
    assert "n = 6 prompts" in cells["npo"][3][0]
    assert "95 % interval" in cells["npo"][3][0]
    assert "no second hop leads through a capital" in html  # no column without a number; what was not asked says why


def test_evidence_cards_say_value_control_and_what_they_do_not_show(page):
    assert "What does alignment.t/residual ask?" in page.words
    assert "[0.870 to 0.990]" in page.words
    assert "What it does not show: that knowledge is absent elsewhere" in page.words
    assert "no value: 5 held-out unknown entities; at least 8 are needed for a floor" in page.words


def test_untested_is_computed_from_what_is_absent(page):
    part = page.words.split("What was not tested")[-1]
    assert "Not measured: a linear known/unknown probe." in part
    assert "Not measured: relearning" not in part
    assert "target, multi-hop (no second hop leads through a capital)" in part
    assert "quantising the edited weights" in part
    assert "two_sample.energy/residual could not be computed" in part


def test_provenance_has_settings_versions_parity_and_prompts(page):
    assert "bit-identical" in page.words
    assert "recipe.objective ga npo sae_guided" in page.words
    assert "torch 2.13.0" in page.words
    assert "Countries: a table compiled for this project." in page.words
    assert "answer tokens behaviour" in page.words
    assert "0.441 ✓" not in page.words
    assert "Probability of the answer in each model" in page.words


def test_unknown_arrays_get_a_generic_picture_in_the_appendix(page):
    titles = [a["aria-label"] for t, a in page.tags if a.get("class") == "plot"]
    assert sum("something_new" in str(title) for title in titles) == 3


def test_names_and_prompts_are_escaped_everywhere(make_run, tmp_path, light):
    run = make_run(tmp_path / "run", "npo", target=EVIL)
    html = write_report([run], tmp_path / "evil.html").read_text(encoding="utf-8")
    page = Page(html)
    assert EVIL in page.words  # shown as text …
    assert not [t for t, _ in page.tags if t == "img"]  # … and never as markup
    scripts = [data for attrs, data in page.raw if attrs["tag"] == "script" and "type" not in attrs]
    assert len(scripts) == 2
    assert not any("alert(" in script for script in scripts)
    for figure in page.figures():
        assert "<script" not in json.dumps(figure)
        assert "<img" not in json.dumps(figure)


def test_runs_on_other_targets_get_their_own_chapter(runs, make_run, tmp_path, light):
    other = make_run(tmp_path / "other", "npo", gold=False)
    config = read_json(other / "config.json")
    write_json(other / "config.json", {**config, "model": {"name": "tinyworld"}})
    page = Page(write_report([runs[0], other], tmp_path / "two.html").read_text(encoding="utf-8"))
    assert sum(t == "article" for t, _ in page.tags) == 2
    assert "2 comparisons" in page.words
    assert "No run here has a gold model" in page.words


def test_runs_with_one_name_are_kept_apart(runs, make_run, tmp_path, light):
    again = make_run(tmp_path / "npo-again", "npo")
    page = Page(write_report([runs[1], again, runs[1]], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "npo (npo-again)" in page.words


def test_a_run_with_nothing_but_its_config_says_what_is_missing(runs, tmp_path, light):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(runs[1] / "config.json", bare)
    page = Page(write_report([bare], tmp_path / "r.html").read_text(encoding="utf-8"))
    for said in (
        "npo is not finished (state: unknown; complete so far: nothing).",
        "status.json does not exist",
        "tables/ does not exist",
        "No run saved its behaviour.",
        "No run here saved evidence",
        "No run saved its parity check.",
        "No task.json could be read",
    ):
        assert said in page.words, said


def test_half_written_and_foreign_files_are_named(runs, make_run, tmp_path, light):
    run = make_run(tmp_path / "run", "npo")
    text = (run / "tables" / "behaviour.after.json").read_text()
    (run / "tables" / "behaviour.after.json").write_text(text[: len(text) // 2])
    write_json(run / "tables" / "old.json", {"kind": "labelled", "name": "old"})
    write_json(run / "evidence" / "odd.json", [1, 2])
    (run / "task.json").write_text('["not a task"]')
    write_json(run / "status.json", {"state": "running", "finished": ["before"], "message": "interrupted"})
    with (run / "events.jsonl").open("a") as file:
        file.write('{"kind": "step", "ste')
    page = Page(write_report([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    for said in (
        "behaviour.after.json is not valid JSON",
        "tables/old.json is not a saved result of this version",
        "odd.json is not a saved evidence",
        "task.json holds no object",
        "npo is not finished (state: running; complete so far: before): interrupted",
    ):
        assert said in page.words, said


def test_foreign_folders_are_left_out_or_refused_in_one_sentence(runs, tmp_path, light):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    page = Page(write_report([runs[0], foreign], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert f"{foreign} is not a run folder: it has no config.json" in page.words
    with pytest.raises(FileFormatError, match="is not a run folder"):
        write_report([foreign], tmp_path / "none.html")
    write_json(foreign / "config.json", {"something": "else"})
    with pytest.raises(FileFormatError, match="was not written by interp-unlearn run"):
        write_report([foreign], tmp_path / "none.html")
    with pytest.raises(FileFormatError, match="is not a folder"):
        write_report([tmp_path / "absent"], tmp_path / "none.html")
    with pytest.raises(ConfigError, match="at least one run folder"):
        write_report([], tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_out_may_be_a_folder_and_the_same_runs_give_the_same_bytes(runs, tmp_path, light):
    first = write_report(runs[:1], tmp_path)
    assert first == tmp_path / "report.html"
    before = first.read_bytes()
    assert write_report(runs[:1], tmp_path).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_collapsed_model_with_nan_everywhere_still_gives_a_report(make_run, tmp_path, light):
    run = make_run(tmp_path / "run", "ga", gold=False)
    for path in (run / "tables").glob("*.after.json"):
        table = read_json(path)
        text = json.dumps(table["values"])
        table["values"] = json.loads(re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "NaN", text))
        write_json(path, table)
    page = Page(write_report([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert not any(isinstance(v, float) and math.isnan(v) for f in page.figures() for t in f["data"] for v in _flat(t))
    assert "exact does not apply to any prompt" in " ".join(str(a.get("data-tip")) for _, a in page.tags)


def _flat(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from _flat(item)
    elif isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def test_the_report_never_needs_torch(runs, tmp_path):
    code = f"""
import sys, types
package = types.ModuleType("interp_unlearn")  # without the package's own __init__, which offers names from every room
package.__path__ = [{str(REPO / "interp_unlearn")!r}]
sys.modules["interp_unlearn"] = package
from pathlib import Path
from interp_unlearn.report import write_report
write_report([Path({str(runs[0])!r})], Path({str(tmp_path / "r.html")!r}))
print("torch" in sys.modules, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
