"""Every command in README and the documentation is one that would start: known, with options that exist."""

import ast
import re
import tomllib
from typing import Any

import pytest
import typer.main

from interp_unlearn.cli import app
from interp_unlearn.probes import LEVELS
from interp_unlearn.verdict import LABELS

from .blocks import COMMANDS, OTHERS, PAGES, ROOT, commands_of

FOUND = [found for path in PAGES for found in commands_of(path)]
VALUES = {"--level": LEVELS, "--evidence": LEVELS, "--require": LABELS}
"""Options whose values are checked after the command line was read, and the values they take."""


def of(program: str) -> list[Any]:
    chosen = [(place, words) for place, words in FOUND if words[0] == program]
    return [pytest.param(words[1:], id=f"{' '.join(words)} ({place})") for place, words in chosen]


def test_no_command_is_overlooked():
    assert len(FOUND) > 30
    assert {words[0] for _, words in FOUND} <= {*COMMANDS, *OTHERS}


@pytest.fixture(scope="module")
def command_line() -> Any:
    """The command line with nothing behind it: it reads its arguments and does nothing."""
    command = typer.main.get_command(app)
    waiting = [command]
    while waiting:
        one = waiting.pop()
        one.callback = lambda **_: None
        waiting += getattr(one, "commands", {}).values()
    return command


@pytest.mark.parametrize("words", of("interp-unlearn"))
def test_our_commands_read_their_arguments(words, command_line, capsys, request):
    named_only = "in the text" in request.node.callspec.id and all(w.isalpha() and w.islower() for w in words)
    asked = [*words, "--help"] if named_only else words
    command_line.main(asked, prog_name="interp-unlearn", standalone_mode=False)
    for option, values in VALUES.items():
        if option in words and words[words.index(option) + 1].islower():
            assert words[words.index(option) + 1] in values


@pytest.mark.parametrize("words", of("python"))
def test_scripts_are_there_and_have_the_options(words):
    script, *arguments = words
    source = (ROOT / script).read_text(encoding="utf-8")
    known = {
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        if isinstance(node.args[0], ast.Constant)
    }
    assert {a.partition("=")[0] for a in arguments if a.startswith("--")} <= known


@pytest.mark.parametrize("words", of("make"))
def test_make_has_the_target_and_the_variables(words):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, equals, _ = word.partition("=")
        assert re.search(rf"^{name} *[:?]?=" if equals else rf"^{name}:", makefile, re.MULTILINE), word


@pytest.mark.parametrize("words", of("pip"))
def test_extras_exist(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extra,) = re.findall(r"\[(\w+)\]", " ".join(words))
    assert extra in project["optional-dependencies"]
