"""The program `muni`: the command line with the composition root plugged in.

What a command does not need is not imported for it: help answers at once, and a node has little memory.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from muniment.errors import ConfigInvalid, GridUnknown, UnavailableError
from muniment.gateways.cli.app import run
from muniment.gateways.cli.composition import MountRequest, NewNode, Passphrase, Ready

if TYPE_CHECKING:
    from muniment.audit.report import AuditReport
    from muniment.audit.service_report import ServiceReport
    from muniment.core.keeping.job import KindCount
    from muniment.crypto.identity import Identity
    from muniment.crypto.member import MemberSecret
    from muniment.engine.grid import Grid
    from muniment.engine.keeping.duties import Duties
    from muniment.engine.opened import KnownVolume, OpenVolume
    from muniment.engine.policy import Policy
    from muniment.engine.usage import AccountUsages
    from muniment.engine.volume_files import VolumeFiles
    from muniment.ids import BlobId
    from muniment.node.archives import Archived, Rehosted
    from muniment.node.keepers import Post
    from muniment.node.witnesses import Tell
    from muniment.ports import Sighting, VisibleQueue
    from muniment.spec.act import Role, VolumePolicy
    from muniment.spec.address import PeerAddress
    from muniment.spec.volume_cap import Right
    from muniment.spec.wire import NodeStatus

_LASTING_PORTS: Final = range(20_000, 32_768)


class Root:
    """`gateways.cli.composition.Composition`: what the command line asks for, made by `compose`."""

    def __init__(self) -> None:
        self._ports: set[int] = set()

    def init_node(self, folder: Path, new: NewNode) -> str:
        from muniment.node import compose, config
        from muniment.spec.address import PeerAddress, PeerKind

        policy = config.Policy()
        if new.invited:
            accounts = [config.InvitedAccount(account=a, quota_bytes=quota) for a, quota in new.invited]
            policy = config.Policy(mode="invited", accounts=accounts)
        settings = config.NodeConfig(
            capacity_bytes=new.capacity_bytes,
            host=new.host,
            port=new.port or self._free_port(new.host),
            advertise=[new.advertise] if new.advertise else [],
            zone=new.zone,
            store=new.store,
            introducers=list(new.introducers),
            policy=policy,
        )
        node = compose.init_node(folder, settings)
        return str(PeerAddress(PeerKind.NODE, node, config.advertised(settings, settings.port)[0]))

    def init_introducer(self, folder: Path, *, host: str, port: int, advertise: str) -> str:
        from muniment.node import compose, config
        from muniment.spec.address import PeerAddress, PeerKind

        settings = config.IntroducerConfig(
            host=host, port=port or self._free_port(host), advertise=[advertise] if advertise else []
        )
        node = compose.init_introducer(folder, settings)
        return str(PeerAddress(PeerKind.INTRODUCER, node, config.advertised(settings, settings.port)[0]))

    def init_log(self, folder: Path, *, host: str, port: int, advertise: str, founders: list[str]) -> str:
        from muniment.node import compose, config
        from muniment.spec.address import PeerAddress, PeerKind

        settings = config.LogConfig(
            host=host,
            port=port or self._free_port(host),
            advertise=[advertise] if advertise else [],
            founders=founders,
        )
        node = compose.init_log(folder, settings)
        return str(PeerAddress(PeerKind.LOG, node, config.advertised(settings, settings.port)[0]))

    def run_log(self, folder: Path, ready: Ready) -> None:
        from muniment.node import compose

        compose.run_process(compose.run_log(folder, ready=lambda address: ready(str(address))))

    def run_node(self, folder: Path, ready: Ready) -> None:
        from muniment.node import compose

        compose.run_process(compose.run_node(folder, ready=lambda address: ready(str(address))))

    def set_draining(self, folder: Path, *, draining: bool) -> None:
        from muniment.node.draining import set_draining

        set_draining(folder, draining=draining)

    def run_introducer(self, folder: Path, ready: Ready) -> None:
        from muniment.node import compose

        compose.run_process(compose.run_introducer(folder, ready=lambda address: ready(str(address))))

    async def node_status(self, target: str) -> tuple[str, NodeStatus]:
        from muniment.crypto.identity import Identity
        from muniment.net.http_client import HttpConnector
        from muniment.node.clock import SystemClock
        from muniment.spec.address import parse_node
        from muniment.spec.record import NodeRecord

        address = parse_node(target) if target.startswith("mun:") else _address_of(Path(target))
        # `info` needs no account: any key will do for the connector.
        connector = HttpConnector(Identity.generate(os.urandom), SystemClock())
        node = connector(NodeRecord(address.node, b"", (address.host_port,), "", 0, 0, (), 0, 0))
        try:
            return str(address), await node.info()
        finally:
            await node.aclose()
            connector.close()

    def open_grid(
        self, home: Path, roster: str | None, policy: Policy | None = None
    ) -> AbstractAsyncContextManager[Grid]:
        from muniment.node import compose

        return compose.open_grid(home, roster, policy)

    def has_identity(self, home: Path) -> bool:
        from muniment.node import volume_home

        return volume_home.has_identity(home)

    def identity_locked(self, home: Path) -> bool:
        from muniment.node import volume_home

        return volume_home.identity_locked(home)

    def identity(self, home: Path, passphrase: Passphrase) -> MemberSecret:
        from muniment.node import volume_home

        return volume_home.read_identity(home, passphrase)

    def make_identity(self, home: Path, passphrase: str, seed: bytes | None = None) -> MemberSecret:
        from muniment.node import volume_home

        return volume_home.make_identity(home, passphrase, seed)

    def change_passphrase(self, home: Path, old: Passphrase, new: str) -> None:
        from muniment.node import volume_home

        volume_home.change_passphrase(home, old, new)

    def volumes(self, home: Path) -> list[KnownVolume]:
        from muniment.node import volume_home

        return volume_home.volumes(home)

    async def create_volume(
        self, home: Path, name: str, log: str, policy: VolumePolicy, *, own_name: str, passphrase: Passphrase
    ) -> KnownVolume:
        from muniment.node import volumes

        return await volumes.create_volume(home, name, log, policy, own_name=own_name, passphrase=passphrase)

    async def join_volume(
        self,
        home: Path,
        text: str,
        *,
        name: str | None,
        role: Role,
        own_name: str,
        note: str,
        passphrase: Passphrase,
    ) -> KnownVolume:
        from muniment.node import volumes

        return await volumes.join_volume(
            home, text, name=name, role=role, own_name=own_name, note=note, passphrase=passphrase
        )

    def volume_cap(self, opened: OpenVolume, right: Right | None) -> str:
        from muniment.node import volume_home

        return volume_home.cap_of(opened, right)

    def open_volume(
        self, home: Path, name: str, passphrase: Passphrase
    ) -> AbstractAsyncContextManager[OpenVolume]:
        from muniment.node import volumes

        return volumes.open_volume(home, name, passphrase)

    def open_offline(
        self, home: Path, name: str, passphrase: Passphrase
    ) -> AbstractAsyncContextManager[OpenVolume]:
        from muniment.node import volumes

        return volumes.open_offline(home, name, passphrase)

    async def audit(
        self,
        home: Path,
        name: str,
        roster: str | None,
        passphrase: Passphrase,
        *,
        ask_nodes: bool,
        deep: bool,
    ) -> AuditReport:
        from muniment.node import auditing

        unasked = ""
        async with AsyncExitStack() as stack:
            grid = None
            if ask_nodes:
                try:
                    grid = await stack.enter_async_context(self.open_grid(home, roster))
                except (GridUnknown, ConfigInvalid, UnavailableError) as error:
                    unasked = f"{error}; {error.hint}" if error.hint else str(error)
            return await auditing.audit(home, name, passphrase, grid, deep=deep, unasked=unasked)

    async def audit_logs(self, folder: Path) -> ServiceReport:
        from muniment.node import log_auditing

        return await log_auditing.audit_logs(folder)

    def backup_logs(self, folder: Path, target: Path) -> list[Path]:
        from muniment.node import config
        from muniment.node.log_host import backup_logs

        config.load_log_config(folder)
        return backup_logs(folder / config.LOGS_FOLDER, target)

    def rehost(self, home: Path, name: str, folder: Path) -> int:
        from muniment.node import volumes

        return volumes.rehost_volume(home, name, folder)

    async def rehost_from_grid(
        self,
        home: Path,
        roster: str | None,
        text: str,
        folder: Path,
        passphrase: Passphrase,
        *,
        name: str | None,
        incomplete: bool,
        told: Callable[[int], None],
    ) -> Rehosted:
        from muniment.node import archives

        return await archives.rehost_from_grid(
            home,
            text,
            folder,
            lambda account: self.grid_of(account, home, roster),
            passphrase,
            name=name,
            incomplete=incomplete,
            told=told,
        )

    async def archive_log(
        self, home: Path, name: str, roster: str | None, passphrase: Passphrase, *, write: bool
    ) -> Archived:
        from muniment.node import archives

        return await archives.archive_once(
            home, name, lambda account: self.grid_of(account, home, roster), passphrase, write=write
        )

    async def fetch_volume(self, home: Path, name: str, passphrase: Passphrase) -> int:
        from muniment.node import volumes

        return await volumes.fetch_volume(home, name, passphrase)

    async def move_volume(self, home: Path, name: str, log: str, passphrase: Passphrase) -> KnownVolume:
        from muniment.node import volumes

        return await volumes.move_volume(home, name, log, passphrase)

    async def cosign_once(self, home: Path, names: Sequence[str], passphrase: Passphrase, tell: Tell) -> None:
        from muniment.node import witnesses

        await witnesses.cosign_once(home, names, passphrase, tell)

    def run_witness(self, home: Path, names: Sequence[str], passphrase: Passphrase, tell: Tell) -> bool:
        import asyncio

        import uvloop

        from muniment.node import witnesses

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(witnesses.run_witness(home, names, passphrase, tell))

    def names(self, home: Path, name: str, folder: bytes) -> list[tuple[bytes, bool]]:
        from muniment.node import volumes

        return volumes.names(home, name, folder)

    async def mount(
        self,
        home: Path,
        roster: str | None,
        request: MountRequest,
        passphrase: Passphrase,
        ready: Callable[[Path], None],
    ) -> None:
        from muniment.node.mounting import mount

        await mount(home, roster, request, passphrase, ready)

    def check_mounts(self) -> None:
        from muniment.gateways.mount.machine import check_machine

        check_machine()

    async def unmount(self, home: Path, folder: Path, *, lazy: bool) -> None:
        from muniment.node.mounting import unmount

        await unmount(home, folder, lazy=lazy)

    def open_files(
        self, home: Path, name: str, roster: str | None, passphrase: Passphrase
    ) -> AbstractAsyncContextManager[tuple[OpenVolume, VolumeFiles]]:
        from muniment.node import volumes

        return volumes.open_files(home, name, roster, passphrase)

    def grid_of(self, account: Identity, home: Path, roster: str | None) -> AbstractAsyncContextManager[Grid]:
        """A client of the grid under another account than the home's own."""
        from muniment.node import compose

        return compose.open_grid(home, roster, account=account)

    async def usage(
        self, home: Path, roster: str | None, name: str | None, passphrase: Passphrase
    ) -> list[AccountUsages]:
        from muniment.node import accounts

        return await accounts.usage(
            home,
            name,
            passphrase,
            lambda: self.open_grid(home, roster),
            lambda account: self.grid_of(account, home, roster),
        )

    async def sightings(self, known: KnownVolume, blobs: Sequence[BlobId]) -> list[list[Sighting]]:
        import asyncio

        from muniment.node import keepers

        return await asyncio.to_thread(keepers.sightings, known, blobs)

    def keeper_accounts(self, home: Path, name: str, passphrase: Passphrase) -> dict[str, str]:
        from muniment.ids import id_text
        from muniment.node import keepers

        accounts = keepers.accounts_of(home, name, passphrase)
        return {kind: id_text(identity.account) for kind, identity in accounts}

    async def keep_once(
        self, home: Path, names: Sequence[str], roster: str | None, passphrase: Passphrase, duties: Duties
    ) -> list[tuple[Post, KindCount]]:
        from muniment.node import keepers

        return await keepers.keep_once(
            home, names, lambda account: self.grid_of(account, home, roster), passphrase, duties
        )

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
        import asyncio

        import uvloop

        from muniment.node import keepers

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                keepers.run_keepers(
                    home,
                    names,
                    lambda account: self.grid_of(account, home, roster),
                    passphrase,
                    duties,
                    tell,
                    metrics=metrics,
                )
            )

    def open_queue(self, home: Path) -> AbstractContextManager[VisibleQueue]:
        from muniment.node.home_queue import open_queue

        return open_queue(home)

    def default_home(self) -> Path:
        from muniment.node.home import default_home

        return default_home()

    def join_grid(self, home: Path, roster: str) -> str:
        from muniment.node.home import join_grid

        return join_grid(home, roster)

    def account(self, home: Path) -> str:
        from muniment.ids import id_text
        from muniment.node.home import account_identity

        return id_text(account_identity(home).account)

    def _free_port(self, host: str) -> int:
        """A port for a server that keeps it: free now, not given before, and not one of those that systems
        hand out to outgoing connections, which could have it when the server starts again.
        """
        for port in random.sample(_LASTING_PORTS, len(_LASTING_PORTS)):
            if port not in self._ports and _is_free(host, port):
                self._ports.add(port)
                return port
        raise ConfigInvalid(where=f"host {host}", reason="no free port; name one with --port")


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False


def _address_of(folder: Path) -> PeerAddress:
    """The address of the node in a folder of this machine.

    Raises: ConfigInvalid: no node's folder, or its port is chosen anew at each start.
    """
    from muniment.node import config
    from muniment.node.folder import read_identity
    from muniment.spec.address import PeerAddress, PeerKind

    settings = config.load_node_config(folder)
    if not settings.port:
        where = f"{folder / config.NODE_FILE}: port"
        raise ConfigInvalid(where=where, reason="is chosen at each start; give the node's address instead")
    identity = read_identity(folder / config.KEY_FILE)
    return PeerAddress(PeerKind.NODE, identity.node, config.advertised(settings, settings.port)[0])


def tune() -> None:
    """What a process of ours sets for itself before it does anything; benches too."""
    # Nothing here does linear algebra; the threads that NumPy starts for it cost each command 0.1 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Entries and rows come by the ten thousand and hold no cycles; to search them for some, again and again
    # among all that was imported, would be a tenth of following a log.
    gc.set_threshold(10_000, 20, 20)


def main() -> None:
    """Entry point."""
    tune()
    sys.exit(run(Root()))
