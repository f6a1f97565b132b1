"""Did attribution go away, or was it hidden under its opposite?"""

from __future__ import annotations

import numpy as np

from interp_unlearn._core import Axis, DataError, Labelled


def attribution_change(before: Labelled, after: Labelled) -> Labelled:
    """How much support for an answer was lost, and how much suppression of it has grown, in each layer.

    With ``A`` a neuron's score, summed over the neurons of a layer (and averaged over prompts)::

        lost support       D+ = max(A, 0) before - max(A, 0) after       erasing makes it large
        grown suppression  D- = max(-A, 0) after - max(-A, 0) before     hiding makes it large

    Score both models on the same prompts with ``target = "logprob"``: the probability itself shrinks every score of a
    model that no longer gives the answer, whatever the reason.

    Args:
        before: Scores of the original model, axes (prompt, layer, neuron) or (layer, neuron).
        after: Of the changed model, same axes.

    Returns:
        ``neurons.change``, axes (layer, quantity) with ``lost support`` and ``grown suppression``.

    Raises:
        DataError: If the two were not made alike.
    """
    if before.axes != after.axes:
        raise DataError("the two attributions have different prompts, layers or neurons; attribute the same prompts")
    for name in ("method", "target", "tokens", "aggregate"):
        if before.config.get(name) != after.config.get(name):
            raise DataError(f"the two attributions differ in {name}; make both with the same options")
    old, new = (x.values if x.values.ndim == 2 else x.values.mean(0) for x in (before, after))
    lost = (np.maximum(old, 0) - np.maximum(new, 0)).sum(1)
    grown = (np.maximum(-new, 0) - np.maximum(-old, 0)).sum(1)
    return Labelled(
        "neurons.change",
        np.stack([lost, grown], 1),
        (before.axes[-2], Axis("quantity", ("lost support", "grown suppression"))),
        n=before.n,
        mask_policy=before.mask_policy,
        config={k: v for k, v in before.config.items() if k != "logprob"},
        note="erased: much lost support and no grown suppression; hidden: the other way round",
    )
