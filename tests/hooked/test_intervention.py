"""Interventions: what an edit knows of its tokens, what is saved, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from interp_unlearn._core import ConfigError, FileFormatError, ModelError, SiteError
from interp_unlearn.hooked import (
    INTERVENTIONS,
    Edit,
    HookedModel,
    Intervention,
    PassView,
    batch_from_ids,
    capture,
    edit,
    load_intervention,
    save_intervention,
    whole_sequences,
)

from .conftest import hook_count, make_module, make_tokenizer, random_batch, shared_model

SITE = "blocks.1.hook_resid_post"


class Shift(Intervention):
    """Adds a vector at all tokens but the first."""

    kind: ClassVar[str] = "test shift"

    def __init__(self, site: str, vector: Tensor) -> None:
        self.site, self.vector = site, vector

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        def change(x: Tensor, view: PassView) -> Tensor:
            return x + self.vector * (view.nth > 0)[..., None]

        with edit(model, Edit(self.site, change, sees_tokens=True)):
            yield model

    def facts(self) -> dict[str, Any]:
        return {"site": self.site}

    def tensors(self) -> dict[str, Tensor]:
        return {"vector": self.vector}

    @classmethod
    def from_parts(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Shift:
        return cls(facts["site"], tensors["vector"])


if "test shift" not in INTERVENTIONS:
    INTERVENTIONS.register("test shift")(Shift)


def seen(model: HookedModel, run: Any) -> list[PassView]:
    views: list[PassView] = []

    def change(x: Tensor, view: PassView) -> Tensor:
        views.append(view)
        return x

    with edit(model, Edit(SITE, change, sees_tokens=True)):
        run()
    return views


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_change_sees_its_tokens_whatever_the_padding(side):
    model = shared_model("llama")
    batch = batch_from_ids([[5, 6, 7, 8, 9], [10, 11, 12]], padding_side=side)
    (view,) = seen(model, lambda: model(batch))
    assert view.tokens is not None
    assert torch.equal(view.tokens, batch.tokens)
    assert torch.equal(view.attended, batch.attended)
    assert view.whole
    short = [0, 1, 2, -1, -1] if side == "right" else [-1, -1, 0, 1, 2]
    assert view.nth.tolist() == [[0, 1, 2, 3, 4], short]


def test_the_count_goes_on_through_a_cache():
    model = shared_model("llama")
    ids = torch.tensor([[5, 6, 7, 8]])

    def steps() -> None:
        first = model.module(input_ids=ids[:, :3], use_cache=True)
        model.module(input_ids=ids[:, 3:], past_key_values=first.past_key_values)  # no mask given

    views = seen(model, steps)
    assert [v.nth.tolist() for v in views] == [[[0, 1, 2]], [[3]]]
    assert [v.whole for v in views] == [True, False]


def test_a_change_that_sees_tokens_takes_no_positions_and_keeps_the_shape():
    model = shared_model("llama")
    with (
        pytest.raises(SiteError, match="neither positions nor heads"),
        edit(model, Edit(SITE, lambda x, _: x, positions=-1, sees_tokens=True)),
    ):
        model([[5, 6]])
    with (
        pytest.raises(SiteError, match="turned shape"),
        edit(model, Edit(SITE, lambda x, _: x[:, :1], sees_tokens=True)),
    ):
        model([[5, 6]])
    assert hook_count(model.module) == 0


def test_saved_and_loaded_it_does_the_same(tmp_path):
    model, batch = shared_model("llama"), random_batch([5, 3])
    clean = capture(model, batch, [SITE])[SITE]
    shift = Shift(SITE, torch.randn(32))
    save_intervention(tmp_path, shift)
    with shift.applied(model):
        one = capture(model, batch, [SITE])[SITE]
    with load_intervention(tmp_path).applied(model):
        two = capture(model, batch, [SITE])[SITE]
    assert torch.equal(one, two)
    assert torch.equal(one[0, 0], clean[0, 0])
    torch.testing.assert_close(one[0, 1:] - clean[0, 1:], shift.vector.expand(4, 32), atol=1e-5, rtol=1e-5)
    assert torch.equal(capture(model, batch, [SITE])[SITE], clean)
    assert hook_count(model.module) == 0


def test_broken_files_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="holds no intervention"):
        load_intervention(tmp_path)
    save_intervention(tmp_path, Shift(SITE, torch.ones(2)))
    facts = tmp_path / "intervention.json"
    text = facts.read_text()
    facts.write_text(text.replace('"site"', '"place"'))
    with pytest.raises(FileFormatError, match="lacks 'site'"):
        load_intervention(tmp_path)
    facts.write_text(text.replace("test shift", "test lift"))
    with pytest.raises(ConfigError, match="unknown intervention 'test lift'; nearest: test shift"):
        load_intervention(tmp_path)
    facts.write_text("[]")
    with pytest.raises(FileFormatError, match="does not hold an intervention"):
        load_intervention(tmp_path)


def test_whole_sequences_in_generation_and_everything_put_back():
    from interp_unlearn.hooked import wrap

    module = make_module("llama")
    model = wrap(module, make_tokenizer())
    before = module.generation_config.use_cache
    widths: list[int] = []

    def change(x: Tensor, view: PassView) -> Tensor:
        widths.append(x.shape[1])
        assert view.whole
        return x

    with whole_sequences(model), edit(model, Edit(SITE, change, sees_tokens=True)):
        whole = model.generate(["the cat sat"], max_new_tokens=4)
    assert widths == list(range(widths[0], widths[0] + 4))
    assert module.generation_config.use_cache == before
    assert hook_count(module) == 0
    assert whole == model.generate(["the cat sat"], max_new_tokens=4)


def test_whole_sequences_refuse_a_filled_cache():
    model = shared_model("llama")
    ids = torch.tensor([[5, 6, 7]])
    cache = model.module(input_ids=ids, use_cache=True).past_key_values
    with whole_sequences(model):
        assert model.module(input_ids=ids, use_cache=True).past_key_values is None
        with pytest.raises(ModelError, match="looks at whole sequences"):
            model.module(input_ids=ids[:, :1], past_key_values=cache)
    assert hook_count(model.module) == 0
