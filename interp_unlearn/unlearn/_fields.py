"""Build frozen dataclasses from plain dictionaries, with errors that name the field and the fix."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from interp_unlearn._core import ConfigError, check_choice, nearest

T = TypeVar("T")


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def build(cls: type[T], data: Any, where: str) -> T:
    """Make the dataclass ``cls`` from ``data``.

    Args:
        cls: A dataclass; its ``__post_init__`` checks ranges.
        data: Field name to plain value (JSON or TOML types); nested dataclasses as mappings.
        where: Prefix of field names in errors, e.g. ``"recipe.trainable"``.

    Raises:
        ConfigError: If a field is unknown (the nearest is shown), missing, or of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a table of fields, got {data!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            raise ConfigError(
                f"{where}: unknown field {name!r}{nearest(name, fields)}; known fields: {', '.join(fields) or 'none'}"
            )
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"{where}.{name} is missing; add it")
    hints = typing.get_type_hints(cls)
    return cls(**{name: convert(value, hints[name], f"{where}.{name}") for name, value in data.items()})


def convert(value: Any, hint: Any, where: str) -> Any:
    """Bring a plain value to the type that ``hint`` asks for.

    Raises:
        ConfigError: If it does not fit.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, args, where)
    if origin is Literal:
        check_choice(where, value, hint)
        return value
    if origin is tuple:
        return _convert_tuple(value, args, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    if origin is Mapping or origin is dict or hint in (dict, Mapping):
        require(isinstance(value, Mapping), f"{where} must be a table, got {value!r}")
        return value
    return _convert_scalar(value, hint, where)


def _convert_union(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if value is None:
        require(type(None) in args, f"{where} must not be empty")
        return None
    options = [a for a in args if a is not type(None)]
    for option in options[:-1]:
        try:
            return convert(value, option, where)
        except ConfigError:
            continue
    return convert(value, options[-1], where)


def _convert_tuple(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    require(isinstance(value, (list, tuple)), f"{where} must be a list, got {value!r}; write it in brackets")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
    require(len(value) == len(args), f"{where} needs {len(args)} values, got {len(value)}")
    return tuple(convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and hint is not bool
    if wrong_bool or not isinstance(value, hint):
        kind = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(hint, str(hint))
        raise ConfigError(f"{where} must be {kind}, got {value!r}")
    return value


def plain(value: Any) -> Any:
    """A dataclass (nested) as JSON-ready values; `build` reads it back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return value
