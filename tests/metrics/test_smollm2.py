"""On the real model: the quick scores are the plain ones, and it is attacked without a trace."""

import pytest
import torch

from interp_unlearn.attacks import RelearnConfig, relearn
from interp_unlearn.metrics import score_candidates
from interp_unlearn.worlds import load_world, make_task
from interp_unlearn.zoo import open_model


@pytest.mark.model
@pytest.mark.slow
def test_smollm2_is_scored_and_relearned():
    model = open_model("smollm2-135m")
    world = load_world("countries", tokenizer=model.tokenizer)
    task = make_task(world, ["Poland"], relations=["capital"], tokenizer=model.tokenizer)
    asked = task.forget_train.prompts[:2] + task.neighbours.prompts[:1]
    texts, candidates = [p.text for p in asked], [(p.answer, *p.options[:4]) for p in asked]
    quick = score_candidates(model, texts, candidates)
    plain = score_candidates(model, texts, candidates, shared_prefix=False)
    assert quick.method == "shared prefix"
    for a, b in zip(quick.per_prompt, plain.per_prompt, strict=True):
        assert torch.allclose(a.logprob, b.logprob, atol=1e-4, rtol=0)
        assert torch.equal(a.exact, b.exact)
    before = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    curve = relearn(model, task, RelearnConfig(steps=2, eval_every=2, controls=1, max_prompts=2))
    assert all(torch.equal(p, before[name]) for name, p in model.module.named_parameters())
    probability = curve.target_sets.at(set="relearned", metric="probability")
    assert probability[-1] > probability[0]
    assert curve.target.config["learning_rate"] == pytest.approx(1e-5, rel=0.01)
