"""A composition root over nodes in memory, and command lines run against it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from muniment.crypto.identity import Identity
from muniment.crypto.records import record_text, sign_record
from muniment.engine.grid import Grid
from muniment.engine.keeping.duties import Duties
from muniment.engine.opened import OpenVolume
from muniment.engine.policy import Policy
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import GridUnknown, MunimentError
from muniment.gateways.cli.app import run
from muniment.gateways.cli.composition import MountRequest, NewNode, Passphrase, Ready
from muniment.node.keepers import Post
from muniment.node.main import Root
from muniment.spec.wire import NodeStatus, ScrubStatus
from muniment.testing.fake_grid import FakeGrid

NODE_ADDRESS = "mun:node:" + "a" * 52 + "@host:1"
LOG_ADDRESS = "mun:log:" + "a" * 52 + "@host:1"
INTRODUCER_ADDRESS = "mun:introducer:" + "a" * 52 + "@host:1"


@dataclass
class FakeComposition(Root):
    """`Composition` over a `FakeGrid`, with real identities and volumes; remembers what it was asked.

    Attributes:
        grid: its nodes.
        joined: what `grid join` remembered; None for a new user.
        fails: raised by whatever opens a grid or runs a node.
        meddle: called with the grid just opened, for a test to do something to the client.
        home: the user's folder where a command names none.
        draining: whether its node is drained.
        left: how many leases its node tells of, one question after the other; then none.
        mounts: asked for; each is unmounted at once.
    """

    grid: FakeGrid = field(default_factory=FakeGrid)
    joined: str | None = "in memory"
    fails: BaseException | None = None
    meddle: Callable[[Grid], None] | None = None
    home: Path = Path("/the/default/home")
    opened: list[tuple[Path, str | None]] = field(default_factory=list)
    new_nodes: list[NewNode] = field(default_factory=list)
    draining: bool = False
    left: list[int] = field(default_factory=list)
    mounts: list[MountRequest] = field(default_factory=list)

    def init_node(self, folder: Path, new: NewNode) -> str:
        self.new_nodes.append(new)
        return NODE_ADDRESS

    def init_introducer(self, folder: Path, *, host: str, port: int, advertise: str) -> str:
        return INTRODUCER_ADDRESS

    def init_log(self, folder: Path, *, host: str, port: int, advertise: str, founders: list[str]) -> str:
        return LOG_ADDRESS

    def run_log(self, folder: Path, ready: Ready) -> None:
        self._fail()
        ready(LOG_ADDRESS)

    def run_node(self, folder: Path, ready: Ready) -> None:
        self._fail()
        ready(NODE_ADDRESS)

    def set_draining(self, folder: Path, *, draining: bool) -> None:
        self._fail()
        self.draining = draining

    def run_introducer(self, folder: Path, ready: Ready) -> None:
        self._fail()
        ready(INTRODUCER_ADDRESS)

    async def node_status(self, target: str) -> tuple[str, NodeStatus]:
        node = self.grid.nodes[0]
        record = record_text(sign_record(node.identity, node.record))
        scrub = ScrubStatus(1e9, 0.25, 3, 1_500_000, 1, 0, 0, 9e8, 2)
        sums = (10_000_000, 4_000_000, 0 if self.draining else 1_000_000, 7, 2)
        left = self.left.pop(0) if self.left else 0
        return NODE_ADDRESS, NodeStatus(
            record, "1.0", 0.0, *sums, True, left, left * 500_000, scrub, self.draining
        )

    @contextlib.asynccontextmanager
    async def open_grid(
        self, home: Path, roster: str | None, policy: Policy | None = None
    ) -> AsyncIterator[Grid]:
        self.opened.append((home, roster))
        self._fail()
        if roster is None and self.joined is None:
            raise GridUnknown(home=str(home))
        async with self.grid.client(policy) as grid:
            if self.meddle is not None:
                self.meddle(grid)
            yield grid

    @contextlib.asynccontextmanager
    async def open_files(
        self, home: Path, name: str, roster: str | None, passphrase: Passphrase
    ) -> AsyncIterator[tuple[OpenVolume, VolumeFiles]]:
        async with self.open_volume(home, name, passphrase) as opened, self.open_grid(home, roster) as grid:
            yield opened, VolumeFiles(opened.volume, grid)

    async def mount(
        self,
        home: Path,
        roster: str | None,
        request: MountRequest,
        passphrase: Passphrase,
        ready: Callable[[Path], None],
    ) -> None:
        self.mounts.append(request)
        ready(home / "mount.log")

    def check_mounts(self) -> None:
        pass

    async def unmount(self, home: Path, folder: Path, *, lazy: bool) -> None:
        pass

    def grid_of(self, account: Identity, home: Path, roster: str | None) -> AbstractAsyncContextManager[Grid]:
        return self.grid.client(account=account.seed)

    def run_keepers(
        self,
        home: Path,
        names: Sequence[str],
        roster: str | None,
        passphrase: Passphrase,
        duties: Duties,
        tell: Callable[[Post], None],
        metrics: str = "",
    ) -> None:
        """One scan, as if SIGTERM came then."""
        for post, _ in asyncio.run(self.keep_once(home, names, roster, passphrase, duties)):
            tell(post)

    def default_home(self) -> Path:
        return self.home

    def join_grid(self, home: Path, roster: str) -> str:
        self.joined = roster
        return roster

    def account(self, home: Path) -> str:
        return "b" * 52

    def _fail(self) -> None:
        if self.fails is not None:
            raise self.fails


@dataclass(frozen=True)
class Done:
    """What a command line did."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        """Of standard output."""
        return self.text.splitlines()

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


def muni(composition: FakeComposition, *words: str | Path, stdin: bytes | str = b"") -> Done:
    """Run one command line; no terminal is near, and no variable of the environment says anything."""
    environment = dict.fromkeys(("MUNIMENT_GRID", "MUNIMENT_HOME", "MUNIMENT_PASSPHRASE_FILE"))
    with CliRunner().isolation(input=stdin, env=environment) as (out, err, _):
        code = run(composition, [str(word) for word in words])
        return Done(code, out.getvalue(), err.getvalue().decode())


def leaves() -> list[type[MunimentError]]:
    """Every error that can be raised."""
    found, seen = [], [MunimentError]
    while seen:
        kind = seen.pop()
        seen += kind.__subclasses__()
        if not kind.__subclasses__():
            found.append(kind)
    return sorted(found, key=lambda leaf: leaf.__name__)


def example(leaf: type[MunimentError]) -> MunimentError:
    """One error of this kind, every field filled."""
    values: dict[str, object] = {"str": "it", "int": 7, "float": 1.5, "bytes": b"\x01" * 32}
    values["tuple[str, ...]"] = ("this", "that")
    return leaf(**{field.name: values[str(field.type)] for field in dataclasses.fields(leaf)})
