"""Small SAEs, sparse synthetic data and a tiny random language model."""

import pytest
import torch
from torch import Tensor

from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.latents import SAE

from ..tiny_models import tiny_module, word_tokenizer

SITE = "blocks.1.hook_resid_post"


def make_sae(kind: str = "relu", d: int = 16, m: int = 48, seed: int = 0, **options: object) -> SAE:
    g = torch.Generator().manual_seed(seed)
    w_dec = torch.randn(m, d, generator=g)
    w_dec = w_dec / w_dec.norm(dim=1, keepdim=True)
    if kind in ("jumprelu", "batchtopk"):
        options.setdefault("threshold", torch.rand(m, generator=g))
    if kind == "topk":
        options.setdefault("k", 6)
    return SAE(
        w_dec.T.clone() + 0.1 * torch.randn(d, m, generator=g),
        0.1 * torch.randn(m, generator=g),
        w_dec,
        torch.randn(d, generator=g),
        kind=kind,  # type: ignore[arg-type]
        site=SITE,
        **options,  # type: ignore[arg-type]
    )


def sparse_rows(n: int, d: int = 32, m: int = 64, on: int = 2, seed: int = 0) -> Tensor:
    """Sums of ``on`` of ``m`` fixed unit directions with positive weights, plus a mean."""
    g = torch.Generator().manual_seed(123)
    atoms = torch.randn(m, d, generator=g)
    atoms = atoms / atoms.norm(dim=1, keepdim=True)
    g = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randperm(m, generator=g)[:on] for _ in range(n)])
    weights = 1 + torch.rand(n, on, generator=g)
    return 3.0 + 5.0 * torch.einsum("no,nod->nd", weights, atoms[index])


@pytest.fixture(scope="session")
def tiny_model() -> HookedModel:
    """Two blocks, width 16, with a word-level tokenizer."""
    tokenizer = word_tokenizer("the cat sat on a mat and dog ran to red blue house tree big small")
    size = {"width": 16, "heads": 2, "layers": 2, "spread": 0.02, "biases": 0.0, "num_key_value_heads": 2}
    module = tiny_module("llama", vocab=len(tokenizer), intermediate_size=32, pad_token_id=0, **size)
    return wrap(module, tokenizer=tokenizer, name="tiny")
