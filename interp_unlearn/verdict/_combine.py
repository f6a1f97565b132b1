"""Both stages together: five probabilities from the gates and the second stage."""

from __future__ import annotations

from collections.abc import Mapping

from interp_unlearn.verdict._label import LABELS


def combine(inner: Mapping[str, float], broken: float, kept: float, direct: float) -> dict[str, float]:
    """Probabilities of the five labels.

    P(broken) comes first, P(kept) from what is left, then the share ``direct`` of the rest is hidden because the fact
    was seen to come back (in other wordings, or under an attack), and the second stage divides what then remains.

    Args:
        inner: Probabilities of the second stage, which sum to 1.
        broken: Of the first gate.
        kept: Of the second gate.
        direct: Of having seen the target come back.
    """
    rest = (1 - broken) * (1 - kept)
    silent = rest * (1 - direct)
    out: dict[str, float] = {str(name): 0.0 for name in LABELS}
    out["broken"], out["kept"] = broken, (1 - broken) * kept
    for name, p in inner.items():
        out[name] += silent * p
    out["hidden"] += rest * direct
    return out
