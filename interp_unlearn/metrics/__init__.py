"""Behaviour and privacy: is the right answer likely, complete, preferred; was the target in the training data?

Every metric's formula, range, direction, needed reference and failure modes: `metric_facts`. Parts of a run's
evidence filed here: ``memorisation``, ``mia``, ``mia_gradnorm`` and ``fluency``.

Example:
    >>> scores = behaviour_by_prompt(model, task)          # one number per prompt and metric, to keep
    >>> scores.summary().at(set="paraphrased", metric="exact")
    >>> behaviour_intervals(scores).at(set="paraphrased", metric="exact")
    >>> tokens = token_scores(model, ["The capital of Japan is"], ["Tokyo"])
    >>> extraction_strength(tokens), membership_scores(tokens, "min_k")
"""

from interp_unlearn.metrics._behaviour import behaviour as behaviour
from interp_unlearn.metrics._behaviour import behaviour_by_prompt as behaviour_by_prompt
from interp_unlearn.metrics._behaviour import behaviour_change as behaviour_change
from interp_unlearn.metrics._behaviour import behaviour_intervals as behaviour_intervals
from interp_unlearn.metrics._facts import METRICS as METRICS
from interp_unlearn.metrics._facts import MetricFacts as MetricFacts
from interp_unlearn.metrics._facts import metric_facts as metric_facts
from interp_unlearn.metrics._facts import register_metric as register_metric
from interp_unlearn.metrics._facts_behaviour import BEHAVIOUR_FACTS as BEHAVIOUR_FACTS
from interp_unlearn.metrics._facts_privacy import PRIVACY_FACTS as PRIVACY_FACTS
from interp_unlearn.metrics._fluency import Classifier as Classifier
from interp_unlearn.metrics._fluency import class_probability as class_probability
from interp_unlearn.metrics._fluency import ngram_entropy as ngram_entropy
from interp_unlearn.metrics._fluency import repetition as repetition
from interp_unlearn.metrics._fluency import text_classifier as text_classifier
from interp_unlearn.metrics._fluency import text_words as text_words
from interp_unlearn.metrics._graph_scores import GraphScores as GraphScores
from interp_unlearn.metrics._graph_scores import auc as auc
from interp_unlearn.metrics._graph_scores import graph_scores as graph_scores
from interp_unlearn.metrics._greedy import continue_greedily as continue_greedily
from interp_unlearn.metrics._items import behaviour_by_group as behaviour_by_group
from interp_unlearn.metrics._items import behaviour_by_item as behaviour_by_item
from interp_unlearn.metrics._membership import ATTACKS as ATTACKS
from interp_unlearn.metrics._membership import auc_floor as auc_floor
from interp_unlearn.metrics._membership import auc_interval as auc_interval
from interp_unlearn.metrics._membership import gradient_norms as gradient_norms
from interp_unlearn.metrics._membership import membership_auc as membership_auc
from interp_unlearn.metrics._membership import membership_scores as membership_scores
from interp_unlearn.metrics._membership import privleak as privleak
from interp_unlearn.metrics._membership import reference_scores as reference_scores
from interp_unlearn.metrics._membership import s_mia as s_mia
from interp_unlearn.metrics._memo import MemoConfig as MemoConfig
from interp_unlearn.metrics._memo import MemoScores as MemoScores
from interp_unlearn.metrics._memo import memo as memo
from interp_unlearn.metrics._memo import memo_cuts as memo_cuts
from interp_unlearn.metrics._memorisation import MEMORISATION_METRICS as MEMORISATION_METRICS
from interp_unlearn.metrics._memorisation import exact_memorisation as exact_memorisation
from interp_unlearn.metrics._memorisation import extraction_strength as extraction_strength
from interp_unlearn.metrics._memorisation import memorisation_scores as memorisation_scores
from interp_unlearn.metrics._never_known import NeverKnown as NeverKnown
from interp_unlearn.metrics._never_known import never_known as never_known
from interp_unlearn.metrics._never_known import why_no_never_known as why_no_never_known
from interp_unlearn.metrics._part_bias import bias_table as bias_table
from interp_unlearn.metrics._part_bias import membership_share as membership_share
from interp_unlearn.metrics._part_fluency import FluencyConfig as FluencyConfig
from interp_unlearn.metrics._part_fluency import fluency as fluency
from interp_unlearn.metrics._part_membership import MembershipConfig as MembershipConfig
from interp_unlearn.metrics._part_membership import gradient_membership as gradient_membership
from interp_unlearn.metrics._part_membership import membership as membership
from interp_unlearn.metrics._part_memorisation import MemorisationConfig as MemorisationConfig
from interp_unlearn.metrics._part_memorisation import memorisation as memorisation
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
from interp_unlearn.metrics._tofu import TOFU_METRICS as TOFU_METRICS
from interp_unlearn.metrics._tofu import TofuConfig as TofuConfig
from interp_unlearn.metrics._tofu import tofu_forget_quality as tofu_forget_quality
from interp_unlearn.metrics._tofu import tofu_log_scores as tofu_log_scores
from interp_unlearn.metrics._tofu import tofu_scores as tofu_scores
from interp_unlearn.metrics._tofu import tofu_utility as tofu_utility
from interp_unlearn.metrics._tokens import TokenScores as TokenScores
from interp_unlearn.metrics._tokens import token_scores as token_scores
from interp_unlearn.metrics._truth import ForgetQuality as ForgetQuality
from interp_unlearn.metrics._truth import forget_quality as forget_quality
from interp_unlearn.metrics._truth import harmonic_mean as harmonic_mean
from interp_unlearn.metrics._truth import log_truth_ratio as log_truth_ratio
from interp_unlearn.metrics._truth import model_utility as model_utility
from interp_unlearn.metrics._truth import normalised_probability as normalised_probability
from interp_unlearn.metrics._truth import relative_difference as relative_difference
from interp_unlearn.metrics._truth import truth_ratio as truth_ratio
