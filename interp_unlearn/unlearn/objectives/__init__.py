"""Objectives: one paper, one file. Importing this package registers them all."""

from interp_unlearn.unlearn.objectives.ga import GradientAscent as GradientAscent
from interp_unlearn.unlearn.objectives.grad_diff import GradDiff as GradDiff
from interp_unlearn.unlearn.objectives.npo import NPO as NPO
from interp_unlearn.unlearn.objectives.rmu import RMU as RMU
from interp_unlearn.unlearn.objectives.sae_guided import SAEGuided as SAEGuided
