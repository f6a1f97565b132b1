"""Each method's page says what a recipe that names only the objective gets; the numbers are those of the code."""

from pathlib import Path

import pytest

from interp_unlearn.hooked import LanguageShape
from interp_unlearn.unlearn import default_recipe
from interp_unlearn.unlearn._defaults import _SEARCHED

DOCS = Path(__file__).resolve().parents[1] / "docs" / "methods"
LAYERS, WIDTH, READ = 30, 576, 12
SHAPE = LanguageShape(
    n_layers=LAYERS,
    d_model=WIDTH,
    n_heads=9,
    d_head=64,
    d_mlp=1536,
    d_vocab=49152,
    n_ctx=8192,
    blocks=tuple(f"model.layers.{i}" for i in range(LAYERS)),
    mlp_out=tuple(f"model.layers.{i}.mlp.down_proj" for i in range(LAYERS)),
    embed="model.embed_tokens",
    final_norm="model.norm",
    unembed="lm_head",
)
PLAIN = ("sampler", "sampler_options", "steps", "optimizer", "lr", "batch_size", "retain_batch_size", "clip", "warmup")


def shown(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {shown(v)}" for k, v in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)


def sentence(objective: str) -> str:
    """What a recipe gets beyond the options' own defaults, as a config file would write it."""
    table = _SEARCHED[objective](SHAPE, READ)
    flat = {k: v for k, v in table.items() if k not in ("options", "trainable", "sampler_options")}
    for part in ("options", "trainable", "sampler_options"):
        flat |= {f"{part}.{k}": v for k, v in table.get(part, {}).items()}
    fields = ", ".join(f"`{name} = {shown(value)}`" for name, value in flat.items())
    begin = "**In a recipe that names only the objective**, on SmolLM2-135M ([how they were found](../defaults.md))"
    return f"{begin}: {fields}."


@pytest.mark.parametrize("objective", sorted(_SEARCHED))
def test_the_page_says_what_a_recipe_gets(objective):
    default_recipe(objective, SHAPE, layer=READ)  # the table is a valid recipe
    page = (DOCS / f"{objective}.md").read_text(encoding="utf-8")
    assert sentence(objective) in " ".join(page.split()), (
        f"docs/methods/{objective}.md should say: {sentence(objective)}"
    )
