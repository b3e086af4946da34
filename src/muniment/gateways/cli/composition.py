"""What the command line needs of the composition root, which lies in a layer above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.spec.wire import NodeStatus

Ready = Callable[[str], None]
"""Told the address as soon as the process serves."""


@dataclass(frozen=True, slots=True)
class NewNode:
    """What `node init` decides.

    Attributes:
        invited: (account, quota in bytes or -1); any entry makes the node serve those accounts only.
    """

    capacity_bytes: int
    host: str
    port: int
    advertise: str
    zone: str
    store: str
    introducers: Sequence[str]
    invited: Sequence[tuple[str, int]]


class Composition(Protocol):
    """Makes the parts of a process; `muniment.node.compose` is it."""

    def init_node(self, folder: Path, new: NewNode) -> str:
        """Make a node's folder; returns its address."""
        ...

    def init_introducer(self, folder: Path, *, host: str, port: int, advertise: str) -> str:
        """Make an introducer's folder; returns its address."""
        ...

    def run_node(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    def run_introducer(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    def open_grid(
        self, home: Path, roster: str | None, policy: Policy
    ) -> AbstractAsyncContextManager[Grid]: ...

    async def node_status(self, target: str) -> tuple[str, NodeStatus]:
        """Ask a running node, named by its address or its folder on this machine; with its address."""
        ...

    def account(self, home: Path) -> str:
        """This home's account id; makes the account on first use."""
        ...
