"""Evidence from representations: is the target's activation still that of something the model knows?

Every probe is a function of labelled activations (`hooked.Activations`: one row per observation; label ``group``, and
where they exist ``entity`` and ``template``) of the original and the edited model, and gives `Evidence`: a value with
its 95 % interval, a control, the direction of a forgotten target, and what it does not show. Intervals resample
entities and templates; with one target entity they rest on templates alone. Only `mention_activations` and the logit
lens read language models; the rest does not ask what kind of model the rows came from.

Example:
    >>> sites = residual_sites(model)
    >>> before = mention_activations(model, task, sites)
    >>> ...  # forget
    >>> after = mention_activations(model, task, sites)
    >>> found = run_probes(before, after, site=sae.site, sae=sae)

Names of evidence (``<basis>`` is ``residual``, ``sae``, ``sae2`` or a name of your own; `CATALOGUE` has them with their
questions, directions and caveats):

- ``alignment.t/<basis>``, ``alignment.r/<basis>``, ``alignment.ratio/<basis>``: place on and off the known–unknown axis
- ``alignment.separation/<basis>``: are known and unknown bystanders still apart
- ``alignment.layers_t/residual``, ``alignment.layers_r/residual``: the same at every layer; the worst one
- ``two_sample.auc/<basis>``, ``two_sample.auc_set/<basis>``: classifier, target against unknown entities
- ``two_sample.energy/<basis>``, ``two_sample.mmd/<basis>``: distances with permutation p-values
- ``firing.known/<basis>``, ``firing.unknown/<basis>``: latents that mark known and unknown entities
- ``sae.fvu/<basis>``, ``sae.l0/<basis>``, ``norm.ratio/<site>``: health
- ``probe.accuracy/<site>``, ``probe.unknown_fraction/<site>``, ``probe.fresh_unknown_fraction/<site>``: linear probe
- ``lens.margin/<set>``: logit lens, from two tables of `logit_lens`

Probes that look for the answer itself (``<position>`` is ``prompt`` or ``name``; `READING` is their catalogue):

- ``attribute.selectivity/<position>``, ``attribute.best/<position>``, ``attribute.mean/<position>``,
  ``attribute.bystanders/<position>``: the original's readout of the answer, applied to the edited model
- ``recognition.accuracy/<position>``, ``recognition.unknown/<position>``, ``recognition.fresh_unknown/<position>``:
  readouts of known and unknown
- ``lens.first/<set>``, ``lens.depth/<set>``, ``lens.half_depth/<set>``, and the same with ``tuned_lens.first/<set>``,
  ``tuned_lens.depth/<set>``, ``tuned_lens.half_depth/<set>``, ``tuned_lens.margin/<set>``: depth of the answer
- ``tuned_lens.kl/text``: how good the tuned lens is
- ``similarity.cka/<position>``, ``similarity.pca_shift/<position>``, ``similarity.pca_direction/<position>``: geometry

Evidence that puts states of one model into another or asks for gradients has its own catalogue, `PATCHING`
(``<place>`` is one of `PLACES`):

- ``uds.score/gold``, ``uds.score/unknown``: unlearning depth score
- ``patch_back.restored/<place>``, ``patch_back.lost/<place>``, ``patch_back.krs/both``: patch-back
- ``trace.total/name``, ``trace.indirect/<place>``: causal tracing
- ``fisher.trace/forget``, ``fisher.erasure/<share>``: diagonal Fisher information

Parts of kind *view* give no evidence but tables for pictures (docs/views.md): token maps and lens grids here, site
maps, latents and neurons in `diff`.
"""

from interp_unlearn.probes._alignment import alignment as alignment
from interp_unlearn.probes._alignment import alignment_by_layer as alignment_by_layer
from interp_unlearn.probes._answer_rows import AnswerRow as AnswerRow
from interp_unlearn.probes._answer_rows import answer_activations as answer_activations
from interp_unlearn.probes._answer_rows import answer_rows as answer_rows
from interp_unlearn.probes._answer_rows import answer_vectors as answer_vectors
from interp_unlearn.probes._attribute import attribute_probe as attribute_probe
from interp_unlearn.probes._axis import KnownUnknownAxis as KnownUnknownAxis
from interp_unlearn.probes._catalogue import CATALOGUE as CATALOGUE
from interp_unlearn.probes._catalogue_reading import READING as READING
from interp_unlearn.probes._depth import depth_evidence as depth_evidence
from interp_unlearn.probes._depth import first_depth as first_depth
from interp_unlearn.probes._depth import half_depth as half_depth
from interp_unlearn.probes._distances import TwoSampleResult as TwoSampleResult
from interp_unlearn.probes._distances import two_sample_test as two_sample_test
from interp_unlearn.probes._firing import firing as firing
from interp_unlearn.probes._firing import separating_latents as separating_latents
from interp_unlearn.probes._fisher import Fisher as Fisher
from interp_unlearn.probes._fisher import FisherConfig as FisherConfig
from interp_unlearn.probes._fisher import diagonal_fisher as diagonal_fisher
from interp_unlearn.probes._fisher import fisher_erasure as fisher_erasure
from interp_unlearn.probes._fisher import fisher_evidence as fisher_evidence
from interp_unlearn.probes._forced import PLACES as PLACES
from interp_unlearn.probes._forced import Forced as Forced
from interp_unlearn.probes._forced import forced as forced
from interp_unlearn.probes._forced import forced_spans as forced_spans
from interp_unlearn.probes._forced import pick_prompts as pick_prompts
from interp_unlearn.probes._health import norm_ratio as norm_ratio
from interp_unlearn.probes._health import sae_health as sae_health
from interp_unlearn.probes._image_maps import class_maps as class_maps
from interp_unlearn.probes._image_maps import map_site as map_site
from interp_unlearn.probes._image_probes import labels_of_probes as labels_of_probes
from interp_unlearn.probes._known_unknown import known_unknown_probe as known_unknown_probe
from interp_unlearn.probes._lens import LensStates as LensStates
from interp_unlearn.probes._lens import lens_evidence as lens_evidence
from interp_unlearn.probes._lens import lens_states as lens_states
from interp_unlearn.probes._lens import logit_lens as logit_lens
from interp_unlearn.probes._lens import read_lens as read_lens
from interp_unlearn.probes._lens_grid import logit_lens_grid as logit_lens_grid
from interp_unlearn.probes._lens_grid import read_grid as read_grid
from interp_unlearn.probes._lens_view import lens_view as lens_view
from interp_unlearn.probes._linear import LinearProbe as LinearProbe
from interp_unlearn.probes._linear import ProbeScore as ProbeScore
from interp_unlearn.probes._linear import fit_linear_probe as fit_linear_probe
from interp_unlearn.probes._linear import score_linear_probe as score_linear_probe
from interp_unlearn.probes._mentions import mention_activations as mention_activations
from interp_unlearn.probes._mentions import residual_sites as residual_sites
from interp_unlearn.probes._parts import LEVELS as LEVELS
from interp_unlearn.probes._parts import PARTS as PARTS
from interp_unlearn.probes._parts import Found as Found
from interp_unlearn.probes._parts import Level as Level
from interp_unlearn.probes._parts import Part as Part
from interp_unlearn.probes._parts import parts_of as parts_of
from interp_unlearn.probes._parts import register_part as register_part
from interp_unlearn.probes._patch_back import PatchBackConfig as PatchBackConfig
from interp_unlearn.probes._patch_back import exchange as exchange
from interp_unlearn.probes._patch_back import krs_curves as krs_curves
from interp_unlearn.probes._patch_back import lost_share as lost_share
from interp_unlearn.probes._patch_back import patch_controls as patch_controls
from interp_unlearn.probes._patch_back import patch_states as patch_states
from interp_unlearn.probes._patch_back import restored_share as restored_share
from interp_unlearn.probes._patch_back import retrieval_score as retrieval_score
from interp_unlearn.probes._patch_back_evidence import patch_back_evidence as patch_back_evidence
from interp_unlearn.probes._patch_catalogue import PATCHING as PATCHING
from interp_unlearn.probes._patching import Patcher as Patcher
from interp_unlearn.probes._patching import Plan as Plan
from interp_unlearn.probes._patching import run_plans as run_plans
from interp_unlearn.probes._patching import states as states
from interp_unlearn.probes._phases import LivePhases as LivePhases
from interp_unlearn.probes._phases import Measured as Measured
from interp_unlearn.probes._phases import Phases as Phases
from interp_unlearn.probes._phases import swapped as swapped
from interp_unlearn.probes._prompt_states import PromptStates as PromptStates
from interp_unlearn.probes._prompt_states import prompt_states as prompt_states
from interp_unlearn.probes._reading_parts import lens_texts as lens_texts
from interp_unlearn.probes._readout import Readout as Readout
from interp_unlearn.probes._readout import fit_readout as fit_readout
from interp_unlearn.probes._recognition import recognition_probe as recognition_probe
from interp_unlearn.probes._rows import GROUPS as GROUPS
from interp_unlearn.probes._rows import Dictionary as Dictionary
from interp_unlearn.probes._rows import Rows as Rows
from interp_unlearn.probes._rows import check_dictionary as check_dictionary
from interp_unlearn.probes._rows import decode as decode
from interp_unlearn.probes._rows import encode as encode
from interp_unlearn.probes._rows import features as features
from interp_unlearn.probes._rows import rows_of as rows_of
from interp_unlearn.probes._run import run_probes as run_probes
from interp_unlearn.probes._similarity import pca_direction as pca_direction
from interp_unlearn.probes._similarity import pca_shift as pca_shift
from interp_unlearn.probes._similarity import similarity as similarity
from interp_unlearn.probes._token_map import token_map as token_map
from interp_unlearn.probes._trace import TraceConfig as TraceConfig
from interp_unlearn.probes._trace import causal_trace as causal_trace
from interp_unlearn.probes._trace import embedding_std as embedding_std
from interp_unlearn.probes._trace import trace_evidence as trace_evidence
from interp_unlearn.probes._tuned_lens import TunedLens as TunedLens
from interp_unlearn.probes._tuned_lens import TunedLensConfig as TunedLensConfig
from interp_unlearn.probes._tuned_lens import fit_tuned_lens as fit_tuned_lens
from interp_unlearn.probes._two_sample import indistinguishability as indistinguishability
from interp_unlearn.probes._uds import Depth as Depth
from interp_unlearn.probes._uds import UDSConfig as UDSConfig
from interp_unlearn.probes._uds import depth_states as depth_states
from interp_unlearn.probes._uds import removal as removal
from interp_unlearn.probes._uds import uds_evidence as uds_evidence
from interp_unlearn.probes._uds import unlearning_depth as unlearning_depth
from interp_unlearn.probes._unknown import unknown_states as unknown_states
from interp_unlearn.probes._view import view_prompts as view_prompts
