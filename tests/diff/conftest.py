"""Labelled rows in two phases."""

from collections.abc import Callable, Iterator

import pytest
import torch
from threadpoolctl import threadpool_limits

from interp_unlearn.hooked import Activations

SITES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
GROUPS = ["target"] * 8 + ["known_eval"] * 12


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on matrices this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1, user_api="blas"):
        yield
    torch.set_num_threads(threads)


def labelled(values: dict[str, torch.Tensor]) -> Activations:
    n = len(GROUPS)
    tokens = torch.arange(n)[:, None]
    labels = {"group": GROUPS, "entity": [f"e{i}" for i in range(n)]}
    full = {site: v[:, None] for site, v in values.items()}
    return Activations(full, tokens, tokens >= 0, tokens, "last token of the name", labels)


@pytest.fixture
def rows() -> Callable[..., Activations]:
    """Normal rows at both sites; ``shift`` is added to the target's rows at the first site."""

    def make(shift: float = 0.0, d: int = 6) -> Activations:
        generator = torch.Generator().manual_seed(0)
        values = {site: torch.randn(len(GROUPS), d, generator=generator) for site in SITES}
        values[SITES[0]][:8, 0] += shift
        return labelled(values)

    return make
