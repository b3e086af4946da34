"""The grid of a drill: nodes behind a relay, introducer, log service, keeper, and members with homes."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from pathlib import Path
from typing import Final

from tests.drill.client import VOLUME
from tests.drill.disks import SmallDisk
from tests.drill.journal import read_journal
from tests.drill.keeper_watch import KeeperWatch
from tests.drill.schedule import SMALL_DISKS
from tests.drill.service import Service
from tests.drill.shape import Shape

from muniment.node import compose, volume_home, volumes
from muniment.node.config import IntroducerConfig, LogConfig, NodeConfig, Times
from muniment.node.home import join_grid
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.spec.address import PeerAddress, PeerKind
from muniment.spec.volume_cap import Right

MUNI: Final = ["-m", "muniment", "--log-level", "info"]
LIAR: Final = ["-m", "muniment.testing.lying_node"]
CAPACITY_BYTES: Final = 64 << 30
TRASH_S: Final = 30
RESERVATION_S: Final = 20
_LOOK_S: Final = 0.05


class Place:
    """Everything below one folder.

    Attributes:
        nodes, members: processes by name.
        disks: of nodes that have one of their own.
        roster: the introducer's address.
        owner: home of the member who founded the volume; the drill itself.
    """

    def __init__(self, folder: Path, shape: Shape, *, mounts: bool) -> None:
        self.folder, self.shape, self.mounts = folder, shape, mounts
        self._chance = random.Random()  # ports are no part of the schedule
        self._links: list[tuple[str, int, int]] = []
        self._taken: set[int] = set()
        self._services: list[Service] = []
        self.nodes: dict[str, Service] = {}
        self.members: dict[str, Service] = {}
        self.disks: dict[str, SmallDisk] = {}
        self.roster = ""
        self.owner = folder / "owner"
        self.introducer: Service
        self.log: Service
        self.keeper: Service
        self.relay: Service

    @property
    def started(self) -> list[Service]:
        """All processes there are."""
        return [one for one in self._services if one.starts]

    @property
    def watch(self) -> KeeperWatch:
        return KeeperWatch(self.keeper.out)

    def node_folder(self, name: str) -> Path:
        return self.folder / name

    def home(self, member: str) -> Path:
        return self.folder / member

    def journal(self, member: str) -> Path:
        return self.folder / f"{member}.journal"

    async def begin(self) -> None:
        """Start all servers and found the volume; no client runs yet."""
        self._make_servers()
        await self.relay.start()
        await self.introducer.start()
        for service in (*self.nodes.values(), self.log):
            service.begin()
        for service in (*self.nodes.values(), self.log):
            await service.wait_serving()
        await self._make_members()

    async def begin_clients(self) -> None:
        """Start them and the keeper; on return each has written or read."""
        for service in (self.keeper, *self.members.values()):
            await service.start()
        for name in self.members:
            await self._worked(name)

    async def _worked(self, member: str) -> None:
        """Until a client has written or read something."""
        while True:
            lines = await asyncio.to_thread(read_journal, self.journal(member))
            if any("result" in line for line in lines):
                return
            await asyncio.sleep(_LOOK_S)

    def turn(self, link: str, mode: str, value: float = 0) -> None:
        """Tell the relay how a link behaves from now on."""
        self.relay.control.write(f"{link} {mode} {value}\n".encode())
        self.relay.control.flush()

    # --- servers

    def _make_servers(self) -> None:
        home = self.folder / "introducer"
        port = self._port()
        node = compose.init_introducer(home, IntroducerConfig(port=port))
        self.roster = str(PeerAddress(PeerKind.INTRODUCER, node, f"127.0.0.1:{port}"))
        self.introducer = self._service("introducer", [*MUNI, "introducer", "run", str(home)])
        for at in range(1, self.shape.nodes + 1):
            self._make_node(f"node{at}")
        port, behind = self._linked("log")
        home = self.folder / "log"
        node = compose.init_log(home, LogConfig(port=behind, advertise=[f"127.0.0.1:{port}"], stop_grace_s=2))
        self.log_address = str(PeerAddress(PeerKind.LOG, node, f"127.0.0.1:{port}"))
        self.log = self._service("log", [*MUNI, "log", "run", str(home)])
        words = ["-m", "tests.drill.relay", json.dumps(self._links)]
        self.relay = self._service("relay", words, control=True)

    def _make_node(self, name: str) -> None:
        folder = self.node_folder(name)
        if self.mounts and name in SMALL_DISKS:
            self.disks[name] = SmallDisk(folder)
        port, behind = self._linked(name)
        times = Times(
            scrub_s=self.shape.scrub_s,
            trash_grace_s=TRASH_S,
            reservation_s=RESERVATION_S,
            record_s=120,
            stop_grace_s=2,
        )
        config = NodeConfig(
            capacity_bytes=CAPACITY_BYTES,
            port=behind,
            advertise=[f"127.0.0.1:{port}"],
            zone=name,
            introducers=[self.roster],
            times=times,
        )
        compose.init_node(folder, config)
        self.nodes[name] = self._service(name, [*MUNI, "node", "run", str(folder)])

    def _linked(self, name: str) -> tuple[int, int]:
        """A port of the relay, and the one behind it."""
        link = name, self._port(), self._port()
        self._links.append(link)
        return link[1:]

    def _port(self) -> int:
        """One that no outgoing connection gets while its server is away."""
        while True:
            port = self._chance.randrange(20_000, 32_768)
            if port not in self._taken:
                self._taken.add(port)
                try:
                    socket.create_server(("127.0.0.1", port)).close()
                except OSError:
                    continue
                return port

    def _service(
        self, name: str, words: list[str], says: str = "serving", *, control: bool = False
    ) -> Service:
        self._services.append(Service(self.folder, name, words, says=says, control=control))
        return self._services[-1]

    # --- members

    async def _make_members(self) -> None:
        shape = self.shape
        policy = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, shape.coding, shape.happy, 1 << 20)
        self._identity(self.owner)
        await volumes.create_volume(
            self.owner, VOLUME, self.log_address, policy, own_name="owner", passphrase=_unlocked
        )
        async with volumes.open_files(self.owner, VOLUME, self.roster, _unlocked) as (opened, files):
            invitation = volume_home.cap_of(opened, None)
            kept = volume_home.cap_of(opened, Right.VERIFY)
            for writer in shape.writers:
                await files.make_folder(writer.encode())
            for name in (*shape.writers, *shape.readers):
                self._identity(self.home(name))
                role = Role.WRITER if name in shape.writers else Role.READER
                await self._join(self.home(name), invitation, name, role)
                await opened.volume.sync()
                await opened.members.accept(volume_home.read_identity(self.home(name), _unlocked).member)
        keeper = self.folder / "keeper"
        keeper.mkdir()
        join_grid(keeper, self.roster)
        await self._join(keeper, kept, "keeper", Role.AUDITOR)
        self._make_clients(keeper)

    def _identity(self, home: Path) -> None:
        home.mkdir()
        volume_home.make_identity(home, "")
        join_grid(home, self.roster)

    async def _join(self, home: Path, text: str, name: str, role: Role) -> None:
        await volumes.join_volume(
            home, text, name=VOLUME, role=role, own_name=name, note="", passphrase=_unlocked
        )

    def _make_clients(self, keeper: Path) -> None:
        shape = self.shape
        words = ["--home", str(keeper), "keeper", "run", VOLUME, "--json"]
        words += ["--every", str(shape.scan_s / 3600), "--patience", str(shape.patience_s / 3600)]
        self.keeper = self._service("keeper", [*MUNI, *words], says="")
        for name in (*shape.writers, *shape.readers):
            role = "writer" if name in shape.writers else "reader"
            facts = [role, name, str(self.home(name)), self.roster, str(self.journal(name)), str(shape.seed)]
            facts += [",".join(shape.writers), str(shape.write_pause_s)]
            self.members[name] = self._service(name, ["-m", "tests.drill.client", *facts])


def _unlocked() -> str:
    return ""
