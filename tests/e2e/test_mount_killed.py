"""The process of a mount is killed at random moments, under programs that write down what they were promised.

What an fsync or a close has acknowledged is there when the volume is mounted again, at once and in the same
place; every file is one of the versions that somebody wrote, whole; the log and its fold are in order.
Five rounds at every change, fifty at night (docs/testing.md).
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.mounting import Library, library, needs_mounts
from tests.thoroughness import chance, times

pytestmark = needs_mounts

_WRITERS = 3
_FILES = 5
_STEPS_MAX = 120
_SIZES = (0, 10, 3_000, 70_000, 900_000)
_SEAL_BYTES = 32

Version = bytes | None
"""What a file holds; None: it is not there."""


def content(rng: random.Random, size: int) -> bytes:
    """Bytes that show whether they are whole."""
    body = rng.randbytes(size)
    return hashlib.sha256(body).digest() + body


def is_whole(data: bytes) -> bool:
    return hashlib.sha256(data[_SEAL_BYTES:]).digest() == data[:_SEAL_BYTES]


class Killer:
    """Kills a process when so many steps have been begun."""

    def __init__(self, process: int, steps: int) -> None:
        self._process, self._steps = process, steps
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self._steps -= 1
            if self._steps == 0:
                self.now()

    def now(self) -> None:
        os.kill(self._process, signal.SIGKILL)


class Writer:
    """A program that changes files of its own, and remembers what each may hold.

    Attributes:
        may_be: by file: first what was acknowledged last, then all that was tried since.
        promised: acknowledgements.
        failed: a call of his failed otherwise than by the mount's death.
    """

    def __init__(self, number: int, rng: random.Random) -> None:
        self._names = [f"of-{number}-{at}" for at in range(_FILES)]
        self._spare = f"of-{number}-new"
        self._rng = rng
        self.may_be: dict[str, list[Version]] = {name: [None] for name in (*self._names, self._spare)}
        self.promised = 0
        self.failed: OSError | None = None

    def run(self, folder: Path, killer: Killer) -> None:
        """Until the mount is gone."""
        ways = (self._replace, self._replace, self._overwrite, self._remove)
        try:
            while True:
                self._rng.choice(ways)(folder, self._rng.choice(self._names), killer)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
                self.failed = error
                killer.now()

    def _tries(self, name: str, version: Version) -> None:
        self.may_be[name].append(version)

    def _promised(self, name: str) -> None:
        """What was tried last is durable."""
        self.may_be[name] = self.may_be[name][-1:]
        self.promised += 1

    def _replace(self, folder: Path, name: str, killer: Killer) -> None:
        """As editors do: a new file, synced, takes the place of the old one; then the folder is synced."""
        data = content(self._rng, self._rng.choice(_SIZES))
        self.may_be[self._spare] += [b"", data]
        killer.step()
        with (folder / self._spare).open("xb") as file:
            file.write(data)
            file.flush()
            killer.step()
            os.fsync(file.fileno())
        self._promised(self._spare)
        self._tries(name, data)
        self._tries(self._spare, None)
        killer.step()
        (folder / self._spare).rename(folder / name)
        killer.step()
        sync_folder(folder)
        self._promised(name)
        self._promised(self._spare)

    def _overwrite(self, folder: Path, name: str, killer: Killer) -> None:
        """In its place and as long as before, so that it is whole at any time; acknowledged by close."""
        old = self.may_be[name][-1]
        if old is None:
            return
        data = content(self._rng, len(old) - _SEAL_BYTES)
        self._tries(name, data)
        file = os.open(folder / name, os.O_WRONLY)
        try:
            for at in range(0, len(data), 300_000):
                killer.step()
                os.pwrite(file, data[at : at + 300_000], at)
        finally:
            os.close(file)
        self._promised(name)

    def _remove(self, folder: Path, name: str, killer: Killer) -> None:
        if self.may_be[name][-1] is None:
            return
        self._tries(name, None)
        killer.step()
        (folder / name).unlink()
        killer.step()
        sync_folder(folder)
        self._promised(name)

    def check(self, folder: Path) -> None:
        """Everything is as somebody was promised, or as he tried it since; that is how it stays."""
        for name, versions in self.may_be.items():
            path = folder / name
            found = path.read_bytes() if path.exists() else None
            assert found in versions, f"{name}: {_shown(found)} is none of {[*map(_shown, versions)]}"
            self.may_be[name] = [found]
        if self.may_be[self._spare] != [None]:
            (folder / self._spare).unlink()
            sync_folder(folder)
            self.may_be[self._spare] = [None]


def sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _shown(version: Version) -> str:
    if version is None:
        return "absent"
    whole = "" if is_whole(version) or not version else " torn"
    return f"{len(version)} bytes {version[:4].hex()}{whole}"


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with library(tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.mark.timeout(times(120))
def test_what_was_acknowledged_survives_the_death_of_the_mount(books: Library) -> None:
    rng = chance("test_mount_killed")
    writers = [Writer(number, random.Random(rng.random())) for number in range(_WRITERS)]
    rounds = times(3)
    for _ in range(rounds):
        with books.served() as process:
            for writer in writers:
                writer.check(books.mounted)
            killer = Killer(process, rng.randint(1, _STEPS_MAX))
            threads = [threading.Thread(target=one.run, args=(books.mounted, killer)) for one in writers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads)
            assert [writer.failed for writer in writers] == [None] * _WRITERS
        audit = books.user.muni("audit", "books")
        assert audit.code == 0, audit
    with books.served():
        for writer in writers:
            writer.check(books.mounted)
    promised = sum(writer.promised for writer in writers)
    print(f"{rounds} rounds, {promised} changes acknowledged")
    assert promised > rounds
