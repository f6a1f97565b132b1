"""Attacks: what brings forgotten knowledge back? Every attack leaves the weights as it found them, bit for bit.

Example:
    >>> curve = relearn(model, task, RelearnConfig(steps=24))
    >>> relearn_evidence(curve.target, curve.control).value
    >>> run_attack("relearn", model, task).evidence            # the same by name
"""

from interp_unlearn.attacks._config import RelearnConfig as RelearnConfig
from interp_unlearn.attacks._curve import RelearnCurve as RelearnCurve
from interp_unlearn.attacks._curve import curve_area as curve_area
from interp_unlearn.attacks._curve import steps_to_level as steps_to_level
from interp_unlearn.attacks._evidence import relearn_evidence as relearn_evidence
from interp_unlearn.attacks._guard import select_weights as select_weights
from interp_unlearn.attacks._guard import weights_kept as weights_kept
from interp_unlearn.attacks._protocol import Attack as Attack
from interp_unlearn.attacks._protocol import AttackResult as AttackResult
from interp_unlearn.attacks._protocol import attacks as attacks
from interp_unlearn.attacks._protocol import run_attack as run_attack
from interp_unlearn.attacks._relearn import RelearnAttack as RelearnAttack
from interp_unlearn.attacks._relearn import relearn as relearn
from interp_unlearn.attacks._sets import RelearnSets as RelearnSets
from interp_unlearn.attacks._sets import never_known_sets as never_known_sets
from interp_unlearn.attacks._sets import target_sets as target_sets
