"""Facts of the metrics that read answers and generations. P, L, l_t and T are those of `MetricFacts`."""

from __future__ import annotations

import math

from interp_unlearn.metrics._facts import MetricFacts, register_metric

TEACHER_FORCED = "it gives the model the right beginning, so one early slip costs one token only"
ANSWER_FORM = "a true answer in other words counts as wrong"

BEHAVIOUR_FACTS = (
    MetricFacts(
        "probability",
        "answer probability",
        "P = exp((1/T) Σ l_t): the geometric mean of the right answer's token probabilities",
        reference="the original model; gold or unknown entities say how low 'does not know' is",
        failure_modes=(
            "falls when the model answers in other words, or in a full sentence, though it still knows",
            "falls on every prompt when the model is broken: read neighbours and text loss beside it",
            "comes back within a few fine-tuning steps when knowledge was only suppressed",
            "not comparable between tokenizers, nor between answers of very different length",
        ),
        not_to_be_confused=(
            "not the first token's probability: 'New' may be likely where 'New Delhi' is not. Not the probability of "
            "the whole string either, which is P to the power T."
        ),
    ),
    MetricFacts(
        "paraphrased_probability",
        "probability of the paraphrased answer",
        "P of the right answer in other words, after the same question",
        failure_modes=(
            "one paraphrase is one other wording: an answer may be trained away in both",
            "lower than P from the start, so only the change counts",
        ),
        missing_when="there is no paraphrased answer",
    ),
    MetricFacts(
        "exact",
        "exact match",
        "1 if greedy decoding begins with a right answer, i.e. every teacher-forced argmax is right",
        failure_modes=(
            "all or nothing: a right answer that is merely second best counts as forgotten",
            "models that start with 'the' or a newline score 0 and know the answer all the same",
            "an answer that is the beginning of a longer word counts as given",
        ),
        not_to_be_confused="not sampling: one argmax path, nothing drawn",
    ),
    MetricFacts(
        "choice",
        "multiple choice",
        "1 if the best right answer has a higher (1/T) Σ l_t than every wrong option of the same type",
        reference="chance, 1 / (1 + number of options) with one right answer: stored with the result",
        failure_modes=(
            "below chance is not forgetting but suppression: the answer is recognised and avoided",
            "easy options make it high: it only says that the answer beats these",
            "normalising by length favours long names whose later tokens are foregone ('Porto-Novo')",
        ),
        not_to_be_confused="options are scored as continuations of the prompt, not shown to the model as a list",
        missing_when="the prompt has no wrong options",
    ),
    MetricFacts(
        "choice_margin",
        "margin of the right answer",
        "(1/T) Σ l_t of the best right answer minus that of the best wrong option",
        unit="nats per token",
        low=-math.inf,
        high=math.inf,
        reference="the original model; 0 is 'no preference'",
        failure_modes=(
            "strongly negative is suppression, not absence: unknown facts sit a little below 0",
            "its scale differs between models",
        ),
        missing_when="the prompt has no wrong options",
    ),
    MetricFacts(
        "text_loss",
        "loss on held-out text",
        "mean of -log p(token | tokens before it) over the counted tokens of a text",
        unit="nats per token",
        high=math.inf,
        on_forget="-",
        on_retain="down",
        reference="the original model on the same texts with the same tokenizer",
        failure_modes=(
            "an average over common words: a model can lose a topic and hardly move it",
            "the first token of a text is predicted only if a special token precedes it",
            "not comparable between tokenizers",
        ),
        not_to_be_confused="nats per token, not perplexity (its exponential) and not bits",
        missing_when="there is no held-out text",
    ),
    MetricFacts(
        "memo",
        "MEMO",
        "mean over cuts of ROUGE-1 precision between the greedy continuation and the rest of the text",
        reference="the original model, and the same measure on answers that are false",
        failure_modes=(
            "a precision rewards stopping early: read the number of words and the recall beside it",
            "a model that never stops scores near 0 though it begins with the whole answer (length = 'label')",
            "cuts lie inside words, so the first word of a label is a fragment",
            "a label of punctuation only scores 0, so perfect recall can stay below 1",
        ),
        not_to_be_confused="exact match: MEMO gives the model the beginning of the answer",
    ),
    MetricFacts(
        "normalised_probability",
        "probability among options",
        "P(right) / (P(right) + Σ_j P(wrong_j) + 1e-10)",
        reference="chance, 1 / (1 + number of wrong answers)",
        failure_modes=(
            "below chance is suppression: the answer is recognised and avoided",
            "a broken model that finds everything equally unlikely sits at chance, as an ignorant one does",
            "depends on how many wrong answers there are and how plausible they are",
        ),
        not_to_be_confused="not calibrated: P is a geometric mean over tokens, not the probability of a string",
        missing_when="there are no wrong answers",
    ),
    MetricFacts(
        "rouge_l_recall",
        "ROUGE-L recall",
        "longest common subsequence of words of greedy output and answer, over the answer's words (stemmed)",
        failure_modes=(
            "a recall rewards long output: every word of the answer may come up by chance",
            ANSWER_FORM,
            "function words count like names: a wrong answer in the right form scores high",
            "depends on how many tokens may be generated",
        ),
    ),
    MetricFacts(
        "rouge_1_recall",
        "ROUGE-1 recall",
        "share of the answer's words that the greedy output has, in any order (stemmed)",
        failure_modes=("as ROUGE-L, and blind to the order of words", ANSWER_FORM),
    ),
    MetricFacts(
        "exact_memorisation",
        "exact memorisation",
        "share of the answer's tokens that equal the teacher-forced argmax; the end token is left out",
        failure_modes=(
            TEACHER_FORCED,
            "function words and the tails of names ('Porto-N|ovo') are right in models that never saw the fact",
            "with answers of one token it is exact match",
        ),
        not_to_be_confused="exact match, which asks for every token",
    ),
    MetricFacts(
        "extraction_strength",
        "extraction strength",
        "1 - k/T, k = the shortest prefix of the answer after which every remaining argmax is right",
        failure_modes=(
            "published code gives 1/T, not 0, when the last argmax is wrong, so an answer of one token always scores 1",
            "one wrong last token (punctuation) takes everything",
            "with answers of one or two tokens it has two or three values",
        ),
        not_to_be_confused="exact memorisation, which does not ask that right tokens stand together at the end",
    ),
    MetricFacts(
        "truth_ratio",
        "truth ratio",
        "TR = P(wrong)/P(right), P(wrong) = exp(-mean_j L(wrong_j)); on the forget set min(TR, 1/TR)",
        on_forget="up",
        reference="1 means no preference; gold says what a model that never saw the target prefers",
        failure_modes=(
            "min(TR, 1/TR) is low for a model that knows the answer and for one that avoids it: read log TR",
            "a broken model comes near 1, as an ignorant one does",
            "the mean is over losses, so one absurd wrong answer moves it much",
        ),
        not_to_be_confused="on retained sets it is max(0, 1 - TR), up; published code of 2024 stores 1/TR",
        missing_when="there are no wrong answers",
    ),
    MetricFacts(
        "log_truth_ratio",
        "log truth ratio",
        "log TR = L(right) - mean_j L(wrong_j); below 0 the right answer is preferred, above 0 it is avoided",
        unit="nats per token",
        low=-math.inf,
        high=math.inf,
        on_forget="near",
        on_retain="down",
        reference="gold, or unknown entities with assigned answers",
        failure_modes=("its scale differs between models", "averages of both signs cancel"),
        missing_when="there are no wrong answers",
    ),
    MetricFacts(
        "forget_quality",
        "forget quality",
        "p-value of the two-sample Kolmogorov–Smirnov test of truth ratios, edited against gold; read D beside it",
        on_forget="up",
        on_retain="-",
        reference="gold",
        failure_modes=(
            "a p-value depends on the number of questions and spans hundreds of orders of magnitude: read D",
            "passes through high values by accident while a model collapses: read utility beside it",
            "questions about one entity are not independent, as the test assumes",
        ),
        not_to_be_confused="an effect size, which D is (0 best)",
        missing_when="there is no gold model, or fewer than 2 questions",
    ),
    MetricFacts(
        "model_utility",
        "model utility",
        "harmonic mean of probability, ROUGE-L recall and max(0, 1 - TR) on retained, real-author and world-fact sets",
        on_forget="-",
        failure_modes=(
            "one number of nine that is 0 makes it 0",
            "hides which of the nine fell",
            "probability is plain on the retained set and normalised over options on the other two",
        ),
        missing_when="one of the three sets was not measured",
    ),
    MetricFacts(
        "entropy",
        "entropy where the answer begins",
        "H = -Σ_v p_v log p_v of the first answer token's distribution",
        unit="nats",
        high=math.inf,
        on_forget="near",
        on_retain="-",
        reference="unknown entities, asked the same",
        failure_modes=(
            "high in a broken model and in an ignorant one",
            "low after a refusal or a false answer was trained in",
        ),
    ),
    MetricFacts(
        "confidence",
        "confidence where the answer begins",
        "max_v p_v of the first answer token's distribution",
        on_forget="near",
        on_retain="-",
        reference="unknown entities, asked the same",
        failure_modes=("says nothing about which token is likely", "high after a refusal was trained in"),
    ),
    MetricFacts(
        "ngram_entropy",
        "n-gram entropy",
        "mean of 2/3 H_2 and 4/3 H_3, entropies in bits of the pairs and triples of words of one generation",
        unit="bits",
        high=math.inf,
        on_forget="-",
        reference="the original model's generations of the same length",
        failure_modes=(
            "grows with length: a model that stops early seems repetitive",
            "word salad has the highest entropy of all: it detects repetition, not nonsense",
            "texts of one or two words count as 0",
        ),
    ),
    MetricFacts(
        "repetition",
        "repetition",
        "1 - distinct / all triples of words of one generation",
        on_forget="-",
        on_retain="down",
        reference="the original model's generations",
        failure_modes=("small base models repeat themselves before any unlearning",),
        missing_when="the generations have fewer than 3 words",
    ),
    MetricFacts(
        "class_probability",
        "probability of clean text",
        "softmax probability of one class (by default class 0) of a text classifier on the generations",
        on_forget="up",
        reference="the original model's generations",
        failure_modes=(
            "only as good as the classifier: short factual answers may be foreign to it",
            "which class means 'clean' differs between classifiers",
        ),
        missing_when="no classifier is given",
    ),
    MetricFacts(
        "rel_diff",
        "relative difference",
        "100 (m - m_ref) / (m_ref + 1e-10)",
        unit="%",
        low=-math.inf,
        high=math.inf,
        on_forget="near",
        on_retain="near",
        reference="gold's value of the same metric, or a given one",
        failure_modes=("explodes where the reference is near 0", "treats overshoot and undershoot of one size alike"),
        missing_when="there is no reference value",
    ),
)

for _facts in BEHAVIOUR_FACTS:
    register_metric(_facts)
