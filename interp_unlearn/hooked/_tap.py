"""The capture primitive: hooks on chosen sites, an early stop after the last one, and a guaranteed unhook.

Everything in the package that looks inside a model goes through `tap`: captures, training losses at a layer, probes,
diffs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from interp_unlearn._core import SiteError
from interp_unlearn.hooked._sites import Site, SiteMap


class _StopForward(BaseException):
    """Raised inside a hook when every wanted site has been seen. Not an `Exception`, so models do not swallow it."""


@dataclass
class Taps:
    """What the hooks of one `tap` have seen so far.

    Attributes:
        values: Site name to the tensor of the last forward pass.
        stopped: Whether the last forward pass ended early.
        running: Whether `run` is under way; passes that do not go through `run` are neither recorded nor stopped.
    """

    wanted: tuple[str, ...]
    values: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False
    running: bool = False

    def __getitem__(self, site: str) -> Tensor:
        if site not in self.values:
            raise SiteError(f"site {site!r} was not reached: no forward pass made through `run` came to its module")
        return self.values[site]

    def run(self, forward: Callable[[], Any]) -> Any:
        """Call ``forward``; return its value, or None when it was stopped early."""
        self.values.clear()
        self.stopped, self.running = False, True
        try:
            return forward()
        except _StopForward:
            self.stopped = True
            return None
        finally:
            self.running = False


@contextmanager
def tap(
    sites: SiteMap,
    names: Sequence[str],
    *,
    keep: Callable[[Site, Tensor], Tensor] | None = None,
    stop: bool = True,
) -> Iterator[Taps]:
    """Hook ``names``; the tensors of each forward pass run through `Taps.run` are in the yielded `Taps`.

    Of a module that runs several times in one pass, the first call counts.

    Args:
        sites: The opened model's site map.
        names: Sites wanted, at least one.
        keep: What to store of a value; default the value itself with its graph (for losses). `capture` passes a copy.
            A value is as the module sees it: `Site.shape_in` undoes flattened positions and splits heads.
        stop: End the forward pass once every wanted site has been seen.

    Raises:
        SiteError: If a name is unknown or none is given.
    """
    if isinstance(names, str) or not names:
        raise SiteError("name the sites to capture as a list, e.g. ['blocks.3.hook_resid_post']")
    wanted = [sites[name] for name in names]
    taps = Taps(tuple(dict.fromkeys(names)))

    def see(site: Site, value: Tensor) -> None:
        if site.name in taps.values or not taps.running:
            return
        taps.values[site.name] = keep(site, value) if keep else value
        if stop and len(taps.values) == len(taps.wanted):
            raise _StopForward

    def before(site: Site, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(site, site.read(args, kwargs, None))

    def after(site: Site, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        see(site, site.read((), {}, output))

    handles = []
    try:
        for site in {s.name: s for s in wanted}.values():
            module = sites.module_of(site)
            if site.kind == "input":
                handles.append(module.register_forward_pre_hook(partial(before, site), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(partial(after, site)))
        yield taps
    finally:
        for handle in handles:
            handle.remove()
