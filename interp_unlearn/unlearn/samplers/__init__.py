"""Samplers: which forget and retain items meet in a step. Importing this package registers them all."""

from interp_unlearn.unlearn.samplers._plan import Exposure as Exposure
from interp_unlearn.unlearn.samplers._plan import equal_updates as equal_updates
from interp_unlearn.unlearn.samplers._plan import exposure as exposure
from interp_unlearn.unlearn.samplers._plan import steps_of_epochs as steps_of_epochs
from interp_unlearn.unlearn.samplers.balanced import Balanced as Balanced
from interp_unlearn.unlearn.samplers.cyclic import Cyclic as Cyclic
from interp_unlearn.unlearn.samplers.modular import Modular as Modular
from interp_unlearn.unlearn.samplers.paired import Paired as Paired
from interp_unlearn.unlearn.samplers.random import Random as Random
from interp_unlearn.unlearn.samplers.sequential import Sequential as Sequential
from interp_unlearn.unlearn.samplers.unforgotten import Unforgotten as Unforgotten
