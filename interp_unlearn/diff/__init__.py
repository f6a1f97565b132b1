"""Before ↔ after: what moved in activations, SAE latents, neurons and weights.

Comparisons are paired (the same rows in two models) and descriptive: they say where and how far something moved, not
whether knowledge is gone; that is for `probes`. Two of them are also parts of the evidence of a run, with controls:
``weights`` (`weights_evidence`) and ``neurons`` (`overlap_evidence`); ``site_map``, ``latents`` and ``neuron_map`` are
parts that save tables for pictures (docs/views.md). Arrays are named ``diff.<measure>`` (weights: ``<measure>``), and
those with axes (site, group) can be drawn as layer curves.

Example:
    >>> for table in compare_activations(before, after):
    ...     print(table.name, table.at(site="blocks.12.hook_resid_post", group="target"))
"""

from interp_unlearn.diff._activations import compare_activations as compare_activations
from interp_unlearn.diff._changed import Changed as Changed
from interp_unlearn.diff._changed import changed_tensors as changed_tensors
from interp_unlearn.diff._graph_cost import graph_cost as graph_cost
from interp_unlearn.diff._graph_reach import graph_reach as graph_reach
from interp_unlearn.diff._latent_ranking import latent_ranking as latent_ranking
from interp_unlearn.diff._latent_view import dashboards as dashboards
from interp_unlearn.diff._latents import compare_latents as compare_latents
from interp_unlearn.diff._neuron_overlap import Overlap as Overlap
from interp_unlearn.diff._neuron_overlap import OverlapConfig as OverlapConfig
from interp_unlearn.diff._neuron_overlap import moved_weights as moved_weights
from interp_unlearn.diff._neuron_overlap import neuron_overlap as neuron_overlap
from interp_unlearn.diff._neuron_overlap import overlap_evidence as overlap_evidence
from interp_unlearn.diff._neuron_view import neuron_tables as neuron_tables
from interp_unlearn.diff._neurons import compare_neurons as compare_neurons
from interp_unlearn.diff._site_map import site_map as site_map
from interp_unlearn.diff._weights import compare_weights as compare_weights
from interp_unlearn.diff._weights_evidence import WEIGHTS as WEIGHTS
from interp_unlearn.diff._weights_evidence import block_changes as block_changes
from interp_unlearn.diff._weights_evidence import centre_and_breadth as centre_and_breadth
from interp_unlearn.diff._weights_evidence import rounding as rounding
from interp_unlearn.diff._weights_evidence import weights_evidence as weights_evidence
from interp_unlearn.hooked import LinearCKA as LinearCKA
from interp_unlearn.hooked import linear_cka as linear_cka
