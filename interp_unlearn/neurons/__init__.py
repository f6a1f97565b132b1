"""Knowledge neurons: which neurons an answer comes from, which of them to change, and in which weights they live.

Example:
    >>> found = attribute(model, ["The capital of France is"], ["Paris"])
    >>> found.top(5), found.gap
    >>> neurons = select_neurons(found.over_prompts(), ratio=0.05)
    >>> control = matched_random(neurons, seed=0)
"""

from interp_unlearn.neurons._attribute import attribute as attribute
from interp_unlearn.neurons._attribute import attribute_batch as attribute_batch
from interp_unlearn.neurons._change import attribution_change as attribution_change
from interp_unlearn.neurons._config import AttributionConfig as AttributionConfig
from interp_unlearn.neurons._klue import KlueScores as KlueScores
from interp_unlearn.neurons._klue import Regularised as Regularised
from interp_unlearn.neurons._klue import draw_contexts as draw_contexts
from interp_unlearn.neurons._klue import klue_scores as klue_scores
from interp_unlearn.neurons._result import Attribution as Attribution
from interp_unlearn.neurons._select import NeuronSet as NeuronSet
from interp_unlearn.neurons._select import matched_random as matched_random
from interp_unlearn.neurons._select import select_neurons as select_neurons
from interp_unlearn.neurons._select import shared_neurons as shared_neurons
from interp_unlearn.neurons._weights import NEURON_WEIGHTS as NEURON_WEIGHTS
from interp_unlearn.neurons._weights import NeuronWeights as NeuronWeights
from interp_unlearn.neurons._weights import neuron_masks as neuron_masks
