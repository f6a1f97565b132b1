"""Python in README and the documentation runs: the blocks of a page one after the other, in one namespace.

Pages that open ``smollm2-135m`` use it. What others take for granted (``model``, ``task``, ``delta`` …) are stand-ins:
a random model of two small blocks with the real tokenizer, and an SAE as random. Blocks that cannot run say why in
the source; they are compiled, and what they import must exist.
"""

import ast
import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from interp_unlearn.hooked import HookedModel, wrap
from interp_unlearn.latents import SAE
from interp_unlearn.latents._format import save_sae
from interp_unlearn.unlearn import OBJECTIVES
from interp_unlearn.worlds import Task, load_world, make_task
from interp_unlearn.zoo import open_model

from .blocks import BLOCKS

RUN = [block for block in BLOCKS if block.language == "python" and not block.why_not]
LEFT_OUT = [block for block in BLOCKS if block.language == "python" and block.why_not]
BY_PAGE = {page: list(blocks) for page, blocks in itertools.groupby(RUN, lambda block: block.page)}
SITE = "blocks.0.hook_resid_post"


def random_model(tokenizer: Any, seed: int) -> HookedModel:
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return wrap(transformers.LlamaForCausalLM(config).eval(), tokenizer, name="stand-in")


def random_sae() -> SAE:
    decoder = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    decoder = decoder / decoder.norm(dim=1, keepdim=True)
    return SAE(decoder.T.clone(), torch.zeros(64), decoder, torch.zeros(32), kind="topk", k=8, site=SITE)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return open_model("smollm2-135m").tokenizer


@pytest.fixture(scope="module")
def task(tokenizer: Any) -> Task:
    world = load_world("countries", tokenizer=tokenizer)
    options = {"relations": ["capital"], "n_known": 8, "n_unknown": 16, "max_prompts": 8}
    return make_task(world, ["Japan"], tokenizer=tokenizer, **options)


@pytest.fixture
def stand_ins(tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Names that pages take for granted, and the files that they open."""
    model, edited = random_model(tokenizer, 0), random_model(tokenizer, 0)
    with torch.no_grad():
        edited.module.model.layers[1].mlp.down_proj.weight.mul_(0.5)
    name = "model.layers.1.mlp.down_proj.weight"
    delta = {name: edited.module.get_parameter(name).detach()}
    sae = random_sae()
    monkeypatch.chdir(tmp_path)
    folder = Path("path/to/folder")
    model.module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_sae(sae, "path/to/saelens-folder")
    run = Path("runs/npo")
    run.mkdir(parents=True)
    importlib.import_module("safetensors.torch").save_file(delta, run / "delta.safetensors")
    before = dict(OBJECTIVES._items)
    yield {
        "model": model,
        "edited_model": edited,
        "gold": random_model(tokenizer, 1),
        "task": task,
        "delta": delta,
        "sae": sae,
    }
    OBJECTIVES._items = before


@pytest.mark.model
@pytest.mark.parametrize("page", BY_PAGE)
def test_blocks_run(page: str, stand_ins: dict[str, Any], capsys):
    namespace = {"__name__": "documentation", **stand_ins}
    for block in BY_PAGE[page]:
        code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
        exec(code, namespace)


@pytest.mark.parametrize("block", LEFT_OUT, ids=str)
def test_what_is_not_run_imports_what_exists(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def test_few_blocks_are_left_out():
    assert len(LEFT_OUT) <= 7
