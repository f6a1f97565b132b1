"""Objectives: one paper, one file. Importing this package registers them all."""

from interp_unlearn.unlearn.objectives._refusals import HELDOUT_REFUSALS as HELDOUT_REFUSALS
from interp_unlearn.unlearn.objectives._refusals import REFUSALS as REFUSALS
from interp_unlearn.unlearn.objectives.altpo import AltPO as AltPO
from interp_unlearn.unlearn.objectives.ceu import CEU as CEU
from interp_unlearn.unlearn.objectives.crisp import CRISP as CRISP
from interp_unlearn.unlearn.objectives.d2dgn import D2DGN as D2DGN
from interp_unlearn.unlearn.objectives.descent_to_delete import DescentToDelete as DescentToDelete
from interp_unlearn.unlearn.objectives.dpo import DPO as DPO
from interp_unlearn.unlearn.objectives.dsg import DSG as DSG
from interp_unlearn.unlearn.objectives.flat import FLAT as FLAT
from interp_unlearn.unlearn.objectives.ga import GradientAscent as GradientAscent
from interp_unlearn.unlearn.objectives.gnndelete import GNNDelete as GNNDelete
from interp_unlearn.unlearn.objectives.grad_diff import GradDiff as GradDiff
from interp_unlearn.unlearn.objectives.idk import IDK as IDK
from interp_unlearn.unlearn.objectives.meow import MEOW as MEOW
from interp_unlearn.unlearn.objectives.npo import NPO as NPO
from interp_unlearn.unlearn.objectives.pdu import PDU as PDU
from interp_unlearn.unlearn.objectives.rmu import RMU as RMU
from interp_unlearn.unlearn.objectives.sae_clamp import SAEClamp as SAEClamp
from interp_unlearn.unlearn.objectives.sae_guided import SAEGuided as SAEGuided
from interp_unlearn.unlearn.objectives.satimp import SatImp as SatImp
from interp_unlearn.unlearn.objectives.simnpo import SimNPO as SimNPO
from interp_unlearn.unlearn.objectives.task_vector import TaskVector as TaskVector
from interp_unlearn.unlearn.objectives.undial import UNDIAL as UNDIAL
from interp_unlearn.unlearn.objectives.utu import UtU as UtU
from interp_unlearn.unlearn.objectives.wga import WGA as WGA
