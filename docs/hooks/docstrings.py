"""For the reference: what a room exports, and docstrings in the dialect that the site's reader knows."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Rooms(griffe.Extension):
    """Exports of every room, and docstrings of everything in the package."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Mark ``from room._file import name as name`` as an export, as type checkers do."""
        for module in pkg.modules.values():
            if module.is_init_module:
                module.exports = [n for n, m in module.members.items() if m.is_alias and not n.startswith("_")]

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Name the examples as the reader expects, and let a colon stand where a text introduces a formula."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
