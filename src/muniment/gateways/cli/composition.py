"""What the command line needs of the composition root, which lies in a layer above it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from muniment.engine.grid import Grid
    from muniment.engine.policy import Policy
    from muniment.spec.wire import NodeStatus

Ready = Callable[[str], None]
"""Told the address as soon as the process serves."""


@dataclass(frozen=True, slots=True)
class NewNode:
    """What `node init` decides.

    Attributes:
        capacity_bytes: what the node gives.
        host: where to listen.
        port: where to listen; 0 finds a free one, which the node then keeps.
        advertise: `host:port` for others; empty where that is the same.
        zone: failure zone; empty where unknown.
        store: `posix` or an object store's URL.
        introducers: their addresses.
        invited: (account, quota in bytes or -1); any entry makes the node serve those accounts only.
    """

    capacity_bytes: int
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    zone: str = ""
    store: str = "posix"
    introducers: tuple[str, ...] = ()
    invited: tuple[tuple[str, int], ...] = ()


class Composition(Protocol):
    """Makes the parts of a process; `muniment.node.main` has it."""

    def init_node(self, folder: Path, new: NewNode) -> str:
        """Make a node's folder; returns its address."""
        ...

    def init_introducer(self, folder: Path, *, host: str, port: int, advertise: str) -> str:
        """Make an introducer's folder; returns its address."""
        ...

    def init_log(self, folder: Path, *, host: str, port: int, advertise: str, founders: list[str]) -> str:
        """Make a log service's folder; returns its address."""
        ...

    def run_log(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    def run_node(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    def run_introducer(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    async def node_status(self, target: str) -> tuple[str, NodeStatus]:
        """Ask a running node, named by its address or its folder on this machine; with its address."""
        ...

    def open_grid(
        self, home: Path, roster: str | None, policy: Policy | None = None
    ) -> AbstractAsyncContextManager[Grid]:
        """The grid that `roster` names, or this home has joined.  Raises: GridUnknown, RosterEmpty."""
        ...

    def default_home(self) -> Path:
        """The user's folder where none is named."""
        ...

    def join_grid(self, home: Path, roster: str) -> str:
        """Remember a grid in a home; returns what was remembered."""
        ...

    def account(self, home: Path) -> str:
        """This home's account id; makes the account on first use."""
        ...
