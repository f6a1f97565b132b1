"""Looking inside changes nothing: bit-identical logits, no hooks and no memory left behind."""

import gc

import pytest
import torch

from interp_unlearn._core import cache_dir
from interp_unlearn.hooked import ParityReport, capture, edit, steer, wrap

from .conftest import hook_count, make_module, random_batch, random_ids, shared_model

GEMMA, SMOLLM2 = (cache_dir() / "models" / name for name in ("gemma-3-270m", "smollm2-135m"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_bit_identical_in_fp32(model, side):
    report = model.parity(random_batch([9, 4, 6], side))
    assert report == ParityReport(0.0, True, 19, len(model.sites))
    assert report.to_json() == {
        "kind": "parity",
        "max_abs_diff": 0.0,
        "identical": True,
        "n_tokens": 19,
        "sites_hooked": len(model.sites),
        "version": report.to_json()["version"],
    }


def test_a_difference_is_reported(fresh):
    """A model that behaves differently when hooks are on is caught."""
    model = fresh("llama")
    head = model.module.lm_head
    plain = head.forward
    head.forward = lambda x: plain(x) + (1.0 if model.module.model.norm._forward_hooks else 0.0)
    report = model.parity(random_ids([4]))
    assert not report.identical and report.max_abs_diff == pytest.approx(1.0, abs=1e-5)


def pretrained(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").exists():
        pytest.skip(f"{folder.name} is not in the cache; open it once with open_model({folder.name!r})")
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return wrap(module, AutoTokenizer.from_pretrained(folder), name=folder.name)


@pytest.mark.model
@pytest.mark.parametrize("folder", [SMOLLM2, GEMMA], ids=["smollm2-135m", "gemma-3-270m"])
def test_pretrained_models(folder):
    model = pretrained(folder)
    n = model.lm.n_layers
    assert len(model.sites) == 7 * n + 4
    texts = ["The capital of Japan is Tokyo.", "Paris", "Marie Curie was a physicist born in"]
    assert model.parity(texts).identical
    mids = {model.sites[f"blocks.{i}.hook_resid_mid"].path.split(".")[-1] for i in range(n)}
    assert len(mids) == 1 and "input_layernorm" not in mids
    deep = f"blocks.{n // 2}.hook_resid_mid"
    together = capture(model, texts, [deep])
    for row, text in enumerate(texts):
        alone = capture(model, text, [deep])[deep][0]
        got = together[deep][row][: len(alone)]
        scale = alone.abs().amax(-1, keepdim=True)  # the first token's activations are massive
        assert ((got - alone).abs() <= 1e-4 * scale).all()


def live_tensors():
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def test_200_captures_leak_nothing(fresh):
    model = fresh("llama")
    ids = torch.tensor(random_ids([16, 16, 16, 16]))
    names = list(model.sites)
    v = torch.ones(32)

    def work(n):
        for i in range(n):
            capture(model, ids, names[::3] if i % 2 else names[:2], positions=-1 if i % 3 else None)
            with edit(model, steer("blocks.1.hook_resid_mid", v)):
                capture(model, ids, names[:3])

    work(10)
    gc.collect()
    objects, tensors = len(gc.get_objects()), live_tensors()
    work(100)  # 200 captures, 100 edits
    gc.collect()
    assert hook_count(model.module) == 0
    assert live_tensors() == tensors
    assert len(gc.get_objects()) - objects < 300


def test_nothing_is_left_when_the_forward_raises(fresh):
    model = fresh("llama")
    site = "blocks.2.hook_resid_post"
    ids = random_ids([8])
    good = capture(model, ids, [site])[site]

    class Broken(RuntimeError):
        pass

    def fail(*_args):
        raise Broken

    for _ in range(50):
        handle = model.module.model.layers[1].register_forward_hook(fail)
        with pytest.raises(Broken):
            capture(model, ids, [site])
        handle.remove()
    gc.collect()
    assert hook_count(model.module) == 0
    assert torch.equal(capture(model, ids, [site])[site], good)


def test_activations_do_not_live_longer_than_their_result():
    model = shared_model("llama")
    site = "blocks.1.hook_resid_post"
    acts = capture(model, random_ids([8]), [site])
    import weakref

    alive = weakref.ref(acts[site])
    del acts
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_eager_attention_is_compared_without_a_cache_on_both_sides(family):
    module = make_module(family)
    module.set_attn_implementation("eager")
    for seed in range(4):
        assert wrap(module).parity(random_batch([9, 7], seed=seed)).identical


def test_a_module_without_parts_is_its_own_site():
    torch.manual_seed(0)
    report = wrap(torch.nn.LSTM(3, 4)).parity(torch.randn(5, 2, 3))
    assert report.identical and report.sites_hooked == 1
