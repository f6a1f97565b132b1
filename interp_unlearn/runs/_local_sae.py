"""A small SAE for a model that has no shipped one: trained on the world's own sentences, and cached."""

from __future__ import annotations

from interp_unlearn._core import cache_dir, config_hash, locked
from interp_unlearn.hooked import HookedModel, capture
from interp_unlearn.latents import SAE, SAETrainConfig, TensorSource, load_sae, train_sae
from interp_unlearn.worlds import World, fill_mention

WIDTH = {"main": 8, "second": 4}
"""Latents per residual dimension; the second SAE has another width and another seed."""


def local_sae(model: HookedModel, world: World, role: str, seed: int) -> SAE:
    """Train, or take from the cache, a TopK SAE at 40 % of the model's depth.

    Args:
        model: The original model.
        world: Its mentions, train questions and general text are the training data.
        role: ``"main"`` or ``"second"``.
        seed: Of the SAE; the second one uses another.
    """
    layer = max(1, round(0.4 * model.lm.n_layers))
    d_model = model.lm.d_model
    config = SAETrainConfig(
        site=f"blocks.{layer}.hook_resid_post",
        d_sae=WIDTH[role] * d_model,
        model=model.name,
        k=min(32, d_model // 4),
        samples=400_000,
        batch_size=1024,
        seed=seed + (1000 if role == "second" else 0),
    )
    texts = sae_texts(world)
    folder = cache_dir() / "saes" / config_hash({"source": model.source, "sae": config.to_dict(), "texts": texts})
    with locked(folder):  # two processes need the same SAE: the second waits for the first
        if not (folder / "sae_weights.safetensors").exists():
            acts = capture(model, texts, [config.site], mask_policy="inner", batch_size=256)
            train_sae(config, folder, data=TensorSource(acts.flat(config.site).half()), progress=False)
    return load_sae(folder)


def sae_texts(world: World) -> list[str]:
    """Mentions and questions in train templates of every entity, unknown ones included, and general training text."""
    answers = {(f.subject, f.relation): f.answer for f in world.facts}
    out: list[str] = []
    for template in world.templates:
        if template.split != "train":
            continue
        for entity in (*world.of_type(template.type), *world.unknown_of_type(template.type)):
            text = fill_mention(template, entity).text
            answer = answers.get((entity.id, template.relation))
            out.append(f"{text} {answer}" if answer else text)
    return [*out, *world.text_train]
