"""Imports between the package's rooms point one way: a room may use those below it, never those above.

A new room is entered in RANKS. A room may import rooms of a strictly lower rank and itself; within one rank
only the pairs in BESIDE are allowed. Imports inside functions count like any other.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "interp_unlearn"

RANKS = {
    "_core": 0,  # tiny shared helpers: errors, seeds, atomic files, registry
    "hooked": 1,  # look inside any model
    "zoo": 2,  # where models come from
    "worlds": 2,  # ground-truth facts
    "benchmarks": 2,  # published benchmarks
    "turbulence": 2,  # solver, environment and policy: models of their own
    "latents": 3,
    "neurons": 3,
    "probes": 3,
    "unlearn": 4,
    "attacks": 4,
    "metrics": 4,
    "diff": 4,
    "verdict": 5,
    "runs": 6,
    "report": 7,
    "cli": 8,
}

# Within one rank: who may import whom.
BESIDE = {
    ("zoo", "worlds"),  # a TinyWorld model is trained on its world
    ("benchmarks", "worlds"),  # a graph or image data set makes tasks of labelled items
    ("zoo", "benchmarks"),  # a graph or image model is trained on its data set
    ("probes", "latents"),
    ("unlearn", "metrics"),  # metrics is the lowest within its rank
    ("attacks", "metrics"),
    ("diff", "metrics"),
}

# The package's own __init__ offers names from every room but the command line; __main__ starts the latter.
TOP = {"__init__": RANKS["cli"], "__main__": RANKS["cli"] + 1}

# Views never compute: these rooms may not import these packages.
FORBIDDEN = {"report": {"torch"}}

# Names of the package itself, rather than of a room, that any room may import.
PACKAGE_NAMES = {"__version__"}


def room_of(path: Path) -> str:
    """The room of a source file: the folder, or the module's name, right below the package."""
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def imports(source: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of all a file imports, in functions and by `import_module("…")` too."""
    parts = path.relative_to(ROOT).parts[:-1]  # the package a relative import starts from
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(parts[: len(parts) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant) and str(named.value).startswith(PACKAGE):
                yield node.lineno, str(named.value)


def may_import(room: str, other: str) -> bool:
    """Whether `room` may import `other`; both are known."""
    rank = TOP.get(room, RANKS.get(room, -1))
    return room == other or RANKS[other] < rank or (room, other) in BESIDE


def complaints(source: str, path: Path) -> list[str]:
    """One sentence for each import of this file that points the wrong way."""
    room = room_of(path)
    if room not in RANKS and room not in TOP:
        return [f"{path.relative_to(ROOT)}: unknown room '{room}'; give it a rank in RANKS in {__file__}"]
    found = []
    for line, name in imports(source, path):
        where = f"{path.relative_to(ROOT)}:{line}"
        package, *rest = name.split(".")
        if package != PACKAGE:
            if package in FORBIDDEN.get(room, ()):
                found.append(f"{where}: '{room}' may not import {package}: views read saved results only")
            continue
        other = rest[0] if rest else ""
        if other in PACKAGE_NAMES:
            continue
        if other not in RANKS:
            found.append(
                f"{where}: imports {name}, which names no known room. Import from the room that has it; "
                f"if '{other}' is a new room, give it a rank in RANKS in {__file__}"
            )
        elif not may_import(room, other):
            found.append(
                f"{where}: '{room}' may not import '{other}' (ranks {TOP.get(room, RANKS.get(room))} and "
                f"{RANKS[other]}): move the shared part down, or enter the pair in BESIDE with its reason"
            )
    return found


def test_imports_point_one_way():
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    assert files, f"no source files below {ROOT / PACKAGE}"
    found = [said for path in files for said in complaints(path.read_text(encoding="utf-8"), path)]
    assert not found, "\n".join(found)


def test_pairs_in_one_rank_form_no_circle():
    for one, other in BESIDE:
        assert RANKS[one] == RANKS[other], f"{one} and {other} have different ranks: the pair is not needed"
        assert (other, one) not in BESIDE, f"{one} and {other} import each other"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("zoo/tiny.py", "from interp_unlearn.worlds import TinyWorld"),
        ("zoo/tiny.py", "from ..hooked import capture"),
        ("zoo/tiny.py", "from .gguf import load"),
        ("zoo/__init__.py", "from .gguf import load"),
        ("probes/linear.py", "import interp_unlearn.latents.sae"),
        ("attacks/relearn.py", "from interp_unlearn import metrics, __version__"),
        ("report/html.py", "import plotly"),
        ("__init__.py", "from .hooked import capture"),
        ("__main__.py", "from interp_unlearn.cli import app"),
        ("cli.py", "from interp_unlearn import report"),
    ],
)
def test_allowed(path, line):
    assert complaints(line, ROOT / PACKAGE / path) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("hooked/capture.py", "from interp_unlearn.zoo import open_model"),
        ("hooked/capture.py", "from .. import zoo"),
        ("hooked/deep/down.py", "from ...zoo import open_model"),
        ("hooked/capture.py", "def f():\n    from ..zoo import open_model"),
        ("hooked/capture.py", "importlib.import_module('interp_unlearn.zoo')"),
        ("worlds/tiny.py", "from interp_unlearn.zoo import tiny"),
        ("metrics/rouge.py", "from interp_unlearn.unlearn import loop"),
        ("zoo/tiny.py", "from interp_unlearn import open_model"),
        ("zoo/tiny.py", "import interp_unlearn"),
        ("runs/run.py", "from interp_unlearn.cli import app"),
        ("__init__.py", "from .cli import app"),
        ("report/html.py", "def f():\n    import torch.nn"),
        ("report/html.py", "from torch import nn"),
        ("cellar/wine.py", "import os"),
        ("runs/run.py", "from interp_unlearn.cellar import wine"),
    ],
)
def test_refused(path, line):
    assert len(complaints(line, ROOT / PACKAGE / path)) == 1
