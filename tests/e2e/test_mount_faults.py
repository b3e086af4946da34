"""A mount whose log service or nodes are silent, gone or cut off: nobody waits longer than the deadline, what
was acknowledged stays, and what was not is saved when they are back."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.mounting import Library, library, needs_mounts, silent
from tests.e2e.muni_command import ROOT
from tests.e2e.node_processes import Running, eventually, running

from muniment.net.server import free_port
from muniment.node.compose import init_log
from muniment.node.config import LogConfig
from muniment.spec.address import PeerAddress, PeerKind

pytestmark = needs_mounts

_DEADLINE_S = 2
_SLACK_S = 20
"""What a call may take beyond its deadline on a machine that has much else to do."""

OLD = random.Random(1).randbytes(300_000)
NEW = random.Random(2).randbytes(300_000)


@dataclass
class Scene:
    """A user, and the log service behind a relay that does as it is told."""

    books: Library
    log: Running
    log_folder: Path
    relay: subprocess.Popen[str]

    def turn(self, mode: str) -> None:
        assert self.relay.stdin is not None
        self.relay.stdin.write(f"log {mode} 0\n")
        self.relay.stdin.flush()

    def log_size(self) -> int:
        """Entries that the log service has."""
        (path,) = (one for one in self.log_folder.rglob("*") if _has_entries(one))
        return _entries(path)


def _entries(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM entries").fetchone()[0])


def _has_entries(path: Path) -> bool:
    try:
        return _entries(path) > 0
    except sqlite3.Error:
        return False


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("faults")
    port, behind = free_port("127.0.0.1"), free_port("127.0.0.1")
    node = init_log(folder / "log", LogConfig(port=behind, advertise=[f"127.0.0.1:{port}"]))
    address = PeerAddress(PeerKind.LOG, node, f"127.0.0.1:{port}")
    command = [sys.executable, "-m", "tests.drill.relay", json.dumps([["log", port, behind]])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        running("run_log", folder / "log") as log,
        subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as relay,  # type: ignore[call-overload]
    ):
        assert relay.stdout is not None
        assert relay.stdout.readline()
        with library(folder, str(address)) as books:
            (books.user.home / "old").write_bytes(OLD)
            books.typed("muni put old books:/old")
            yield Scene(books, log, folder / "log", relay)
        relay.kill()


def refused(call: Callable[[], object]) -> str:
    """The name of the error that a call ends with, in time."""
    begun_s, number = time.monotonic(), 0
    try:
        call()
    except OSError as error:
        number = error.errno or 0
    assert time.monotonic() - begun_s < _DEADLINE_S + _SLACK_S
    return errno.errorcode.get(number, "none")


@contextlib.contextmanager
def written(path: Path, data: bytes) -> Iterator[int]:
    """A new file that is open and not synced; closing it may fail."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        os.pwrite(file, data, 0)
        yield file
    finally:
        with contextlib.suppress(OSError):
            os.close(file)


def saved_at_last(file: int) -> None:
    """Sync as often as it takes."""

    def synced() -> bool:
        try:
            os.fsync(file)
        except TimeoutError:
            return False
        return True

    eventually(synced)


def trashed(scene: Scene) -> int:
    """Bytes of which the user's account has given up its leases."""
    usage = json.loads(scene.books.typed("muni usage --json"))
    return sum(account["total"]["trashed_bytes"] for account in usage["accounts"])


def cat(scene: Scene, name: str) -> bytes:
    return scene.books.user.muni("cat", f"books:/{name}").out


def test_an_answer_that_was_lost_on_the_way_makes_no_conflict(scene: Scene) -> None:
    folder = scene.books.mounted
    with scene.books.served("-o", "deadline=40"):
        with written(folder / "first", NEW) as file:
            os.fsync(file)  # by a connection that is kept: a new one would get no handshake
        before, failed = scene.log_size(), list[OSError]()

        def work() -> None:
            try:
                os.mkdir(folder / "made")  # noqa: PTH102 - the plain call
                with written(folder / "made" / "a", NEW) as file:
                    os.fsync(file)
                (folder / "made" / "a").rename(folder / "moved")
                descriptor = os.open(folder, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
            except OSError as error:
                failed.append(error)

        program = threading.Thread(target=work)
        scene.turn("half")
        try:
            program.start()
            eventually(lambda: scene.log_size() > before)  # it is in the log, and nobody hears of it
        finally:
            scene.turn("cut")
            scene.turn("open")
            program.join(60)
        assert not failed
    assert cat(scene, "moved") == NEW
    assert scene.books.user.muni("audit", "books").code == 0


def test_while_the_log_service_is_silent_reads_go_on_and_syncs_end_in_time(scene: Scene) -> None:
    folder = scene.books.mounted
    with scene.books.served("-o", f"deadline={_DEADLINE_S}"):
        with silent([scene.log]):
            begun_s = time.monotonic()
            assert (folder / "old").read_bytes() == OLD
            assert time.monotonic() - begun_s < _DEADLINE_S + _SLACK_S
            with written(folder / "late", NEW) as file:
                assert refused(lambda: os.fsync(file)) == "ETIMEDOUT"
                assert os.pread(file, len(NEW), 0) == NEW
        file = os.open(folder / "late", os.O_RDWR)
        saved_at_last(file)
        os.close(file)
    assert cat(scene, "late") == NEW


def test_while_nodes_are_silent_reads_and_syncs_end_in_time(scene: Scene) -> None:
    folder = scene.books.mounted
    with scene.books.served("-o", f"deadline={_DEADLINE_S},disk_cache=0"):
        with silent(scene.books.nodes[:3]):
            assert refused((folder / "old").read_bytes) in ("ETIMEDOUT", "EIO")
            with written(folder / "kept", NEW) as file:
                assert refused(lambda: os.fsync(file)) in ("ETIMEDOUT", "ENOSPC")
        file = os.open(folder / "kept", os.O_RDWR)
        saved_at_last(file)
        os.close(file)
        assert (folder / "old").read_bytes() == OLD
    assert cat(scene, "kept") == NEW


def test_one_silent_node_is_no_trouble(scene: Scene) -> None:
    with scene.books.served("-o", "deadline=30,disk_cache=0"), silent(scene.books.nodes[:1]):
        assert (scene.books.mounted / "old").read_bytes() == OLD
        (scene.books.mounted / "unhindered").write_bytes(NEW)
        assert cat(scene, "unhindered") == NEW


def test_what_an_unmount_cannot_save_is_in_the_volume_after_the_next_mount(scene: Scene) -> None:
    user, folder = scene.books.user, scene.books.mounted
    scene.books.typed(f"muni mount -o deadline={_DEADLINE_S} books {folder}")
    with silent([scene.log, *scene.books.nodes[:3]]):
        with written(folder / "unsaved", NEW):
            (folder / "shelf").mkdir()
            (folder / "old").rename(folder / "shelf" / "older")
        with (folder / "shelf" / "mapped").open("w+b") as file:
            file.truncate(len(OLD))
            with mmap.mmap(file.fileno(), len(OLD)) as memory:
                memory[:] = OLD
            with contextlib.suppress(OSError):
                file.close()
        begun_s = time.monotonic()
        told = user.muni("umount", folder)
        assert time.monotonic() - begun_s < _DEADLINE_S + _SLACK_S
    assert told.code == 0, told.err
    assert "not all could be saved: the rest is kept in" in told.err
    again = user.muni("mount", "books", folder)
    assert again.code == 0, again.err
    assert "is brought into the volume" in again.err
    assert user.muni("umount", folder).err == ""
    assert cat(scene, "unsaved") == NEW
    assert cat(scene, "shelf/older") == OLD
    assert cat(scene, "shelf/mapped") == OLD
    assert not list(user.home.rglob("unsaved-*"))
    scene.books.typed("muni mv books:/shelf/older books:/old")


def test_what_a_killed_mount_had_sent_for_nothing_is_given_up_by_the_next(scene: Scene) -> None:
    user, folder = scene.books.user, scene.books.mounted
    before = trashed(scene)
    with scene.books.served("-o", f"deadline={_DEADLINE_S}") as process:
        scene.turn("cut")
        with written(folder / "lost", NEW[::-1]) as file:
            assert refused(lambda: os.fsync(file)) == "ETIMEDOUT"
            os.kill(process, signal.SIGKILL)
    scene.turn("open")
    assert trashed(scene) == before
    scene.books.typed(f"muni mount books {folder}")
    (folder / "after").write_bytes(NEW[1:])
    assert user.muni("umount", folder).err == ""
    assert trashed(scene) > before
    assert cat(scene, "after") == NEW[1:]


def test_when_too_few_nodes_are_left_programs_are_told(scene: Scene) -> None:
    """The last: these nodes do not come back."""
    for node in scene.books.nodes[:3]:
        node.kill()
    with scene.books.served("-o", f"deadline={_DEADLINE_S + 20},disk_cache=0"):
        assert refused((scene.books.mounted / "old").read_bytes) == "EIO"
        with written(scene.books.mounted / "too-late", NEW) as file:
            assert refused(lambda: os.fsync(file)) == "ENOSPC"
            assert os.pread(file, len(NEW), 0) == NEW
