"""The real introducer over loopback and TLS, with a client's roster, passes the suite of all rosters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

import pytest

from muniment.crypto.identity import Identity
from muniment.crypto.records import open_record, record_text, sign_record
from muniment.discovery.introducer import IntroducerRoster
from muniment.errors import MunimentError, NodeUnreachable
from muniment.ids import NodeId
from muniment.net.introducer_client import HttpIntroducer
from muniment.net.server import free_port
from muniment.node.clock import SystemClock
from muniment.node.compose import init_introducer, run_introducer
from muniment.node.config import IntroducerConfig
from muniment.spec.address import PeerAddress
from muniment.testing.contracts.roster import LastingRosterContract, record


class JumpingClock(SystemClock):
    """The system's, ahead by what the test has passed: the client's and the nodes', not the introducer's."""

    ahead_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.ahead_s


class HttpMedium:
    """An introducer in this process, and a node's connection to it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._cache = folder / "introducer", folder / "known-nodes.json"
        self._issued_s: dict[NodeId, int] = {}
        self.clock = JumpingClock()
        init_introducer(self._folder, IntroducerConfig(port=free_port("127.0.0.1"), stop_grace_s=0))

    async def __aenter__(self) -> Self:
        await self.come_back()
        self._node = HttpIntroducer(self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._node.aclose()
        await self.leave()

    def open(self) -> IntroducerRoster:
        async def nobody(address: PeerAddress) -> str:
            raise NodeUnreachable(node=address.node, reason="no node here")

        source = HttpIntroducer(self._address)
        return IntroducerRoster(
            str(self._address), source, nobody, self.clock, cache=self._cache, chance=lambda: 0.5
        )

    async def pass_time(self, seconds: float) -> None:
        self.clock.ahead_s += seconds

    async def publish(self, signed: bytes) -> None:
        known = open_record(signed, now_s=0)
        self._issued_s[known.node] = known.issued_s
        await self._node.announce(record_text(signed))

    async def withdraw(self, who: Identity) -> None:
        issued_s = self._issued_s[who.node] + 1
        last = record(
            0, self.clock, node=who.node, public_key=who.public_key, issued_s=issued_s, expires_s=issued_s
        )
        await self._node.announce(record_text(sign_record(who, last)))

    async def plant(self, text: str) -> None:
        with contextlib.suppress(MunimentError):  # an honest introducer refuses it
            await self._node.announce(text)

    async def leave(self) -> None:
        self._stop.set()
        await self._running

    async def come_back(self) -> None:
        self._stop = asyncio.Event()
        serving: asyncio.Future[PeerAddress] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(
            run_introducer(self._folder, ready=serving.set_result, stop=self._stop)
        )
        self._address = await serving


class TestHttpIntroducer(LastingRosterContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> HttpMedium:
        return HttpMedium(tmp_path)

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        asyncio.run(test)
