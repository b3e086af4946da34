"""Two mounts of one volume under calls drawn by chance, compared with what must be there.

Each side has a folder of its own, whose every call is done on a plain dictionary too, and is looked at by the
other side at the end.  In the shared folder both try the same thing at the same time: of two who create,
rename or remove the same name exactly one may win, and what is there afterwards is the winner's.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.programs.place import Failed, Place

_SHARE: Final = 100
"""One of so many calls is a race."""


def two_mounts(place: Place) -> str:
    """See the module."""
    with place.mounted("sync") as one, place.mounted("sync") as two:
        calls, races = max(100, place.operations // _SHARE), max(20, place.operations // _SHARE // 5)
        (one / "shared").mkdir()
        sides = [_Side(mount, f"own{at}", place.seed + at) for at, mount in enumerate((one, two))]
        _together([lambda side=side: side.work(calls) for side in sides])  # type: ignore[misc]
        for side, other in zip(sides, (two, one), strict=True):
            side.compare(side.mount)
            side.compare(other)
        for number in range(races):
            _race(number, one / "shared", two / "shared")
    with place.mounted() as again:
        for side in sides:
            side.compare(again)
    return f"{calls} calls on each side, {races} races of three kinds"


class _Side:
    """One mount, and what its own folder must hold."""

    def __init__(self, mount: Path, name: str, seed: int) -> None:
        self.mount, self.name, self._rng = mount, name, random.Random(seed)
        self.files: dict[str, bytes] = {}

    def work(self, calls: int) -> None:
        top = self.mount / self.name
        top.mkdir()
        for _ in range(calls):
            name, other = self._rng.choice("abcdefgh"), self._rng.choice("abcdefgh")
            match self._rng.randrange(5):
                case 0 | 1:
                    self.files[name] = data = self._rng.randbytes(self._rng.choice((10, 3000, 80_000)))
                    (top / name).write_bytes(data)
                case 2 if name in self.files:
                    self.files[name] += b"appended"
                    with (top / name).open("ab") as file:
                        file.write(b"appended")
                case 3 if name in self.files and name != other:
                    self.files[other] = self.files.pop(name)
                    (top / name).rename(top / other)
                case 4 if name in self.files:
                    del self.files[name]
                    (top / name).unlink()
                case _:
                    self._look(top, name)

    def _look(self, top: Path, name: str) -> None:
        found = (top / name).read_bytes() if (top / name).exists() else None
        if found != self.files.get(name):
            raise Failed(f"{self.name}/{name} is not as it was left")

    def compare(self, mount: Path) -> None:
        top = mount / self.name
        found = {name: (top / name).read_bytes() for name in os.listdir(top)}  # noqa: PTH208 - names only
        if found != self.files:
            wrong = [name for name in found.keys() | self.files if found.get(name) != self.files.get(name)]
            raise Failed(f"{top} differs from what was done there in {wrong}")


def _race(number: int, one: Path, two: Path) -> None:
    name = f"n{number}"

    def create(shared: Path, who: str) -> None:
        descriptor = os.open(shared / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            os.write(descriptor, who.encode())
        finally:
            os.close(descriptor)

    winner = _one_wins("create", create, one, two)
    _same(one / name, two / name, winner.encode())
    winner = _one_wins(
        "rename", lambda shared, who: (shared / name).rename(shared / f"{name}-{who}"), one, two
    )
    _same(one / f"{name}-{winner}", two / f"{name}-{winner}", None)
    _one_wins("unlink", lambda shared, _: (shared / f"{name}-{winner}").unlink(), one, two)
    for shared in (one, two):
        left = [entry for entry in os.listdir(shared) if entry.startswith(f"{name}-") or entry == name]  # noqa: PTH208
        if left:
            raise Failed(f"{left} is still in {shared}")


def _one_wins(what: str, call: Callable[[Path, str], object], one: Path, two: Path) -> str:
    """Do the same on both sides at the same time; returns who could."""
    results: dict[str, int] = {}
    barrier = threading.Barrier(2)

    def side(shared: Path, who: str) -> None:
        os.listdir(shared)  # noqa: PTH208 - so that both see what the race before has left
        barrier.wait()
        try:
            call(shared, who)
            results[who] = 0
        except OSError as error:
            results[who] = error.errno or -1

    _together([lambda: side(one, "one"), lambda: side(two, "two")])
    winners = [who for who, result in results.items() if not result]
    allowed = {0, errno.EEXIST, errno.ENOENT, errno.ESTALE}
    if len(winners) != 1 or not set(results.values()) <= allowed:
        told = {who: os.strerror(result) if result else "won" for who, result in results.items()}
        raise Failed(f"{what}: exactly one must win, and {told}")
    return winners[0]


def _same(one: Path, two: Path, wanted: bytes | None) -> None:
    found = []
    for path in (one, two):
        os.listdir(path.parent)  # noqa: PTH208 - looking asks for what is new
        found.append(path.read_bytes())
    if found[0] != found[1] or (wanted is not None and found[0] != wanted):
        raise Failed(f"{one.name} is {found}, and must be {wanted!r}")


def _together(works: list[Callable[[], None]]) -> None:
    """Run all in threads; the first failure is raised when all have ended."""
    failures: list[Exception] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
