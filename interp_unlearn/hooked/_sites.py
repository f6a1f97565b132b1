"""Sites: named places in a model, each the input or output of a real module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from interp_unlearn._core import ModelError, SiteError, nearest

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)  # never called
INPUT_NAMES = ("hidden_states", "input", "x", "inputs", "query")
OUTPUT_NAMES = ("logits", "last_hidden_state")


@dataclass(frozen=True)
class Sum:
    """How to edit a value that is computed inside a block and only *read* by the hooked module.

    ``resid_mid = base + increment``: the block adds it up itself and hands it to the second norm *and* to its own
    residual sum. Editing the norm's input would change one reader of two, so an edit is written into the increment.

    Attributes:
        base: Module path whose input is the first summand.
        increment: Name of the site that is the second summand.
    """

    base: str
    increment: str


@dataclass(frozen=True)
class Site:
    """A place in a model.

    Attributes:
        name: TransformerLens name, or ``"<module path>.input"`` / ``".output"``.
        path: Path of the real module (empty for the root).
        kind: Whether the value is what the module receives or what it returns.
        layer: Block index for sites inside a block, else None.
        heads: Split the last axis into (heads, d_head) when set (``attn.hook_z``).
        sum: How edits reach every reader of the value, where the module is only one of them (``hook_resid_mid``).
    """

    name: str
    path: str
    kind: Literal["input", "output"]
    layer: int | None = None
    heads: int | None = None
    sum: Sum | None = None

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Tensor:
        """The tensor at this site, from what a hook receives.

        Raises:
            SiteError: If the module takes or returns no tensor there.
        """
        value = _get(args, kwargs, _input_slot(args, kwargs)) if self.kind == "input" else _first_output(output)
        if not isinstance(value, Tensor):
            what = "takes no tensor" if self.kind == "input" else f"returns {type(output).__name__} without a tensor"
            raise SiteError(f"site {self.name!r}: its module {what}; name a site of one of its children instead")
        return value

    def shape_in(self, value: Tensor, shape: tuple[int, int] | None) -> Tensor:
        """Undo a flattened (batch · position) axis and split heads, as a view.

        Args:
            value: What the module sees.
            shape: (batch, position) of the forward pass, or None when it is not known.
        """
        if shape is not None and value.dim() == 2 and value.shape[0] == shape[0] * shape[1]:
            value = value.unflatten(0, shape)
        return value.unflatten(-1, (self.heads, -1)) if self.heads else value


def _input_slot(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | str | None:
    """Where the first tensor of a module call is: an index into ``args`` or a key of ``kwargs``."""
    if args and isinstance(args[0], Tensor):
        return 0
    for key in INPUT_NAMES:
        if isinstance(kwargs.get(key), Tensor):
            return key
    positional = next((i for i, v in enumerate(args) if isinstance(v, Tensor)), None)
    if positional is not None:
        return positional
    tensors = [key for key, v in kwargs.items() if isinstance(v, Tensor)]
    return next((key for key in tensors if kwargs[key].is_floating_point()), tensors[0] if tensors else None)


def _get(args: tuple[Any, ...], kwargs: Mapping[str, Any], slot: int | str | None) -> Any:
    if isinstance(slot, int):
        return args[slot]
    return kwargs[slot] if slot is not None else None


def _output_slot(output: Any) -> int | str | None:
    """Where the first tensor of a module's return value is: an index, a key or an attribute."""
    if isinstance(output, (tuple, list)):
        return next((i for i, v in enumerate(output) if isinstance(v, Tensor)), None)
    if isinstance(output, Mapping):
        first = next((k for k, v in output.items() if isinstance(v, Tensor)), None)
        return next((k for k in OUTPUT_NAMES if isinstance(output.get(k), Tensor)), first)
    return next((k for k in OUTPUT_NAMES if isinstance(getattr(output, k, None), Tensor)), None)


def _first_output(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    slot = _output_slot(output)
    if slot is None:
        return None
    by_key = isinstance(output, (tuple, list, Mapping))
    return output[slot] if by_key else getattr(output, str(slot))  # type: ignore[index]


def replace_input(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a module call with its first tensor replaced.

    Raises:
        SiteError: If the call has no tensor.
    """
    slot = _input_slot(args, kwargs)
    if slot is None:
        raise SiteError("cannot replace the input of a module that takes no tensor; edit its output instead")
    if isinstance(slot, int):
        return (*args[:slot], value, *args[slot + 1 :]), dict(kwargs)
    return args, {**kwargs, slot: value}


def replace_output(output: Any, value: Tensor) -> Any:
    """A module's return value with its first tensor replaced; the container keeps its type.

    Raises:
        SiteError: If it holds no tensor.
    """
    if isinstance(output, Tensor):
        return value
    slot = _output_slot(output)
    if slot is None:
        raise SiteError(f"cannot replace the output of type {type(output).__name__}: it holds no tensor")
    if isinstance(output, (tuple, list)):
        items = [value if i == slot else v for i, v in enumerate(output)]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if type(output) is dict:
        return {**output, slot: value}
    if isinstance(output, Mapping):
        output[slot] = value  # type: ignore[index]  # a ModelOutput made for this call
    else:
        setattr(output, str(slot), value)
    return output


def called_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Paths and modules below ``module`` that a pass can call, without containers."""
    return [(path, part) for path, part in module.named_modules() if path and not isinstance(part, CONTAINERS)]


class SiteMap(Mapping[str, Site]):
    """All sites of one opened model; unknown names raise an error that shows the nearest ones.

    It lists the named sites, or where there are none the input and output of every module; names of both kinds are
    found.

    Modules are looked up by path at each use, so adapters put into the model later (LoRA) are seen.
    """

    def __init__(self, module: nn.Module, named: Mapping[str, Site]) -> None:
        self._module = module
        self._named = dict(named)

    def __getitem__(self, name: str) -> Site:
        if name in self._named:
            return self._named[name]
        path, _, kind = name.rpartition(".")
        if kind == "input" or kind == "output":
            try:
                self._module.get_submodule(path)
            except AttributeError:
                pass
            else:
                return Site(name, path, kind)
        known = [*self._named, *(f"{p}.output" for p, _ in self._module.named_modules() if p)]
        paths = "'<module path>.input' or '<module path>.output'"
        where = f"TransformerLens names, {paths}" if self._named else f"{paths}; model.shapes(inputs) lists them"
        raise SiteError(f"unknown site {name!r}{nearest(name, known)} (sites are {where})")

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except SiteError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._named or self._by_path())

    def __len__(self) -> int:
        return len(self._named or self._by_path())

    def _by_path(self) -> list[str]:
        parts = [f"{path}." for path, _ in called_modules(self._module)] or [""]
        return [f"{part}{kind}" for part in parts for kind in ("input", "output")]

    def module_of(self, site: Site) -> nn.Module:
        """The real module that a site reads.

        Raises:
            ModelError: If the module tree has changed and the path is gone.
        """
        try:
            return self._module.get_submodule(site.path)
        except AttributeError as error:
            raise ModelError(
                f"site {site.name!r} needs the module {site.path!r}, which is no longer in the model; "
                "open the model again after changing its structure"
            ) from error

    def at_layer(self, layer: int) -> list[str]:
        """Names of the sites inside block ``layer``."""
        return [name for name, site in self._named.items() if site.layer == layer]
