"""Before ↔ after: what moved in activations, SAE latents, neurons and weights.

Comparisons are paired (the same rows in two models) and descriptive: they say where and how far something moved, not
whether knowledge is gone; that is for `probes`. Arrays are named ``diff.<measure>`` (weights: ``<measure>``), and those
with axes (site, group) can be drawn as layer curves.

Example:
    >>> for table in compare_activations(before, after):
    ...     print(table.name, table.at(site="blocks.12.hook_resid_post", group="target"))
"""

from interp_unlearn.diff._activations import compare_activations as compare_activations
from interp_unlearn.diff._latents import compare_latents as compare_latents
from interp_unlearn.diff._neurons import compare_neurons as compare_neurons
from interp_unlearn.diff._weights import compare_weights as compare_weights
from interp_unlearn.hooked import LinearCKA as LinearCKA
from interp_unlearn.hooked import linear_cka as linear_cka
