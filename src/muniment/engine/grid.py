"""The Python face of a grid, asynchronous; `muniment.SyncGrid` is the same for blocking programs.

    async with Grid(roster, connector, clock, secret) as grid:
        stored = await grid.put(Path("ledger.pdf"))
        print(cap_text(stored.cap))                       # whoever has this text can read the file
        await grid.get(stored.cap, Path("copy.pdf"))
        health = await grid.check(weaken(stored.cap))     # a verify capability is enough

`node.compose.open_grid` makes one from a user's configuration.  All methods may run at the same time; they
share memory, connections and what is known of the nodes.
"""

from __future__ import annotations

from muniment.engine.client_files import FileClient
from muniment.engine.client_keeping import KeepingClient


class Grid(FileClient, KeepingClient):
    """A client of the nodes a roster knows; arguments, beginning and end are those of `Client`."""
