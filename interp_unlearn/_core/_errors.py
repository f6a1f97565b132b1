"""Errors that a user can act on: one sentence that says what is wrong and what to do."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class InterpUnlearnError(Exception):
    """Base of every error raised on purpose. The command line prints its text and exits with code 2."""


class ConfigError(InterpUnlearnError):
    """A configuration field is missing, unknown or impossible."""


class SiteError(InterpUnlearnError):
    """A site, layer or module path does not exist in the opened model."""


class ModelError(InterpUnlearnError):
    """A model cannot be found, opened, or used for what was asked."""


class DataError(InterpUnlearnError):
    """A data set, prompt or world cannot be used as given."""


class NothingToForgetError(DataError):
    """The model does not know the target, so there is nothing to forget."""


class FileFormatError(InterpUnlearnError):
    """A file is truncated, foreign, or of a kind that is not loaded (pickle)."""


class RunsFailedError(InterpUnlearnError):
    """Some of several runs failed; the message names each with its reason.

    Attributes:
        done: What the others returned, in order.
    """

    def __init__(self, message: str, done: Sequence[Any]) -> None:
        super().__init__(message)
        self.done = list(done)


class TrainingDivergedError(InterpUnlearnError):
    """The loss became NaN or infinite; the last good weights were kept."""


class MissingPackageError(InterpUnlearnError):
    """An optional package is needed for this feature and is not installed."""


def nearest(name: str, options: Iterable[str], n: int = 5) -> str:
    """Return a hint such as ``"; nearest: a, b"``, or an empty string when nothing is near.

    Args:
        name: What the user wrote.
        options: The names that exist.
        n: At most so many names.
    """
    options = list(options)
    found = get_close_matches(name, options, n=n, cutoff=0.5)
    if not found:
        lowered = name.lower()
        found = [o for o in options if lowered and (lowered in o.lower() or o.lower() in lowered)][:n]
    return f"; nearest: {', '.join(found)}" if found else ""
