"""What the site adds to the pages: one page per error, made from ``errors.md``.

In the repository ``errors.md`` is one page that can be searched; on the site it is an index, and every entry a page.
"""

from __future__ import annotations

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SOURCE = "errors.md"
ENTRY = re.compile(r"^### `([^\n]+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")


def slug(message: str) -> str:
    """A file name from the words of a message that do not vary."""
    words = re.findall(r"[a-z0-9]+", message.lower())
    return "-".join(words[:12])


def entries(markdown: str) -> list[tuple[str, str, str]]:
    """Slug, message and text of every entry.

    Raises:
        ValueError: If two messages begin alike, so that their pages would have one name.
    """
    found = [(slug(message), message, body.strip()) for message, body in ENTRY.findall(markdown)]
    names = [name for name, _, _ in found]
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise ValueError(f"{SOURCE}: two entries would have the page errors/{double.pop()}.md; word one otherwise")
    return found


def page_of(message: str, body: str) -> str:
    """The page of one error."""
    body = LINK.sub(r"](../\1)", body).replace("\n**Fix.**", "\n\n**Fix.**")
    return (
        f"# {escaped(message)}\n\n{body}\n\n"
        f"`…` stands for what varies. [All errors](../{SOURCE}), and what their classes mean.\n"
    )


def index_of(markdown: str) -> str:
    """The index: every entry as a line that links to its page."""
    return ENTRY.sub(lambda m: f"- [{escaped(m[1])}](errors/{slug(m[1])}.md)\n", markdown)


def escaped(message: str) -> str:
    """A message as the text of a link."""
    return re.sub(r"([\[\]*_`<>])", r"\\\1", message)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every error."""
    source = files.get_file_from_path(SOURCE)
    assert source is not None
    for name, message, body in entries(source.content_string):
        files.append(File.generated(config, f"errors/{name}.md", content=page_of(message, body)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make the page of errors an index."""
    return index_of(markdown) if page.file.src_uri == SOURCE else markdown
