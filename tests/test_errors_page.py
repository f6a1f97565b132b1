"""docs/errors.md quotes messages that the code really raises, and says for each why it comes and what to do."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### `([^\n]+)`\n(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)


def written(node: ast.AST) -> str | None:
    """A text in the source with … for what varies; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) or "…" for part in node.values)
    return None


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Every text in the package's source."""
    files = sorted((ROOT / "interp_unlearn").rglob("*.py"))
    trees = (ast.walk(ast.parse(f.read_text(encoding="utf-8"))) for f in files)
    return [" ".join(text.split()) for nodes in trees for text in map(written, nodes) if text]


def pattern(message: str) -> re.Pattern[str]:
    """Matches the message, each … standing for anything."""
    return re.compile(".*".join(re.escape(part) for part in message.split("…")))


def test_the_page_has_entries():
    assert len(ENTRIES) > 50
    assert len({message for message, _ in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("message", [message for message, _ in ENTRIES])
def test_the_message_is_in_the_code(message, texts):
    wanted = pattern(message)
    assert any(wanted.search(text) for text in texts), f"nothing in the code says: {message}"


@pytest.mark.parametrize(("message", "body"), ENTRIES, ids=[message for message, _ in ENTRIES])
def test_cause_and_fix_are_given(message, body):
    assert "**Cause.**" in body
    assert "**Fix.**" in body


def test_every_class_is_explained():
    source = ast.parse((ROOT / "interp_unlearn" / "_core" / "_errors.py").read_text(encoding="utf-8"))
    names = {node.name for node in source.body if isinstance(node, ast.ClassDef)}
    missing = {name for name in names if f"`{name}`" not in PAGE}
    assert not missing
