"""Muniment: a distributed file system for records that must survive and must be provable.

    import muniment

    async with muniment.open_grid() as grid:        # the grid this user has joined
        stored = await grid.put(Path("ledger.pdf"))

Importing this package imports none of its parts: each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from muniment.engine.grid import Grid
    from muniment.engine.sync import SyncGrid
    from muniment.node.compose import open_grid

__all__ = ["Grid", "SyncGrid", "__version__", "open_grid"]

_PLACES: Final = {
    "Grid": "muniment.engine.grid",
    "SyncGrid": "muniment.engine.sync",
    "open_grid": "muniment.node.compose",
}

__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("muniment")
    if name not in _PLACES:
        raise AttributeError(f"module 'muniment' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
