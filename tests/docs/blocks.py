"""Code blocks of README and the documentation: Python, commands, configs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCED = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`(interp-unlearn [^`\n]+)`")
COMMANDS = ("interp-unlearn", "python", "make", "pip")
OTHERS = ("ray", "peer/bin/python", ".venv/bin/pytest")
"""Programs that a page may name and that are not ours to check."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: Path relative to the repository.
        line: Where it begins.
        language: As written behind the fence.
        text: Its lines.
        why_not: Why it is not run, if it is not.
    """

    page: str
    line: int
    language: str
    text: str
    why_not: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    page = str(path.relative_to(ROOT))
    return [
        Block(page, text[: m.start("text")].count("\n") + 1, m["language"], m["text"], m["why"] or "")
        for m in FENCED.finditer(text)
    ]


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


def commands_of(path: Path) -> list[tuple[str, list[str]]]:
    """(place, words) of every command of a page: in shell blocks, indented, or in the running text."""
    text = path.read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []
    for block in blocks_of(path):
        if block.language == "bash":
            found += [(str(block), line) for line in block.text.splitlines() if line.strip()]
    for number, line in enumerate(FENCED.sub("", text).splitlines(), 1):
        if line.startswith("    ") and line.split()[0] in COMMANDS:
            found.append((f"{path.relative_to(ROOT)}, line {number} without fences", line))
        found += [(f"{path.relative_to(ROOT)}, in the text", m) for m in INLINE.findall(line)]
    return [(place, shlex.split(line, comments=True)) for place, line in found]
