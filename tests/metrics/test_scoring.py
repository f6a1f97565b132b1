import pytest
import torch

from interp_unlearn._core import DataError
from interp_unlearn.hooked import edit, score_answers, steer, wrap
from interp_unlearn.metrics import score_candidates


def ask(task):
    prompts = [p for s in task.qa_sets() for p in s.prompts]
    return [p.text for p in prompts], [(p.answer, *p.options) for p in prompts]


def assert_same(one, other, tolerance=1e-4):
    for a, b in zip(one.per_prompt, other.per_prompt, strict=True):
        assert torch.allclose(a.logprob, b.logprob, atol=tolerance, rtol=0)
        assert torch.equal(a.n_tokens, b.n_tokens)
        assert torch.equal(a.exact, b.exact)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "opt"])
@pytest.mark.parametrize("batch_size", [32, 3])
def test_shared_prefix_gives_the_same_as_one_row_each(make_model, task, family, batch_size):
    model = make_model(family)
    texts, candidates = ask(task)
    quick = score_candidates(model, texts, candidates, batch_size=batch_size)
    plain = score_candidates(model, texts, candidates, batch_size=batch_size, shared_prefix=False)
    assert quick.method == "shared prefix"
    assert plain.method == "one row each (asked for)"
    assert_same(quick, plain)


def test_a_hybrid_whose_cache_cannot_be_split_is_scored_row_by_row(task, tokenizer):
    import transformers

    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
    config = transformers.JambaConfig(**sizes, **heads, use_mamba_kernels=False, num_experts=2, num_experts_per_tok=1)
    torch.manual_seed(0)
    model = wrap(transformers.JambaForCausalLM(config).eval(), tokenizer)
    texts, candidates = ask(task)
    quick = score_candidates(model, texts, candidates)
    assert quick.method.startswith("one row each")
    assert_same(quick, score_candidates(model, texts, candidates, shared_prefix=False))


def test_shared_prefix_where_the_tokenizer_merges_prompt_and_answer(make_model, task, merging_tokenizer):
    model = make_model("llama", merging_tokenizer)
    texts, candidates = ask(task)
    seams = [merging_tokenizer(t)["input_ids"] for t in texts]
    whole = [merging_tokenizer(f"{t} {c[0]}")["input_ids"] for t, c in zip(texts, candidates, strict=True)]
    assert any(w[: len(s)] != s for s, w in zip(seams, whole, strict=True)), "the fixture should merge at the seam"
    quick = score_candidates(model, texts, candidates)
    assert quick.method == "shared prefix"
    assert_same(quick, score_candidates(model, texts, candidates, shared_prefix=False))


def test_scores_are_those_of_score_answers(model, task):
    texts, candidates = ask(task)
    quick = score_candidates(model, texts, candidates).per_prompt
    first = score_answers(model, texts, [c[0] for c in candidates])
    assert torch.allclose(torch.stack([s.probability[0] for s in quick]), first.probability, atol=1e-5)
    assert torch.equal(torch.stack([s.n_tokens[0] for s in quick]), first.n_tokens)


def test_repeated_prompts_and_candidates_are_scored_once(model, task, monkeypatch):
    seen = []
    forward = type(model.module).forward

    def counting(self, input_ids, **kwargs):
        seen.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **kwargs)

    texts, candidates = ask(task)
    once = score_candidates(model, texts[:2], candidates[:2])
    monkeypatch.setattr(type(model.module), "forward", counting, raising=True)
    model_again = score_candidates(model, texts[:2] * 3, candidates[:2] * 3, shared_prefix=False)
    assert sum(rows for rows, _ in seen) == sum(len(set(c)) for c in candidates[:2])
    for a, b in zip(once.per_prompt * 3, model_again.per_prompt, strict=True):
        assert torch.allclose(a.logprob, b.logprob, atol=1e-4)


def test_hooks_fall_back_to_one_row_each(model, task):
    texts, candidates = ask(task)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    with edit(model, steer("blocks.1.hook_resid_post", direction, 3.0)):
        steered = score_candidates(model, texts, candidates)
    assert steered.method == "one row each (hooks are on the module)"
    untouched = score_candidates(model, texts, candidates)
    assert not torch.allclose(steered.per_prompt[0].logprob, untouched.per_prompt[0].logprob, atol=1e-2)


def test_modules_without_a_cache_fall_back(model, task, tokenizer):
    class NoCache(type(model.module)):
        def forward(self, input_ids, attention_mask=None, position_ids=None):
            return super().forward(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
            )

    bare = NoCache(model.module.config)
    bare.load_state_dict(model.module.state_dict())
    texts, candidates = ask(task)
    scored = score_candidates(wrap(bare.eval(), tokenizer), texts, candidates)
    assert scored.method == "one row each (the module has no key–value cache)"
    assert_same(scored, score_candidates(model, texts, candidates))


def test_a_cache_that_lies_is_noticed(model, task, tokenizer):
    class Forgetful(type(model.module)):
        def forward(self, input_ids=None, attention_mask=None, past_key_values=None, use_cache=None, **kwargs):
            if past_key_values is not None and past_key_values.get_seq_length() > 0:
                attention_mask, past_key_values = attention_mask[:, -input_ids.shape[1] :], None
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )

    broken = Forgetful(model.module.config)
    broken.load_state_dict(model.module.state_dict())
    texts, candidates = ask(task)
    scored = score_candidates(wrap(broken.eval(), tokenizer), texts, candidates)
    assert scored.method.startswith("one row each (the cached pass was off by")
    assert_same(scored, score_candidates(model, texts, candidates, shared_prefix=False))


def test_errors_say_what_to_do(model):
    with pytest.raises(DataError, match="at least one candidate"):
        score_candidates(model, ["the capital of Avia is"], [()])
    with pytest.raises(DataError, match="does the tokenizer know its words"):
        score_candidates(model, ["the capital of Avia is"], [("Rosa", "Xyzzy")])
