"""The suite runs with the network off, and importing the package touches nothing."""

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_socket import SocketBlockedError, SocketConnectBlockedError

PACKAGE = Path(__file__).resolve().parents[1] / "interp_unlearn"

# Importing any of these takes seconds or needs an extra: import them inside the functions that use them.
HEAVY = (
    "nnsight",
    "peft",
    "ray",
    "sae_lens",
    "streamlit",
    "timm",
    "torch_geometric",
    "transformer_lens",
)

# Runs in a fresh interpreter: every way to the network raises, and the state of the process is compared.
PROBE = """
import json, logging, os, random, signal, socket, sys, threading, warnings

attempts = []

def blocked(*args, **kwargs):
    attempts.append(repr(args)[:200])
    raise RuntimeError("the network is off")

class BlockedSocket(socket.socket):
    def __init__(self, *args, **kwargs):
        blocked(*args)

socket.socket = BlockedSocket
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = blocked

import numpy, torch

def state():
    return {
        "working directory": os.getcwd(),
        "environment": sorted(os.environ.items()),
        "threads": [t.name for t in threading.enumerate()],
        "logging": [logging.root.level, len(logging.root.handlers)],
        "warning filters": len(warnings.filters),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "exception hook": repr(sys.excepthook),
        "random": [
            hash(random.getstate()),
            numpy.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        ],
        "torch": [
            str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        ],
    }

before = state()
import interp_unlearn
after = state()
print(json.dumps({
    "attempts": attempts,
    "changed": [name for name in before if before[name] != after[name]],
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
}))
"""


def test_sockets_are_blocked():
    with pytest.warns(UserWarning, match="tried to use socket"), pytest.raises(SocketBlockedError):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with pytest.warns(UserWarning, match="tried to use socket"), pytest.raises(SocketBlockedError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.warns(UserWarning, match="getaddrinfo"), pytest.raises(SocketBlockedError):
        socket.getaddrinfo("example.org", 80)


def test_unix_sockets_are_open():
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"


@pytest.mark.allow_localhost
def test_allow_localhost_opens_this_machine_and_nothing_else():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()
    with (
        socket.socket() as outside,
        pytest.warns(UserWarning, match=r"192\.0\.2\.1"),
        pytest.raises(SocketConnectBlockedError),
    ):
        outside.connect(("192.0.2.1", 80))  # an address reserved for documentation


def test_the_hub_is_off():
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE


@pytest.fixture(scope="module")
def fresh_import(tmp_path_factory) -> dict:
    """`import interp_unlearn` in a fresh interpreter, with an empty home and an empty working directory."""
    home, cwd = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("cwd")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "COV_"))}
    env.update(HOME=str(home), PYTHONPATH=str(PACKAGE.parent), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    found["files"] = [str(path) for folder in (home, cwd) for path in folder.rglob("*")]
    return found


def test_import_makes_no_network_call(fresh_import):
    assert fresh_import["attempts"] == []


def test_import_sets_nothing_up(fresh_import):
    assert fresh_import["changed"] == [], "`import interp_unlearn` changed the process it was imported into"
    assert fresh_import["files"] == [], "`import interp_unlearn` wrote files"


def test_import_loads_no_heavy_package(fresh_import):
    loaded = sorted(set(HEAVY) & set(fresh_import["modules"]))
    assert not loaded, f"`import interp_unlearn` also imports {loaded}: import them where they are used"


def heavy_imports(tree: ast.AST) -> list[tuple[int, str]]:
    """Heavy packages imported as soon as the module is: outside functions and `if TYPE_CHECKING:`."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            found += heavy_imports(ast.Module(body=node.orelse, type_ignores=[]))
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            found += heavy_imports(node)
            continue
        found += [(node.lineno, name) for name in names if name.split(".")[0] in HEAVY]
    return found


def test_heavy_packages_are_imported_inside_functions():
    late = [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {name} at the top: import it where it is used"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, name in heavy_imports(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not late, "\n".join(late)


def test_heavy_imports_sees_what_it_should():
    source = """
from typing import TYPE_CHECKING
import torch
if TYPE_CHECKING:
    import peft
else:
    import timm
try:
    from sae_lens.saes import SAE
except ImportError:
    SAE = None
class A:
    import nnsight
    def f(self):
        import streamlit
"""
    assert [name for _, name in heavy_imports(ast.parse(source))] == ["timm", "sae_lens.saes", "nnsight"]
