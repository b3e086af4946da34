"""A log service in a folder instead of the network, and homes with a volume and members."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.cli.support import LOG_ADDRESS, Done, FakeComposition, muni

from muniment.node import volumes
from muniment.node.clock import SystemClock
from muniment.node.folder import make_identity
from muniment.node.log_host import LogHost

REAL = volumes.log_service


def serve_log(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Whoever asks LOG_ADDRESS gets the log host in `folder`.

    Patched, because the composition root reaches a service by HTTP, and no test below e2e uses a network.
    """
    folder.mkdir()
    key = make_identity(folder / "key", os.urandom)

    @contextlib.asynccontextmanager
    async def service(home: Path, log: str) -> AsyncIterator[volumes.RemoteLogs | volumes.LocalLogs]:
        if log != LOG_ADDRESS:
            async with REAL(home, log) as real:
                yield real
            return
        host = LogHost(folder / "logs", key, SystemClock(), may_found=lambda _: True, volumes_max=1000)
        try:
            yield volumes.LocalLogs(host)
        finally:
            await host.aclose()

    patch.setattr(volumes, "log_service", service)


class Person:
    """Somebody with a home of his own and an identity that is not locked."""

    def __init__(self, world: FakeComposition, folder: Path, name: str) -> None:
        self.world, self.home, self.name = world, folder / name, name
        self.id = self.muni("identity", "new", "--unlocked").text.strip()

    def muni(self, *words: str | Path, stdin: bytes = b"") -> Done:
        """Run a command line in this home."""
        return muni(self.world, "--home", self.home, *words, stdin=stdin)

    def create(self, *words: str) -> None:
        """The volume `books`."""
        done = self.muni("volume", "create", "books", "--log", LOG_ADDRESS, "--own-name", self.name, *words)
        assert done.code == 0, done.err

    def join(self, owner: Person, role: str = "writer") -> None:
        """Ask an owner's `books` for membership."""
        invitation = owner.muni("member", "invite", "books").text.strip()
        done = self.muni("volume", "join", invitation, "--own-name", self.name, "--role", role)
        assert done.code == 0, done.err


def two(world: FakeComposition, folder: Path, role: str = "owner") -> tuple[Person, Person]:
    """Anna, who has founded `books`, and bert, whom she has accepted."""
    anna, bert = Person(world, folder, "anna"), Person(world, folder, "bert")
    anna.create()
    bert.join(anna, role)
    assert anna.muni("member", "accept", "books", bert.id).code == 0
    return anna, bert
