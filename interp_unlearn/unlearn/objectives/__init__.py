"""Objectives: one paper, one file. Importing this package registers them all."""

from interp_unlearn.unlearn.objectives.crisp import CRISP as CRISP
from interp_unlearn.unlearn.objectives.dsg import DSG as DSG
from interp_unlearn.unlearn.objectives.ga import GradientAscent as GradientAscent
from interp_unlearn.unlearn.objectives.grad_diff import GradDiff as GradDiff
from interp_unlearn.unlearn.objectives.meow import MEOW as MEOW
from interp_unlearn.unlearn.objectives.npo import NPO as NPO
from interp_unlearn.unlearn.objectives.rmu import RMU as RMU
from interp_unlearn.unlearn.objectives.sae_clamp import SAEClamp as SAEClamp
from interp_unlearn.unlearn.objectives.sae_guided import SAEGuided as SAEGuided
