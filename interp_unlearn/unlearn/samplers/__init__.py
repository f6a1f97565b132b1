"""Samplers: which forget and retain items meet in a step. Importing this package registers them all."""

from interp_unlearn.unlearn.samplers.paired import Paired as Paired
from interp_unlearn.unlearn.samplers.sequential import Sequential as Sequential
from interp_unlearn.unlearn.samplers.unforgotten import Unforgotten as Unforgotten
