"""Any `nn.Module` by its module paths: images, plain networks, dicts and tuples in and out."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from interp_unlearn._core import DataError, ModelError, SiteError
from interp_unlearn.hooked import ablate, capture, edit, patch, steer, tap, wrap
from interp_unlearn.hooked._forward import evaluating

from .conftest import hook_count, make_module, random_ids

Pair = namedtuple("Pair", ["value", "note"])


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


class Strange(nn.Module):
    """Keyword arguments, a dict, tuples, lists and named tuples between its parts."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = Part("tuple"), Part("named"), Part("dict")
        self.fourth, self.fifth = Part("list"), Part("object")

    def forward(self, *, image, scale=1.0):
        x, note = self.first(x=image)
        assert note == "tuple"
        pair = self.second(note="kept", features=x)
        assert pair.note == "named"
        found = self.third({"ignored": 1}, pair.value)
        assert found["note"] == "dict"
        listed = self.fourth(found["value"])
        return self.fifth(listed[1]).logits * scale


@dataclass
class Returned:
    logits: torch.Tensor


class Part(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(4, 4)

    def forward(self, *args, **kwargs):
        x = next(v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor))
        y = self.linear(x)
        return {
            "tuple": lambda: (y, "tuple"),
            "named": lambda: Pair(y, "named"),
            "dict": lambda: {"note": "dict", "value": y},
            "list": lambda: ["list", y],
            "object": lambda: Returned(y),
        }[self.kind]()


def test_capture_and_edit_a_cnn():
    net = cnn().eval()
    model = wrap(net)
    assert (
        not model.is_language_model and repr(model) == "HookedModel('Sequential', Sequential, 12 sites by module path)"
    )
    x = torch.randn(5, 3, 8, 8)
    acts = capture(model, x, ["0.output", "2.output", "5.input"])
    assert acts["2.output"].shape == (5, 4, 6, 6) and acts.mask is None
    assert torch.equal(acts["0.output"], net[0](x))
    assert torch.equal(capture(model, (x,), ["output"])["output"], net(x))
    assert torch.equal(capture(model, {"input": x}, ["input"])["input"], x)
    with edit(model, ablate("5.input", units=[0, 1, 2, 3])):
        assert torch.equal(model(x), net[5].bias.expand(5, 2))
    clean = net(x)
    with edit(model, steer("5.output", torch.tensor([1.0, 0.0]), 2.0)):
        torch.testing.assert_close(net(x), clean + torch.tensor([2.0, 0.0]))
    assert torch.equal(net(x), clean)
    with pytest.raises(SiteError, match="language model"), edit(model, patch("5.input", torch.zeros(4), positions=0)):
        model(x)
    with pytest.raises(DataError, match="no language model"):
        capture(model, x, ["0.output"], positions=-1)
    with pytest.raises(DataError, match="no language model"):
        capture(model, x, ["0.output"], batch_size=2)
    with pytest.raises(ModelError, match="plain module"):
        _ = model.lm
    with pytest.raises(SiteError, match=r"nearest: 0\.output"):
        capture(model, x, ["0.outputs"])
    assert hook_count(net) == 0
    report = model.parity(x)
    assert report.identical and report.n_tokens == 5 and report.sites_hooked == 6


def test_reading_in_training_mode_leaves_batch_norm_alone():
    net = cnn().train()
    model = wrap(net)
    x = torch.randn(5, 3, 8, 8)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    capture(model, x, ["5.output"])
    model.parity(x)
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_gradient_of_a_plain_module():
    model = wrap(cnn().eval())
    acts = capture(model, torch.randn(2, 3, 8, 8), ["0.output"], grad=True)
    acts["0.output"].sum().backward()
    assert model.module[0].weight.grad is not None and model.module[5].weight.grad is None


@pytest.mark.parametrize("part", ["first", "second", "third", "fourth", "fifth"])
def test_containers_keep_their_type(part):
    torch.manual_seed(0)
    net = Strange()
    model = wrap(net)
    inputs = {"image": torch.randn(3, 4), "scale": 2.0}
    acts = capture(model, inputs, [f"{part}.input", f"{part}.output", f"{part}.linear.output"])
    assert torch.equal(acts[f"{part}.output"], acts[f"{part}.linear.output"])
    assert acts[f"{part}.input"].shape == (3, 4)
    clean = model(inputs)
    for kind in ("input", "output"):
        with edit(model, ablate(f"{part}.{kind}")):
            seen = capture(model, inputs, [f"{part}.linear.{kind}"])
            changed = model(inputs)
        if kind == "input":
            assert torch.equal(seen[f"{part}.linear.input"], torch.zeros(3, 4))
        assert not torch.equal(changed, clean)
    assert torch.equal(model(inputs), clean)


def test_modules_without_tensors_say_so():
    class Config(nn.Module):
        def forward(self, x):
            return {"name": "no tensor"}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = Config()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            self.config("words")
            return self.linear(x)

    model = wrap(Outer())
    x = torch.randn(1, 2)
    with pytest.raises(SiteError, match="without a tensor"):
        capture(model, x, ["config.output"])
    with pytest.raises(SiteError, match="takes no tensor"):
        capture(model, x, ["config.input"])
    with pytest.raises(SiteError, match="takes no tensor"), edit(model, ablate("config.input")):
        model(x)
    with pytest.raises(SiteError, match="holds no tensor"):
        wrap(Config()).parity(x)


def test_a_module_at_two_paths_or_called_twice():
    """A shared module is found at both paths; of several calls the first is kept."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))

    net = Twice()
    model = wrap(net)
    x = torch.randn(2, 3)
    acts = capture(model, x, ["a.output", "b.output"], stop=False)
    assert torch.equal(acts["a.output"], net.a(x)) and torch.equal(acts["b.output"], net.a(x))
    with edit(model, steer("b.output", torch.ones(3))):  # an edit changes every call of the module
        plain = nn.functional.linear(x, net.a.weight, net.a.bias)
        assert torch.equal(capture(model, x, ["a.output"])["a.output"], plain + 1)
        assert torch.equal(model(x), nn.functional.linear(plain + 1, net.a.weight, net.a.bias) + 1)


def test_a_custom_decoder_that_takes_tokens_only():
    """No config, no attention_mask, no ModelOutput: opened with overrides."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
            self.attn = nn.Linear(8, 8)
            self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x):
            x = x + self.attn(self.norm1(x)).cumsum(1)
            return x + self.mlp(self.norm2(x))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.norm = nn.LayerNorm(8)
            self.head = nn.Linear(8, 20)

        def forward(self, tokens):
            x = self.embed(tokens)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    torch.manual_seed(0)
    assert not wrap(Decoder()).is_language_model
    model = wrap(Decoder(), overrides={"unembed": "head", "mlp_proj": "mlp.2"})
    assert {"blocks.1.hook_resid_post", "blocks.1.mlp.hook_post", "ln_final.hook_in"} <= set(model.sites)
    assert model.lm.n_ctx is None
    assert model([[1, 2, 3]]).shape == (1, 3, 20)
    assert model.parity([[1, 2, 3], [4, 5]]).identical
    with pytest.raises(DataError, match="left-padded"):
        model({"input_ids": [[0, 1]], "attention_mask": [[0, 1]]})
    with pytest.raises(ModelError, match="no Hugging Face config"):
        _ = model.bridge


def test_language_model_opened_as_a_plain_module():
    model = wrap(make_module("llama"), language=False)
    ids = torch.tensor(random_ids([4]))
    acts = capture(model, {"input_ids": ids}, ["model.layers.1.output", "lm_head.output"])
    assert acts["model.layers.1.output"].shape == (1, 4, 32)
    with tap(model.sites, ["output"], stop=False) as taps:
        out = taps.run(lambda: model({"input_ids": ids}))
    assert torch.equal(taps["output"], out.logits)
    with edit(model, ablate("lm_head.output")):
        assert not model({"input_ids": ids}).logits.any()


def test_no_decoder_found_says_what_to_pass():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 2)

        def get_output_embeddings(self):
            return self.head

    with pytest.raises(ModelError, match="overrides"):
        wrap(Odd())
    assert wrap(Odd(), language=False).module is not None


def test_reading_puts_every_part_back_into_the_mode_it_had():
    """A part may train in a module that does not, e.g. when a user unfreezes a norm."""
    module = cnn().eval()
    module[1].train()
    statistics = module[1].running_mean.clone()
    model = wrap(module, name="cnn")
    capture(model, torch.randn(2, 3, 8, 8), ["0.output"])
    with evaluating(module):
        assert not any(m.training for m in module.modules())
        module(torch.randn(2, 3, 8, 8))
    assert [m.training for m in module.modules()] == [False, False, True, False, False, False, False]
    assert torch.equal(module[1].running_mean, statistics)


def test_sites_of_a_plain_module_are_listed_and_found():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
            self.unused = nn.Linear(1, 1)

        def forward(self, x):
            for part in self.parts:
                x = part(x)
            return x

    model = wrap(Nested())
    names = list(model.sites)
    assert names == [f"{path}.{kind}" for path in ("parts.0", "parts.1", "unused") for kind in ("input", "output")]
    assert len(model.sites) == 6 and all(name in model.sites and model.sites[name].name == name for name in names)
    x = torch.randn(5, 3)
    found = model.shapes(x)
    assert list(found.items()) == [
        ("parts.0.input", (5, 3)),
        ("parts.0.output", (5, 4)),
        ("parts.1.input", (5, 4)),
        ("parts.1.output", (5, 2)),
    ]
    assert {name: tuple(v.shape) for name, v in capture(model, x, list(found)).values.items()} == found
    assert hook_count(model.module) == 0
    with pytest.raises(SiteError, match=r"model\.shapes\(inputs\)"):
        capture(model, x, ["part.output"])
    assert list(wrap(nn.Linear(2, 2)).sites) == ["input", "output"]


def test_shapes_of_a_language_model_are_those_of_its_modules():
    model = wrap(make_module("llama"))
    found = model.shapes(random_ids([4]))
    assert found["model.layers.1.output"] == (1, 4, 32)
    order = list(found)
    assert order.index("model.layers.0.output") < order.index("model.layers.1.input") < order.index("lm_head.output")
    assert "lm_head.output" not in list(model.sites) and "hook_embed" in list(model.sites)


def test_units_of_a_feature_map_are_its_channels():
    net = cnn().eval()
    model = wrap(net)
    x = torch.randn(5, 3, 8, 8)
    acts = capture(model, x, ["0.output"])
    value = acts["0.output"]
    assert torch.equal(acts.flat("0.output"), value.permute(0, 2, 3, 1).reshape(-1, 4))
    with edit(model, ablate("0.output", units=[2])):
        seen = capture(model, x, ["0.output"])["0.output"]
    assert not seen[:, 2].any() and torch.equal(seen[:, [0, 1, 3]], value[:, [0, 1, 3]])
    direction = torch.tensor([0.0, 1.0, 0.0, 0.0])
    with edit(model, steer("0.output", direction, 3.0)):
        seen = capture(model, x, ["0.output"])["0.output"]
    assert torch.equal(seen[:, 1], value[:, 1] + 3) and torch.equal(seen[:, 0], value[:, 0])
    with edit(model, ablate("0.output", direction=direction)):
        seen = capture(model, x, ["0.output"])["0.output"]
    assert float(seen[:, 1].abs().max()) == 0 and torch.equal(seen[:, 3], value[:, 3])
    with edit(model, patch("0.output", value[:1])):  # a patch has the module's own shape
        assert torch.equal(capture(model, x, ["0.output"])["0.output"], value[:1].expand_as(value))
    with pytest.raises(SiteError, match=r"units must lie in 0…3"), edit(model, ablate("0.output", units=[5])):
        model(x)
