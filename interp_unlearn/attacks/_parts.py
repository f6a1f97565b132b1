"""Every attack under its name: as an attack on one model, and as a part of the evidence."""

from __future__ import annotations

from interp_unlearn.attacks._damage import NOISE, PRUNE
from interp_unlearn.attacks._prompting import PROMPTS
from interp_unlearn.attacks._protocol import attacks
from interp_unlearn.attacks._quantise import QUANTISE
from interp_unlearn.attacks._readout import READOUT
from interp_unlearn.attacks._relearn_parts import VARIANTS
from interp_unlearn.attacks._sampling import SAMPLING
from interp_unlearn.attacks._stitch import stitch_part
from interp_unlearn.probes import register_part

for attack in (READOUT, PROMPTS, QUANTISE, SAMPLING, NOISE, PRUNE, *VARIANTS):
    attacks.register(attack.name)(attack)
    register_part(attack.part())
register_part(stitch_part())  # it needs two models, so it is no attack on one
