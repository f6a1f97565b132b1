"""The site builds without a warning and asks nobody for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data")}
HARMLESS_RELATIONS = {"canonical", "prev", "next", "alternate", "license"}
"""``<link>`` relations that a browser does not fetch."""


class Fetched(HTMLParser):
    """Addresses that a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [given[name] or "" for wanted, name in LOADED if wanted == tag and name in given]
        if tag == "link" and not {*(given.get("rel") or "").split()} & HARMLESS_RELATIONS:
            self.found.append(given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_there_and_fetches_nothing_from_elsewhere(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 200
    for page in pages:
        reader = Fetched()
        reader.feed(page.read_text(encoding="utf-8"))
        outside = [a for a in reader.found if re.match(r"(https?:)?//", a)]
        assert not outside, f"{page.relative_to(site)} fetches {outside}"
        missing = [a for a in reader.found if a and ":" not in a and not (page.parent / a.partition("#")[0]).exists()]
        assert page.name == "404.html" or not missing, f"{page.relative_to(site)} lacks {missing}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_an_error_and_an_export_can_be_found(site: Path):
    assert (site / "search" / "search_index.js").is_file()  # the search of pages that are opened from the file system
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert '"location":"errors/' in index
    assert "interp_unlearn.hooked.capture" in index
