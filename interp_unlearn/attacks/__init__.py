"""Attacks: what brings forgotten knowledge back? Every attack leaves the weights as it found them, bit for bit.

Each attack is a function of one model and a task (stitching: of a run's phases), is registered in `attacks`, and is a
part of the evidence (kind ``"attack"``) under the same name. Each gives one ``recovery/<attack>``: the recall of the
target that it brought back, beside the same on gold or on facts that were never known.

Example:
    >>> found = quantise_attack(model, task)
    >>> found.evidence[0].value, found.evidence[0].control
    >>> run_attack("relearn_rest", model, task).evidence            # the same by name
    >>> stitch_attack(LivePhases(model, task, edited=delta)).evidence
"""

from interp_unlearn.attacks._ask_config import AskConfig as AskConfig
from interp_unlearn.attacks._asked import neighbour_prompts as neighbour_prompts
from interp_unlearn.attacks._asked import stand_ins as stand_ins
from interp_unlearn.attacks._asked import target_prompts as target_prompts
from interp_unlearn.attacks._asking import Asked as Asked
from interp_unlearn.attacks._asking import Asking as Asking
from interp_unlearn.attacks._catalogue import CATALOGUE as CATALOGUE
from interp_unlearn.attacks._config import RelearnConfig as RelearnConfig
from interp_unlearn.attacks._curve import RelearnCurve as RelearnCurve
from interp_unlearn.attacks._curve import curve_area as curve_area
from interp_unlearn.attacks._curve import steps_to_level as steps_to_level
from interp_unlearn.attacks._damage import NoiseConfig as NoiseConfig
from interp_unlearn.attacks._damage import PruneConfig as PruneConfig
from interp_unlearn.attacks._damage import noise_attack as noise_attack
from interp_unlearn.attacks._damage import prune_attack as prune_attack
from interp_unlearn.attacks._damage import prune_smallest as prune_smallest
from interp_unlearn.attacks._evidence import relearn_evidence as relearn_evidence
from interp_unlearn.attacks._guard import select_weights as select_weights
from interp_unlearn.attacks._guard import weights_kept as weights_kept
from interp_unlearn.attacks._lora import lora_added as lora_added
from interp_unlearn.attacks._parts import VARIANTS as VARIANTS
from interp_unlearn.attacks._prompting import PromptConfig as PromptConfig
from interp_unlearn.attacks._prompting import prompts_attack as prompts_attack
from interp_unlearn.attacks._protocol import Attack as Attack
from interp_unlearn.attacks._protocol import AttackResult as AttackResult
from interp_unlearn.attacks._protocol import attacks as attacks
from interp_unlearn.attacks._protocol import run_attack as run_attack
from interp_unlearn.attacks._quantise import QuantiseConfig as QuantiseConfig
from interp_unlearn.attacks._quantise import quantise_attack as quantise_attack
from interp_unlearn.attacks._quantise import round_to_nearest as round_to_nearest
from interp_unlearn.attacks._readout import ReadoutConfig as ReadoutConfig
from interp_unlearn.attacks._readout import readout_attack as readout_attack
from interp_unlearn.attacks._recovery import recovery_evidence as recovery_evidence
from interp_unlearn.attacks._relearn import RelearnAttack as RelearnAttack
from interp_unlearn.attacks._relearn import relearn as relearn
from interp_unlearn.attacks._relearn_items import ItemRelearnConfig as ItemRelearnConfig
from interp_unlearn.attacks._relearn_items import relearn_items as relearn_items
from interp_unlearn.attacks._relearn_parts import RelearnVariant as RelearnVariant
from interp_unlearn.attacks._sampling import SamplingConfig as SamplingConfig
from interp_unlearn.attacks._sampling import answer_chances as answer_chances
from interp_unlearn.attacks._sampling import sampling_attack as sampling_attack
from interp_unlearn.attacks._sets import RelearnSets as RelearnSets
from interp_unlearn.attacks._sets import never_known_sets as never_known_sets
from interp_unlearn.attacks._sets import target_sets as target_sets
from interp_unlearn.attacks._stitch import StitchConfig as StitchConfig
from interp_unlearn.attacks._stitch import stitch_attack as stitch_attack
from interp_unlearn.attacks._stitch import stitch_part as stitch_part
