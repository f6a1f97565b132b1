import math

import numpy as np
import pytest

from interp_unlearn._core import DataError
from interp_unlearn.metrics import class_probability, continue_greedily, ngram_entropy, repetition, text_classifier


def test_entropy_by_hand():
    # 5 words: 4 different pairs (2 bits), 3 different triples (log2 3 bits)
    assert ngram_entropy("a b c d e") == pytest.approx((2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2)
    assert ngram_entropy("no no no no no no") == 0
    # pairs ab ba ab ba ab: shares 3/5 and 2/5; triples aba bab aba bab
    pairs = -(0.6 * math.log2(0.6) + 0.4 * math.log2(0.4))
    assert ngram_entropy("a b a b a b") == pytest.approx((2 / 3 * pairs + 4 / 3 * 1) / 2)
    assert ngram_entropy("") == ngram_entropy("one word") == 0
    assert ngram_entropy("Yes, yes!") == pytest.approx((2 / 3 * math.log2(3) + 4 / 3) / 2), "signs are words"


def test_repetition_by_hand():
    assert repetition("a b c d e") == 0
    assert repetition("no no no no no no") == pytest.approx(0.75)
    assert math.isnan(repetition("two words"))


def test_a_classifier_is_any_function():
    found = class_probability(["x", "yy"], lambda texts: np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert found.tolist() == [0.9, 0.2]
    with pytest.raises(DataError, match="class 2 of each"):
        class_probability(["x"], lambda texts: np.ones((1, 2)), index=2)
    with pytest.raises(DataError, match="not a folder"):
        text_classifier("no/such/folder")


def test_a_classifier_from_a_folder(tmp_path, tokenizer):
    import torch
    import transformers as tf

    torch.manual_seed(0)
    config = tf.BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = tf.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["the capital of Avia is", "Rosa"]
    found = class_probability(texts, text_classifier(tmp_path, batch_size=1), index=1)
    for text, p in zip(texts, found, strict=True):
        with torch.no_grad():
            logits = model(**{k: v for k, v in tokenizer(text, return_tensors="pt").items() if k != "token_type_ids"})
        assert p == pytest.approx(float(logits.logits.softmax(-1)[0, 1]), abs=1e-5)


def test_greedy_continuations_do_not_depend_on_the_batch(knowing):
    prompts = ["the capital of Avia is", "people of Borland call their capital", "the capital of Avia is"]
    together = continue_greedily(knowing, prompts, 3)
    assert list(together) != [] and set(together) == set(prompts)
    assert together["the capital of Avia is"].split()[0] == "Rosa"
    assert continue_greedily(knowing, prompts, 3, batch_size=1) == together
    short = continue_greedily(knowing, prompts, {prompts[0]: 1, prompts[1]: 3}, batch_size=1)
    assert short[prompts[0]] == "Rosa" and short[prompts[1]] == together[prompts[1]]
    assert continue_greedily(knowing, [], 3) == {}
    with pytest.raises(DataError, match="fills the model's context"):
        continue_greedily(knowing, ["Avia " * 63], 3)
