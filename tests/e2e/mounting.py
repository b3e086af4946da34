"""What the tests of mounts share: whether this machine can mount, and a user with a grid and a volume."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.muni_command import User
from tests.e2e.node_processes import Running, running_node

from muniment.errors import ConfigInvalid
from muniment.gateways.mount.machine import check_machine


def missing() -> str:
    """What this machine lacks for mounts, in one line; empty if nothing."""
    try:
        check_machine()
    except ConfigInvalid as error:
        return f"volumes cannot be mounted here: {error}"
    return ""


needs_mounts = pytest.mark.skipif(bool(missing()), reason=missing())


@dataclass(frozen=True)
class Library:
    """A user with a volume `books` over nodes that a test may stop.

    Attributes:
        mounted: a folder to mount at.
    """

    user: User
    nodes: list[Running]

    @property
    def mounted(self) -> Path:
        return self.user.home / "mounted"

    def typed(self, line: str) -> str:
        """What a line that must succeed prints."""
        done = self.user.shell(line)
        assert done.code == 0, done.err
        return done.text

    @contextlib.contextmanager
    def served(self, *options: str) -> Iterator[int]:
        """Mount at `mounted`; the serving process's id.  It is killed at the end, and leaves a dead mount."""
        with self.user.starting(
            "mount", "--foreground", *options, "books", self.mounted, stderr=None
        ) as process:
            assert process.stdout is not None
            assert "is mounted" in process.stdout.readline().decode()
            try:
                yield process.pid
            finally:
                process.kill()
                process.wait()


@contextlib.contextmanager
def silent(processes: list[Running]) -> Iterator[None]:
    """Nodes that take connections and say nothing."""
    for one in processes:
        one.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in processes:
            one.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def library(folder: Path, log: str = "local") -> Iterator[Library]:
    """Six nodes and whoever stores on them.

    Args:
        log: address of the log service.
    """
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running_node(folder / f"node{at}")) for at in range(6)]
        roster = folder / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        made = Library(User(folder / "home", grid=str(roster)), nodes)
        made.mounted.mkdir(parents=True)
        made.typed(f"muni identity new --unlocked && muni volume create books --log {log} --own-name anna")
        try:
            yield made
        finally:
            made.user.muni("umount", "--lazy", made.mounted)
