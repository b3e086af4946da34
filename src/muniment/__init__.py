"""Muniment: a distributed file system for records that must survive and must be provable.

    import muniment

    with muniment.open_sync_grid() as grid:         # the grid this user has joined
        stored = grid.put(Path("ledger.pdf"))
        print(muniment.cap_text(stored.cap))        # whoever has this text can read the file

Importing this package imports none of its parts: each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from muniment.core.capabilities import weaken
    from muniment.engine.grid import Grid
    from muniment.engine.policy import Policy
    from muniment.engine.sync import SyncGrid
    from muniment.erasure.codec import Coding
    from muniment.errors import MunimentError
    from muniment.node.compose import open_grid, open_sync_grid
    from muniment.spec.cap import cap_text, parse_cap

__all__ = [
    "Coding",
    "Grid",
    "MunimentError",
    "Policy",
    "SyncGrid",
    "__version__",
    "cap_text",
    "open_grid",
    "open_sync_grid",
    "parse_cap",
    "weaken",
]

_PLACES: Final = {
    "Coding": "muniment.erasure.codec",
    "Grid": "muniment.engine.grid",
    "MunimentError": "muniment.errors",
    "Policy": "muniment.engine.policy",
    "SyncGrid": "muniment.engine.sync",
    "cap_text": "muniment.spec.cap",
    "open_grid": "muniment.node.compose",
    "open_sync_grid": "muniment.node.compose",
    "parse_cap": "muniment.spec.cap",
    "weaken": "muniment.core.capabilities",
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
