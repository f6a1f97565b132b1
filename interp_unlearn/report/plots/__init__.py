"""Figures from saved results: every picture of the report, the explorer and the notebooks is a function here.

Each takes `Labelled` arrays (or events) and returns a plotly figure; none computes what a run should have saved.

Example:
    >>> figure = layer_curves({"before": before, "npo": after}, "Alignment by layer", "A", methods=["npo"])
    >>> figure.show()
"""

from interp_unlearn.report.plots._attacks import attack_levels as attack_levels
from interp_unlearn.report.plots._behaviour import behaviour_dots as behaviour_dots
from interp_unlearn.report.plots._board import Point as Point
from interp_unlearn.report.plots._board import forgetting_scatter as forgetting_scatter
from interp_unlearn.report.plots._data import has as has
from interp_unlearn.report.plots._data import layer_of as layer_of
from interp_unlearn.report.plots._data import pick as pick
from interp_unlearn.report.plots._data import set_words as set_words
from interp_unlearn.report.plots._data import split_module as split_module
from interp_unlearn.report.plots._evidence import evidence_dots as evidence_dots
from interp_unlearn.report.plots._export import figures_csv as figures_csv
from interp_unlearn.report.plots._features import feature_changes as feature_changes
from interp_unlearn.report.plots._generic import MAX_DIMENSIONS as MAX_DIMENSIONS
from interp_unlearn.report.plots._generic import generic as generic
from interp_unlearn.report.plots._graph import hop_curves as hop_curves
from interp_unlearn.report.plots._graph import neighbourhood as neighbourhood
from interp_unlearn.report.plots._images import CHECKS as CHECKS
from interp_unlearn.report.plots._images import group_bars as group_bars
from interp_unlearn.report.plots._images import partition_bars as partition_bars
from interp_unlearn.report.plots._images import picture_grid as picture_grid
from interp_unlearn.report.plots._images import probe_curves as probe_curves
from interp_unlearn.report.plots._latent_dashboard import latent_contexts as latent_contexts
from interp_unlearn.report.plots._latent_dashboard import latent_histogram as latent_histogram
from interp_unlearn.report.plots._latent_dashboard import latent_logits as latent_logits
from interp_unlearn.report.plots._latent_ranking import latent_ranking as latent_ranking
from interp_unlearn.report.plots._latents import latent_bars as latent_bars
from interp_unlearn.report.plots._layers import drift_curves as drift_curves
from interp_unlearn.report.plots._layers import layer_curves as layer_curves
from interp_unlearn.report.plots._lens import lens_curves as lens_curves
from interp_unlearn.report.plots._lens import lens_grid as lens_grid
from interp_unlearn.report.plots._neurons import neuron_layers as neuron_layers
from interp_unlearn.report.plots._neurons import neuron_map as neuron_map
from interp_unlearn.report.plots._next_tokens import next_token_bars as next_token_bars
from interp_unlearn.report.plots._prompts import prompt_choices as prompt_choices
from interp_unlearn.report.plots._prompts import prompt_slice as prompt_slice
from interp_unlearn.report.plots._relearn import relearn_curves as relearn_curves
from interp_unlearn.report.plots._scatter import alignment_scatter as alignment_scatter
from interp_unlearn.report.plots._series import series as series
from interp_unlearn.report.plots._sites import SITE_MEASURES as SITE_MEASURES
from interp_unlearn.report.plots._sites import site_map as site_map
from interp_unlearn.report.plots._style import RESERVED as RESERVED
from interp_unlearn.report.plots._style import TEMPLATE as TEMPLATE
from interp_unlearn.report.plots._style import THEMES as THEMES
from interp_unlearn.report.plots._style import Style as Style
from interp_unlearn.report.plots._style import finish as finish
from interp_unlearn.report.plots._style import plain as plain
from interp_unlearn.report.plots._style import styles as styles
from interp_unlearn.report.plots._style import themed as themed
from interp_unlearn.report.plots._tokens import TOKEN_MEASURES as TOKEN_MEASURES
from interp_unlearn.report.plots._tokens import token_map as token_map
from interp_unlearn.report.plots._training import evaluation_curves as evaluation_curves
from interp_unlearn.report.plots._training import training_curves as training_curves
from interp_unlearn.report.plots._weights import weight_map as weight_map
