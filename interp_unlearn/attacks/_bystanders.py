"""Relearning in which the target is not taught: neighbours or plain text are, and the target is tested."""

from __future__ import annotations

from interp_unlearn._core import DataError
from interp_unlearn.attacks._asked import NEVER_KNOWN, spread, stand_ins
from interp_unlearn.attacks._config import RelearnConfig
from interp_unlearn.attacks._sets import RelearnSets
from interp_unlearn.hooked import HookedModel
from interp_unlearn.worlds import Task


def bystander_sets(model: HookedModel, task: Task, config: RelearnConfig) -> RelearnSets:
    """What is taught beside the target, and the tests ``"heldout"`` (the target) and ``"never known"``.

    The target's facts and the never-known ones are tested in one training, since neither is taught. With
    ``config.controls`` at 0 the latter are left out.

    Raises:
        DataError: If there is nothing to teach or to test.
    """
    if config.teach == "neighbours" and not task.retain_train.prompts:
        raise DataError(f"there are no neighbours to teach ({task.retain_train.why_empty or 'no retain set'})")
    if config.teach == "text" and not task.text_train:
        raise DataError("the world has no general text to train on")
    if not task.forget_heldout.prompts:
        why = task.forget_heldout.why_empty or "no prompts"
        raise DataError(f"there is no held-out question about the target ({why}); relearning could not be tested")
    asked = spread(task.forget_heldout.prompts, config.max_prompts, config.seed, "heldout")
    tests = {"heldout": asked}
    if config.controls:
        unknown = getattr(task, config.control_entities)
        tests[NEVER_KNOWN] = stand_ins(model, task, asked, config.seed, unknown)
    return RelearnSets(task.retain_train.prompts if config.teach == "neighbours" else (), tests)
