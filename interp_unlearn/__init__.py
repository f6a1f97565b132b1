"""interp-unlearn: an interpretability-first toolkit for machine unlearning."""

from interp_unlearn._core import __version__ as __version__
from interp_unlearn.hooked import capture as capture
from interp_unlearn.hooked import edit as edit
from interp_unlearn.worlds import load_world as load_world
from interp_unlearn.zoo import open_model as open_model
