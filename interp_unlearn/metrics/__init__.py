"""Behaviour of a language model: is the right answer likely, is it what greedy decoding says, does it rank first?

Example:
    >>> scores = behaviour_by_prompt(model, task)          # one number per prompt and metric, to keep
    >>> scores.summary().at(set="paraphrased", metric="exact")
    >>> behaviour_intervals(scores).at(set="paraphrased", metric="exact")
"""

from interp_unlearn.metrics._behaviour import behaviour as behaviour
from interp_unlearn.metrics._behaviour import behaviour_by_prompt as behaviour_by_prompt
from interp_unlearn.metrics._behaviour import behaviour_change as behaviour_change
from interp_unlearn.metrics._behaviour import behaviour_intervals as behaviour_intervals
from interp_unlearn.metrics._facts import METRICS as METRICS
from interp_unlearn.metrics._facts import MetricFacts as MetricFacts
from interp_unlearn.metrics._facts import metric_facts as metric_facts
from interp_unlearn.metrics._memo import MemoConfig as MemoConfig
from interp_unlearn.metrics._memo import MemoScores as MemoScores
from interp_unlearn.metrics._memo import memo as memo
from interp_unlearn.metrics._memo import memo_cuts as memo_cuts
from interp_unlearn.metrics._prompts import BEHAVIOUR_METRICS as BEHAVIOUR_METRICS
from interp_unlearn.metrics._prompts import PromptScores as PromptScores
from interp_unlearn.metrics._resample import bootstrap as bootstrap
from interp_unlearn.metrics._rouge import Rouge as Rouge
from interp_unlearn.metrics._rouge import rouge_l as rouge_l
from interp_unlearn.metrics._rouge import rouge_n as rouge_n
from interp_unlearn.metrics._rouge import rouge_words as rouge_words
from interp_unlearn.metrics._scoring import CandidateScores as CandidateScores
from interp_unlearn.metrics._scoring import score_candidates as score_candidates
from interp_unlearn.metrics._text import text_loss as text_loss
from interp_unlearn.metrics._text import text_loss_change as text_loss_change
