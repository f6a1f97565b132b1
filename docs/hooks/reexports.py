"""For the reference: a room exports what its ``__init__`` imports ``as`` the same name."""

from __future__ import annotations

from typing import Any

import griffe


class Reexports(griffe.Extension):
    """Marks ``from room._file import name as name`` as an export, as type checkers do."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Give every room its list of exports."""
        for module in pkg.modules.values():
            if module.is_init_module:
                module.exports = [n for n, m in module.members.items() if m.is_alias and not n.startswith("_")]
