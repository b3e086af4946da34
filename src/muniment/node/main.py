"""The program `muni`: the command line with the composition root plugged in."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.errors import InvalidRequest
from muniment.gateways.cli.app import run
from muniment.gateways.cli.composition import NewNode, Ready
from muniment.ids import id_text
from muniment.net.http_client import HttpConnector
from muniment.net.server import free_port
from muniment.node import compose, config
from muniment.node.clock import SystemClock
from muniment.node.folder import read_identity
from muniment.spec.address import PeerAddress, PeerKind, parse_node
from muniment.spec.record import NodeRecord
from muniment.spec.wire import NodeStatus


class Root:
    """`gateways.cli.composition.Composition`: what the command line asks for, made by `compose`."""

    def init_node(self, folder: Path, new: NewNode) -> str:
        policy = config.Policy()
        if new.invited:
            accounts = [config.InvitedAccount(account=a, quota_bytes=quota) for a, quota in new.invited]
            policy = config.Policy(mode="invited", accounts=accounts)
        settings = config.NodeConfig(
            capacity_bytes=new.capacity_bytes,
            host=new.host,
            port=new.port or free_port(new.host),
            advertise=[new.advertise] if new.advertise else [],
            zone=new.zone,
            store=new.store,
            introducers=list(new.introducers),
            policy=policy,
        )
        node = compose.init_node(folder, settings)
        return str(PeerAddress(PeerKind.NODE, node, config.advertised(settings, settings.port)[0]))

    def init_introducer(self, folder: Path, *, host: str, port: int, advertise: str) -> str:
        settings = config.IntroducerConfig(
            host=host, port=port or free_port(host), advertise=[advertise] if advertise else []
        )
        node = compose.init_introducer(folder, settings)
        return str(PeerAddress(PeerKind.INTRODUCER, node, config.advertised(settings, settings.port)[0]))

    def run_node(self, folder: Path, ready: Ready) -> None:
        compose.run_process(compose.run_node(folder, ready=lambda address: ready(str(address))))

    def run_introducer(self, folder: Path, ready: Ready) -> None:
        compose.run_process(compose.run_introducer(folder, ready=lambda address: ready(str(address))))

    def open_grid(self, home: Path, roster: str | None, policy: Policy) -> AbstractAsyncContextManager[Grid]:
        return compose.open_grid(home, roster, policy)

    async def node_status(self, target: str) -> tuple[str, NodeStatus]:
        address = parse_node(target) if target.startswith("mun:") else _address_of(Path(target))
        # `info` needs no account: any key will do for the connector.
        connector = HttpConnector(compose.Identity.generate(os.urandom), SystemClock())
        node = connector(NodeRecord(address.node, b"", (address.host_port,), "", 0, 0, (), 0, 0))
        try:
            return str(address), await node.info()
        finally:
            await node.aclose()
            connector.close()

    def account(self, home: Path) -> str:
        return id_text(compose.account_identity(home).account)


def _address_of(folder: Path) -> PeerAddress:
    """The address of the node in a folder of this machine.

    Raises: ConfigInvalid: no node's folder; InvalidRequest: its port is chosen anew at each start.
    """
    settings = config.load_node_config(folder)
    if not settings.port:
        raise InvalidRequest(reason="the node's port is chosen at each start; give its address instead")
    identity = read_identity(folder / config.KEY_FILE)
    return PeerAddress(PeerKind.NODE, identity.node, config.advertised(settings, settings.port)[0])


def main() -> None:
    """Entry point."""
    sys.exit(run(Root()))
