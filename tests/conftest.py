"""What holds for every test: no network, few threads, shapes that are checked, data that may be absent."""

import os

# Read by the libraries when they are imported, so they must be set before anything else.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    WANDB_MODE="disabled",
    STREAMLIT_BROWSER_GATHER_USAGE_STATS="false",
    TOKENIZERS_PARALLELISM="false",
)

from jaxtyping import install_import_hook

# Before the package is first imported: every annotation in it is checked whenever a test calls the function.
install_import_hook("interp_unlearn", "beartype.beartype")

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import pytest_socket
import torch

hypothesis.settings.register_profile("any machine", deadline=None)  # a test's time depends on what else runs
hypothesis.settings.load_profile("any machine")
torch.set_num_threads(1)  # tiny models gain nothing from more, and suffer badly where other programs are busy

REPO = Path(__file__).resolve().parents[1]
LOCALHOST = ["127.0.0.1", "::1", "localhost"]


def pytest_sessionstart() -> None:
    """Block sockets while the test files are imported, too."""
    pytest_socket.disable_socket(allow_unix_socket=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Block sockets for every test, before any of its fixtures.

    An autouse fixture would come too late: fixtures of a wider scope run before it. pytest-socket lifts the
    block at the end of each test. Unix sockets stay open, because event loops need them.
    """
    if item.get_closest_marker("allow_localhost"):
        pytest_socket.enable_socket()
        pytest_socket.socket_allow_hosts(LOCALHOST, allow_unix_socket=True)
    else:
        pytest_socket.disable_socket(allow_unix_socket=True)


def find_data() -> Path | None:
    """The optional data folder: $INTERP_UNLEARN_DATA, else ../shared/data next to the repository."""
    named = os.environ.get("INTERP_UNLEARN_DATA")
    folder = Path(named).expanduser() if named else REPO.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The optional data folder; tests that ask for it are skipped where it is absent."""
    folder = find_data()
    if folder is None:
        named = os.environ.get("INTERP_UNLEARN_DATA")
        pytest.skip(
            f"INTERP_UNLEARN_DATA names {named}, which is not a folder"
            if named
            else "no data folder: set INTERP_UNLEARN_DATA to the folder that holds tofu/, entities/, …"
        )
    return folder


@pytest.fixture(scope="session")
def need_data(data_dir: Path) -> Callable[..., Path]:
    """`need_data("tofu", "full.json")` is the path of that file; the test is skipped where it is absent."""

    def need(*parts: str) -> Path:
        path = data_dir.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"the data folder has no {'/'.join(parts)}")
        return path

    return need
