"""References are computed once: counted in forward passes, not in seconds."""

import copy

import pytest
import torch

from interp_unlearn.hooked import wrap
from interp_unlearn.unlearn import Recipe, Trainable, Unlearner
from interp_unlearn.unlearn.objectives._answers import answer_tokens, encode, questions

LOW = Trainable(layers=(0, 1), modules=("mlp_out",))


def passes_of(model, work):
    """Forward passes through the first block while ``work`` runs, and their tokens."""
    seen = []
    block = model.submodule(model.lm.blocks[0])
    handle = block.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    try:
        work()
    finally:
        handle.remove()
    return seen


# Passes per step; the first two are the yardstick.
STEP = {
    "ga": 1,
    "grad_diff": 2,
    "npo": 2,
    "simnpo": 2,
    "dpo": 2,
    "altpo": 2,
    "idk": 2,
    "undial": 1,
    "wga": 2,
    "satimp": 2,
    "ceu": 1,
    "pdu": 2,
    "flat": 2,
    "task_vector": 1,
}


@pytest.mark.parametrize("name", STEP)
def test_forward_passes_of_a_step(make, name):
    model, task = make.model(), make.task()
    unlearner = Unlearner(model, task, Recipe(name, trainable=LOW, steps=3))
    unlearner.step()
    assert len(passes_of(model, unlearner.step)) == STEP[name]


def test_a_step_of_npo_costs_what_a_step_of_grad_diff_costs(make, monkeypatch):
    """The same passes over the same tokens, and no second model: nothing may be deep-copied."""
    original = copy.deepcopy

    def no_module(value, *args, **kwargs):
        assert not isinstance(value, torch.nn.Module), "a model was copied"
        return original(value, *args, **kwargs)

    monkeypatch.setattr(copy, "deepcopy", no_module)
    tokens, parameters = {}, {}
    for name in ("grad_diff", "npo"):
        model = make.model()
        unlearner = Unlearner(model, make.task(2), Recipe(name, trainable=LOW, steps=3))
        tokens[name] = passes_of(model, unlearner.step)
        held = [v for v in vars(unlearner.objective).values() if isinstance(v, torch.Tensor)]
        parameters[name] = sum(v.numel() for v in held)
    assert tokens["npo"] == tokens["grad_diff"]
    assert parameters == {"grad_diff": 0, "npo": len(make.task(2).forget_train)}  # one number per question


def test_npo_computes_its_reference_once(make):
    model, task = make.model(), make.task(2)
    seen = passes_of(model, lambda: Unlearner(model, task, Recipe("npo", trainable=LOW)))
    assert len(seen) == 1  # four questions fit one batch


def test_rmu_ends_at_its_layer_with_cached_references(make):
    model, task = make.model(), make.task()
    unlearner = Unlearner(model, task, Recipe("rmu", options={"layer": 1}, trainable=LOW))
    above = []
    handle = model.submodule(model.lm.blocks[2]).register_forward_pre_hook(lambda *_: above.append(1))
    seen = passes_of(model, unlearner.step)
    handle.remove()
    assert len(seen) == 2
    assert not above


def test_head_at_answer_positions_equals_the_whole_head(model, task):
    items = questions(task.retain_train.prompts)
    encoded = encode(model, items)
    logits = model.forward(encoded.batch)
    rows, columns = encoded.answer.nonzero(as_tuple=True)
    ids = encoded.batch.tokens[rows, columns]
    full = logits[rows, columns - 1].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    tokens = answer_tokens(model, items)
    torch.testing.assert_close(tokens.logprobs(), full)
    torch.testing.assert_close(tokens.row_sum(tokens.logprobs()).sum(), full.sum())
    trained = [p for n, p in model.module.named_parameters() if "down_proj" in n or "lm_head" in n]
    mine = torch.autograd.grad(tokens.logprobs().sum(), trained)
    theirs = torch.autograd.grad(full.sum(), trained)
    for one, two in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(answer_tokens(model, items, at="answer").logits, logits[rows, columns])


def test_only_answer_positions_reach_the_head(model, task, monkeypatch):
    items, shapes = questions(task.retain_train.prompts), []
    head = model.submodule(model.lm.unembed)
    run = head.forward
    monkeypatch.setattr(head, "forward", lambda x: shapes.append(tuple(x.shape[:-1])) or run(x))
    tokens = answer_tokens(model, items)
    assert shapes == [(1, len(tokens.ids))]
    assert not head._forward_pre_hooks


def test_a_model_that_flattens_before_its_head_still_works(make):
    """Where the head does not see (batch, position, width), all logits are made and the wanted ones picked."""
    model, task = make.model(), make.task()
    items = questions(task.retain_train.prompts)
    expected = answer_tokens(model, items).logits

    class Flat(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.flatten(0, -2)).unflatten(0, x.shape[:-1])

    head = model.module.lm_head
    model.module.lm_head = Flat(head)
    flat = wrap(model.module, model.tokenizer, name="flat", overrides={"unembed": "lm_head.inner"})
    torch.testing.assert_close(answer_tokens(flat, items).logits, expected)
