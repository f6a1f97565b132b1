"""Unlearning: recipe = objective × gradient transforms × sampler × trainable parameters; one loop runs them all.

Example:
    >>> recipe = default_recipe("npo", model)
    >>> unlearner = Unlearner(model, task, recipe)
    >>> while not unlearner.done:
    ...     terms = unlearner.step()
    >>> delta = unlearner.changed()
"""

from interp_unlearn.unlearn import objectives as objectives
from interp_unlearn.unlearn import samplers as samplers
from interp_unlearn.unlearn import transforms as transforms
from interp_unlearn.unlearn._defaults import default_recipe as default_recipe
from interp_unlearn.unlearn._defaults import merge_recipes as merge_recipes
from interp_unlearn.unlearn._protocols import OBJECTIVES as OBJECTIVES
from interp_unlearn.unlearn._protocols import SAMPLERS as SAMPLERS
from interp_unlearn.unlearn._protocols import TRANSFORMS as TRANSFORMS
from interp_unlearn.unlearn._protocols import Context as Context
from interp_unlearn.unlearn._protocols import Draw as Draw
from interp_unlearn.unlearn._protocols import Item as Item
from interp_unlearn.unlearn._protocols import Objective as Objective
from interp_unlearn.unlearn._protocols import Part as Part
from interp_unlearn.unlearn._protocols import Pools as Pools
from interp_unlearn.unlearn._protocols import Sampler as Sampler
from interp_unlearn.unlearn._protocols import StepContext as StepContext
from interp_unlearn.unlearn._protocols import Transform as Transform
from interp_unlearn.unlearn._recipe import Recipe as Recipe
from interp_unlearn.unlearn._recipe import Stop as Stop
from interp_unlearn.unlearn._trainable import TRAINABLE_KINDS as TRAINABLE_KINDS
from interp_unlearn.unlearn._trainable import Trainable as Trainable
from interp_unlearn.unlearn._unlearner import Unlearner as Unlearner
from interp_unlearn.unlearn._unlearner import unlearn as unlearn
