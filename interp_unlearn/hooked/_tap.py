"""The capture primitive: hooks on chosen sites, an early stop after the last one, and a guaranteed unhook.

Everything in the package that looks inside a model goes through `tap`: captures, training losses at a layer, probes, diffs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    """

    wanted: tuple[str, ...]
    values: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False

    def __getitem__(self, site: str) -> Tensor:
        if site not in self.values:
            raise SiteError(f"site {site!r} was not reached by the forward pass; run the model inside `tap` first")
        return self.values[site]

    def run(self, forward: Callable[[], Any]) -> Any:
        """Call ``forward``; return its value, or None when it was stopped early."""
        self.values.clear()
        self.stopped = False
        try:
            return forward()
        except _StopForward:
            self.stopped = True
            return None


@contextmanager
def tap(
    sites: SiteMap,
    names: Sequence[str],
    *,
    keep: Callable[[Site, Tensor], Tensor] | None = None,
    stop: bool = True,
) -> Iterator[Taps]:
    """Hook ``names``; the tensors of each forward pass run through `Taps.run` are in the yielded `Taps`.

    Args:
        sites: The opened model's site map.
        names: Sites wanted, at least one.
        keep: What to store of a value; default the value itself with its graph (for losses). `capture` passes a copy.
        stop: End the forward pass once every wanted site has been seen.

    Raises:
        SiteError: If a name is unknown or none is given.
    """
    if isinstance(names, str) or not names:
        raise SiteError("name the sites to capture as a list, e.g. ['blocks.3.hook_resid_post']")
    wanted = [sites[name] for name in names]
    taps = Taps(tuple(dict.fromkeys(names)))

    def see(site: Site, value: Tensor) -> None:
        if site.name in taps.values:
            return
        taps.values[site.name] = keep(site, value) if keep else value
        if stop and len(taps.values) == len(taps.wanted):
            raise _StopForward

    def before(site: Site) -> Callable[..., None]:
        return lambda _module, args, kwargs: see(site, site.read(args, kwargs, None))

    def after(site: Site) -> Callable[..., None]:
        return lambda _module, _args, output: see(site, site.read((), {}, output))

    handles = []
    try:
        for site in {s.name: s for s in wanted}.values():
            module: nn.Module = sites.module_of(site)
            if site.kind == "input":
                handles.append(module.register_forward_pre_hook(before(site), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(after(site)))
        yield taps
    finally:
        for handle in handles:
            handle.remove()
