"""interp-unlearn: an interpretability-first toolkit for machine unlearning.

Example:
    >>> from interp_unlearn import open_model, capture, edit, load_world, load_sae, run, resume

Each name is imported when it is first used, so that the command line and the report start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp_unlearn._core import __version__ as __version__

if TYPE_CHECKING:
    from interp_unlearn._core import Axis as Axis
    from interp_unlearn._core import Evidence as Evidence
    from interp_unlearn._core import InterpUnlearnError as InterpUnlearnError
    from interp_unlearn._core import Labelled as Labelled
    from interp_unlearn.hooked import capture as capture
    from interp_unlearn.hooked import edit as edit
    from interp_unlearn.latents import load_sae as load_sae
    from interp_unlearn.runs import resume as resume
    from interp_unlearn.runs import run as run
    from interp_unlearn.verdict import Verdict as Verdict
    from interp_unlearn.verdict import judge as judge
    from interp_unlearn.worlds import load_world as load_world
    from interp_unlearn.worlds import make_task as make_task
    from interp_unlearn.zoo import open_model as open_model

_HOME = {
    "Axis": "interp_unlearn._core",
    "Evidence": "interp_unlearn._core",
    "InterpUnlearnError": "interp_unlearn._core",
    "Labelled": "interp_unlearn._core",
    "Verdict": "interp_unlearn.verdict",
    "capture": "interp_unlearn.hooked",
    "edit": "interp_unlearn.hooked",
    "judge": "interp_unlearn.verdict",
    "load_sae": "interp_unlearn.latents",
    "load_world": "interp_unlearn.worlds",
    "make_task": "interp_unlearn.worlds",
    "open_model": "interp_unlearn.zoo",
    "resume": "interp_unlearn.runs",
    "run": "interp_unlearn.runs",
}
__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'interp_unlearn' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
