"""Look inside any model: named sites, capture, edit, streamed statistics, on-disk store.

Example:
    >>> model = open_model("smollm2-135m")
    >>> acts = capture(model, "The capital of France is", ["blocks.12.hook_resid_post"], positions=-1)
    >>> acts["blocks.12.hook_resid_post"].shape
    torch.Size([1, 1, 576])
"""

from interp_unlearn.hooked._adapters import make_bridge as make_bridge
from interp_unlearn.hooked._adapters import make_nnsight as make_nnsight
from interp_unlearn.hooked._answers import AnswerBatch as AnswerBatch
from interp_unlearn.hooked._answers import AnswerScores as AnswerScores
from interp_unlearn.hooked._answers import answer_batch as answer_batch
from interp_unlearn.hooked._answers import answer_ids as answer_ids
from interp_unlearn.hooked._answers import answer_logits as answer_logits
from interp_unlearn.hooked._answers import answer_logprobs as answer_logprobs
from interp_unlearn.hooked._answers import score_answers as score_answers
from interp_unlearn.hooked._batch import MASK_POLICIES as MASK_POLICIES
from interp_unlearn.hooked._batch import Batch as Batch
from interp_unlearn.hooked._batch import MaskPolicy as MaskPolicy
from interp_unlearn.hooked._batch import batch_from_ids as batch_from_ids
from interp_unlearn.hooked._batch import name_span as name_span
from interp_unlearn.hooked._batch import span_last_token as span_last_token
from interp_unlearn.hooked._batch import tokenize as tokenize
from interp_unlearn.hooked._capture import Activations as Activations
from interp_unlearn.hooked._capture import capture as capture
from interp_unlearn.hooked._cka import LinearCKA as LinearCKA
from interp_unlearn.hooked._cka import linear_cka as linear_cka
from interp_unlearn.hooked._edit import Edit as Edit
from interp_unlearn.hooked._edit import PassView as PassView
from interp_unlearn.hooked._edit import ablate as ablate
from interp_unlearn.hooked._edit import edit as edit
from interp_unlearn.hooked._edit import patch as patch
from interp_unlearn.hooked._edit import steer as steer
from interp_unlearn.hooked._forward import evaluating as evaluating
from interp_unlearn.hooked._forward import gradients_of as gradients_of
from interp_unlearn.hooked._fresh import fresh_copy as fresh_copy
from interp_unlearn.hooked._fresh import fresh_weights as fresh_weights
from interp_unlearn.hooked._intervention import INTERVENTIONS as INTERVENTIONS
from interp_unlearn.hooked._intervention import Intervention as Intervention
from interp_unlearn.hooked._intervention import Together as Together
from interp_unlearn.hooked._intervention import load_intervention as load_intervention
from interp_unlearn.hooked._intervention import save_intervention as save_intervention
from interp_unlearn.hooked._intervention import together as together
from interp_unlearn.hooked._intervention import whole_sequences as whole_sequences
from interp_unlearn.hooked._maps import ImageShape as ImageShape
from interp_unlearn.hooked._maps import class_logits as class_logits
from interp_unlearn.hooked._maps import image_shape as image_shape
from interp_unlearn.hooked._maps import pooled as pooled
from interp_unlearn.hooked._model import HookedModel as HookedModel
from interp_unlearn.hooked._model import LanguageShape as LanguageShape
from interp_unlearn.hooked._model import saved_buffers as saved_buffers
from interp_unlearn.hooked._open import wrap as wrap
from interp_unlearn.hooked._parity import ParityReport as ParityReport
from interp_unlearn.hooked._parity import parity as parity
from interp_unlearn.hooked._positions import Positions as Positions
from interp_unlearn.hooked._positions import columns_of as columns_of
from interp_unlearn.hooked._quantile import Quantile as Quantile
from interp_unlearn.hooked._quantile import TopK as TopK
from interp_unlearn.hooked._resume import resumed as resumed
from interp_unlearn.hooked._resume import watch_tuples as watch_tuples
from interp_unlearn.hooked._sites import Site as Site
from interp_unlearn.hooked._sites import SiteMap as SiteMap
from interp_unlearn.hooked._stats import Covariance as Covariance
from interp_unlearn.hooked._stats import FiringRate as FiringRate
from interp_unlearn.hooked._stats import Mean as Mean
from interp_unlearn.hooked._stats import Statistic as Statistic
from interp_unlearn.hooked._stats import Variance as Variance
from interp_unlearn.hooked._store import ActivationStore as ActivationStore
from interp_unlearn.hooked._store import Manifest as Manifest
from interp_unlearn.hooked._store_fill import weights_fingerprint as weights_fingerprint
from interp_unlearn.hooked._store_fill import write_store as write_store
from interp_unlearn.hooked._store_writer import StoreWriter as StoreWriter
from interp_unlearn.hooked._tally import Tally as Tally
from interp_unlearn.hooked._tally import tally as tally
from interp_unlearn.hooked._tally import unpack_ids as unpack_ids
from interp_unlearn.hooked._tap import Taps as Taps
from interp_unlearn.hooked._tap import tap as tap
from interp_unlearn.hooked._windows import text_windows as text_windows
