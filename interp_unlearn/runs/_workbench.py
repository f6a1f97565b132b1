"""Everything a run needs opened: model, task and SAEs. Several runs on one target share one workbench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp_unlearn.hooked import HookedModel
from interp_unlearn.latents import SAE
from interp_unlearn.worlds import AnyTask, LabelledTask, Task, World, text_task

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) as work goes on; total 0 means unknown."""


def silent(_what: str, _done: int, _total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclass
class Workbench:
    """Opened things, always holding the model with its original weights between runs.

    Attributes:
        model: The model.
        any_task: The data of the run, whatever the model reads.
        world: The ground truth behind the task of a language model.
        saes: SAE of the recipe and the evidence (``"main"``), another for judging only (``"second"``), where given.
        originals: Original values of the tensors that an edited model has replaced, while it is loaded.
    """

    model: HookedModel
    any_task: AnyTask
    world: World | None = None
    saes: dict[str, SAE] = field(default_factory=dict)
    originals: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put edited tensors into the model, keeping the originals for `restore`."""
        own = self.model.tensors()
        for name, value in tensors.items():
            self.originals.setdefault(name, own[name].detach().clone())
            own[name].copy_(value)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model its original weights back."""
        own = self.model.tensors()
        for name, value in self.originals.items():
            own[name].copy_(value)
        self.originals.clear()

    @property
    def task(self) -> Task:
        """The data of the run, of a language model.

        Raises:
            ConfigError: If the model reads no text.
        """
        return text_task(self.any_task, "this step of a run")

    @property
    def site(self) -> str:
        """Where evidence is read first: the SAE's site, else the task's, else the residual stream at 40 % depth."""
        if "main" in self.saes:
            return self.saes["main"].site
        if isinstance(self.any_task, LabelledTask):
            return self.any_task.main_site(self.model)
        return f"blocks.{max(1, round(0.4 * self.model.lm.n_layers))}.hook_resid_post"

    def sites(self, stride: int) -> list[str]:
        """Sites captured for evidence: those of the task, or the residual stream every ``stride`` layers.

        The last layer and the SAE's site are always among them.
        """
        if isinstance(self.any_task, LabelledTask):
            return self.any_task.sites(self.model, stride)
        last = self.model.lm.n_layers - 1
        layers = {*range(0, last + 1, stride), last}
        names = {f"blocks.{i}.hook_resid_post" for i in layers} | {self.site}
        return sorted(names, key=lambda n: int(n.split(".")[1]))
