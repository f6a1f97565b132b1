"""Windows of a text, and fingerprints of weights."""

import pytest
import torch

from interp_unlearn._core import DataError
from interp_unlearn.hooked import text_windows, weights_fingerprint, wrap

from .conftest import make_module, make_tokenizer, shared_model


@pytest.mark.parametrize("bos", [False, True])
def test_text_windows(bos):
    tokenizer = make_tokenizer(bos=bos)
    model = wrap(make_module("llama"), tokenizer)
    documents = ["The capital of Japan is Tokyo. " * 4, "Paris.", "日本 is Japan"]
    windows = text_windows(model, documents, 10)
    assert windows == text_windows(model, "\n\n".join(documents) + "\n \n", 10)
    assert max(len(w) for w in windows) == 10
    if bos:
        assert all(w[0] == tokenizer.bos_token_id for w in windows)
    joined = [i for w in windows for i in (w[1:] if bos else w)]
    want = [i for d in documents for i in tokenizer(d.strip(), add_special_tokens=False)["input_ids"]]
    assert joined == want
    for length in (1, 65):
        with pytest.raises(DataError, match="between 2 and"):
            text_windows(model, documents, length)
    with pytest.raises(DataError, match="is empty"):
        text_windows(model, " \n\n ", 10)
    with pytest.raises(DataError, match="needs a tokenizer"):
        text_windows(shared_model("llama"), "a", 10)


def test_fingerprint_changes_with_the_weights(fresh):
    model = fresh("gpt2")
    before = weights_fingerprint(model)
    assert before == weights_fingerprint(wrap(make_module("gpt2")))
    with torch.no_grad():
        model.module.transformer.h[1].mlp.c_proj.weight.mul_(1.0001)
    assert weights_fingerprint(model) != before
