"""A POSIX store whose process is killed, whose machine loses power or whose disk fails, at every system call.

After a restart nothing acknowledged is missing and nothing half-written is visible.  That the checks can fail
is proved too: one kind of flush after the other is forgotten, and the checks find out.
"""

from __future__ import annotations

import copy
import errno
import mmap
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import pytest

from muniment.errors import DiskFull, LocalError, ShareUnknown, StoreFailed
from muniment.ids import ShareKey
from muniment.ports import ShareStore, StoredShare
from muniment.stores.disk import DIRECT_BYTES, Disk, KernelDisk
from muniment.stores.naming import fan_of
from muniment.stores.pages import PAGES_BYTES
from muniment.stores.posix import PosixStore
from muniment.stores.posix_gather import GATHERING_MAX
from muniment.stores.posix_record import UNCACHED_BYTES
from muniment.testing.contracts.share_store import content_of, put, read, share_key, shares_of
from muniment.testing.crash import Countdown, InterceptedDisk, failing, kill_now
from muniment.testing.disk_model import Choose, DiskModel, keep_all, lose_all

FOLDER = Path("/parent/store")


def neighbours() -> Iterator[ShareKey]:
    """Keys of which each two after one another share a folder."""
    pools: dict[str, list[ShareKey]] = {}
    for seed in range(10_000):
        key = share_key(seed)
        pool = pools.setdefault(fan_of(key), [])
        pool.append(key)
        if len(pool) == 2:
            yield from pools.pop(fan_of(key))


LARGE = content_of("large", 70_000)
"""Goes past the page cache."""

KEYS = neighbours()
A, B, C, D, E = (next(KEYS) for _ in range(5))
"""A and B share a folder, C and D another one."""

Contents = frozenset[bytes | None]
"""What a share may read as: None is absent."""


@dataclass
class Promises:
    """What a store owes after a crash.

    Attributes:
        may_be: for each share all that it may read as; one thing when nothing is under way.
        kept: bytes that must exist, under their key or in quarantine.
        doing: the operation under way, for messages.
    """

    may_be: dict[ShareKey, Contents] = field(default_factory=dict)
    kept: list[tuple[ShareKey, bytes]] = field(default_factory=list)
    doing: str = "nothing"

    @contextmanager
    def change(self, doing: str, changes: dict[ShareKey, bytes | None]) -> Iterator[None]:
        """Until it returns both old and new are right, then only the new."""
        self.doing = doing
        for key, new in changes.items():
            self.may_be[key] = self.may_be.get(key, frozenset([None])) | {new}
        yield
        for key, new in changes.items():
            self.may_be[key] = frozenset([new])

    def check(self, store: ShareStore, quarantine: list[bytes]) -> dict[ShareKey, bytes | None]:
        """Hold a reopened store to the promises; returns what it holds."""
        found = {key: content_or_none(store, key) for key in self.may_be}
        for key, content in found.items():
            assert content in self.may_be[key], f"{self.doing}: share {key} reads as {content!r}"
        for key, content in self.kept:
            assert found[key] == content or content in quarantine, f"{self.doing}: {key} is lost"
        expected = {key: len(content) for key, content in found.items() if content is not None}
        assert shares_of(store) == expected, self.doing
        return found


def content_or_none(store: ShareStore, key: ShareKey) -> bytes | None:
    try:
        return read(store, key)
    except ShareUnknown:
        return None


def live(disk: Disk, folder: Path, promises: Promises) -> None:
    """All that changes a store, from its first opening on; two bytes at a time, as from a slow client."""
    store = PosixStore(folder, disk)
    with promises.change("first put", {A: b"first"}):
        writer = store.create(A, 5)
        writer.write(b"fi")
        writer.write(b"rst")
        store.commit([writer])
    with promises.change("batch", {B: b"two", C: b"three", D: b"four"}):
        writers = []
        for key, content in ((B, b"two"), (C, b"three"), (D, b"four")):
            writers.append(store.create(key, len(content)))
            writers[-1].write(content)
        store.commit(writers)
    with promises.change("replace", {A: b"replaced"}):
        put(store, A, b"replaced")
    with promises.change("large put", {A: LARGE}):
        writer = store.create(A, len(LARGE))
        writer.write(LARGE[:9])
        writer.write(LARGE[9:])
        store.commit([writer])
    promises.doing = "abort"
    writer = store.create(E, 100)
    writer.write(b"half")
    writer.abort()
    promises.kept.append((C, b"three"))
    with promises.change("quarantine", {C: None}):
        store.quarantine(C)
    with promises.change("delete", {D: None}):
        store.delete(D)
    with promises.change("put after quarantine", {C: b"3"}):
        put(store, C, b"3")
    promises.kept.append((C, b"3"))
    with promises.change("second quarantine", {C: None}):
        store.quarantine(C)
    promises.doing = "close"
    store.close()
    promises.doing = "second opening"
    store = PosixStore(folder, disk)
    with promises.change("put at last", {E: b"last"}):
        put(store, E, b"last")
    store.close()


# --- a killed process, a real disk ----------------------------------------------------------------


def write_shares(store: ShareStore, report: Callable[[bytes], object]) -> None:
    """One share, one of two in a batch replacing it; tells what was acknowledged."""
    put(store, A, b"alone")
    report(b"1")
    writers = []
    for key, content in ((A, b"replaced"), (B, b"beside"), (C, b"elsewhere")):
        writers.append(store.create(key, len(content)))
        writers[-1].write(content[:3])
        writers[-1].write(content[3:])
    store.commit(writers)
    report(b"2")


def killed_while_writing(folder: Path, at: int, when: str) -> tuple[bytes, bool]:
    """Run `write_shares` in a process killed before or after one call.

    Returns: what it acknowledged, and whether it died.
    """
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        # Later Pythons warn of threads in the parent, which other tests' libraries keep; the child uses none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:  # nothing of the parent may run here, neither cleanup nor test reports
        try:
            os.close(receiving)
            disk = InterceptedDisk(KernelDisk())
            store = PosixStore(folder, disk)
            setattr(disk, when, Countdown(at, kill_now))
            write_shares(store, partial(os.write, sending))
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        acknowledged = pipe.read()
    _, status = os.waitpid(child, 0)
    return acknowledged, os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_call_of_a_write(tmp_path: Path, when: str) -> None:
    allowed: dict[bytes, list[Contents]] = {
        b"": [frozenset([None, b"alone"]), frozenset([None]), frozenset([None])],
        b"1": [
            frozenset([b"alone", b"replaced"]),
            frozenset([None, b"beside"]),
            frozenset([None, b"elsewhere"]),
        ],
        b"12": [frozenset([b"replaced"]), frozenset([b"beside"]), frozenset([b"elsewhere"])],
    }
    at = 0
    seen = set()
    while True:
        folder = tmp_path / str(at)
        acknowledged, died = killed_while_writing(folder, at, when)
        seen.add(acknowledged)
        store = PosixStore(folder)
        promises = Promises(dict(zip((A, B, C), allowed[acknowledged], strict=True)), doing=f"call {at}")
        promises.check(store, [])
        assert list((folder / "incoming").iterdir()) == []
        put(store, A, b"works again")
        assert read(store, A) == b"works again"
        store.close()
        if not died:
            break
        at += 1
    assert acknowledged == b"12"
    assert seen == {b"", b"1", b"12"}
    assert at > 20  # so many calls at the least make up such a write


# --- a machine without power, a modelled disk -----------------------------------------------------


def new_disk() -> DiskModel:
    disk = DiskModel()
    disk.make_folder(str(FOLDER.parent), None)
    root = disk.open_folder("/", None)
    disk.flush_folder(root)
    disk.close(root)
    return disk


def contents(disk: DiskModel, name: str) -> list[bytes]:
    """The files of one folder of the store."""
    folder = disk.open_folder(str(FOLDER / name), None)
    found = []
    for entry in disk.entries(folder):
        fd = disk.open_file(entry.name, folder)
        buffer = bytearray(entry.size_bytes)
        disk.read_into(fd, memoryview(buffer), 0)
        disk.close(fd)
        found.append(bytes(buffer))
    disk.close(folder)
    return found


Wrap = Callable[[Disk], Disk]


def check_crash(disk: DiskModel, promises: Promises, wrap: Wrap, choose: Choose) -> None:
    """Reopen what a crash left; then cut the power at once: what was seen must stay."""
    store = PosixStore(FOLDER, wrap(disk))
    assert contents(disk, "incoming") == [], promises.doing
    found = promises.check(store, contents(disk, "quarantine"))
    disk = disk.after_power_cut(choose)
    again = PosixStore(FOLDER, disk)
    seen = Promises(
        {key: frozenset([content]) for key, content in found.items()}, promises.kept, promises.doing
    )
    seen.check(again, contents(disk, "quarantine"))


def crash_everywhere(wrap: Wrap = lambda disk: disk) -> int:
    """Live once, and at each change of the disk look what a kill and a power cut there would leave."""
    disk = new_disk()
    promises = Promises()
    checked = -1
    moments = 0

    def look(call: str) -> None:
        nonlocal checked, moments
        if disk.changes == checked:
            return  # nothing that could be lost has changed
        checked = disk.changes
        moments += 1
        for choose in (lose_all, keep_all, Random(moments).randrange):
            check_crash(disk.after_power_cut(choose), copy.deepcopy(promises), wrap, choose)
        check_crash(disk.after_kill(), copy.deepcopy(promises), wrap, lose_all)

    live(InterceptedDisk(wrap(disk), before=look, after=look), FOLDER, promises)
    look("the end")
    assert promises.check(PosixStore(FOLDER, disk), contents(disk, "quarantine")) == {
        A: LARGE,
        B: b"two",
        C: None,
        D: None,
        E: b"last",
    }
    return moments


def test_power_cut_or_killed_at_every_change_of_the_disk() -> None:
    assert crash_everywhere() > 150


class Forgetful(InterceptedDisk):
    """A disk that lies about one kind of flush.

    Args:
        call: `flush_file` or `flush_folder`.
        after: only when this was the last change before; "nothing" where an opening finds all it needs.
        places: only of these folders.
    """

    def __init__(self, inner: Disk, call: str, after: str, places: tuple[str, ...]) -> None:
        super().__init__(inner, after=self._note)
        self._call, self._after, self._places = call, after, places
        self._last = "nothing"
        self._names: dict[int, str] = {}

    def _note(self, call: str) -> None:
        if call in ("make_folder", "create_file", "write", "write_uncached", "cut", "rename", "unlink"):
            self._last = call

    def open_folder(self, name: str, at: int | None) -> int:
        fd = super().open_folder(name, at)
        self._names[fd] = Path(name).name
        return fd

    def flush_file(self, fd: int) -> None:
        if self._call != "flush_file":
            super().flush_file(fd)

    def flush_folder(self, fd: int) -> None:
        if (self._call, self._after) != ("flush_folder", self._last) or self._names[fd] not in self._places:
            super().flush_folder(fd)


FANS_USED = tuple({fan_of(key) for key in (A, B, C, D, E)})


@pytest.mark.parametrize(
    ("call", "after", "places", "broken"),
    [
        # The first moment at which a promise is broken is the one after the first acknowledgement.
        ("flush_file", "write", (), "first put"),
        ("flush_folder", "make_folder", ("parent",), "batch"),
        ("flush_folder", "make_folder", ("store",), "batch"),
        ("flush_folder", "make_folder", ("shares",), "batch"),
        ("flush_folder", "nothing", FANS_USED, "first put"),
        ("flush_folder", "rename", FANS_USED, "batch"),
        ("flush_folder", "rename", ("quarantine",), "quarantine"),
        ("flush_folder", "unlink", FANS_USED, "put after quarantine"),
    ],
)
def test_a_forgotten_flush_is_found(call: str, after: str, places: tuple[str, ...], broken: str) -> None:
    with pytest.raises(AssertionError, match=f"^{broken}: "):
        crash_everywhere(lambda disk: Forgetful(disk, call, after, places))


class Reordered(InterceptedDisk):
    """A disk that flushes quarantine only after the folder flushed next."""

    def __init__(self, inner: Disk) -> None:
        super().__init__(inner)
        self._quarantine = -1
        self._is_late = False

    def open_folder(self, name: str, at: int | None) -> int:
        fd = super().open_folder(name, at)
        if name == "quarantine":
            self._quarantine = fd
        return fd

    def flush_folder(self, fd: int) -> None:
        if fd == self._quarantine:
            self._is_late = True
            return
        super().flush_folder(fd)
        if self._is_late:
            self._is_late = False
            super().flush_folder(self._quarantine)


def test_flushes_in_the_wrong_order_are_found() -> None:
    disk = new_disk()
    promises = Promises()

    def look(call: str) -> None:
        check_crash(disk.after_power_cut(lose_all), copy.deepcopy(promises), lambda disk: disk, lose_all)

    with pytest.raises(AssertionError, match=r"^quarantine: .* is lost"):
        live(Reordered(InterceptedDisk(disk, after=look)), FOLDER, promises)


def test_a_delete_that_finds_nothing_is_durable_too() -> None:
    """Another thread may have removed the share, and not flushed yet, when the second delete returns."""
    model = new_disk()
    disk = InterceptedDisk(model)
    store = PosixStore(FOLDER, disk)
    put(store, A, b"first")
    after_cut: list[DiskModel] = []

    def meanwhile(call: str) -> None:
        if call == "unlink" and not after_cut:
            disk.after = lambda call: None
            store.delete(A)
            after_cut.append(model.after_power_cut(lose_all))

    disk.after = meanwhile
    store.delete(A)
    assert content_or_none(PosixStore(FOLDER, after_cut[0]), A) is None


# --- a disk that fails ----------------------------------------------------------------------------


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def read_pages(store: ShareStore, key: ShareKey) -> bytes:
    """The record, read into whole pages as a node does it."""
    reader = store.open(key)
    try:
        pages = memoryview(mmap.mmap(-1, -(-reader.size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE))
        return bytes(pages[: reader.read_into(0, pages)])
    finally:
        reader.close()


def operations(store: ShareStore) -> list[Callable[[], object]]:
    """Each kind of call; whatever fails, A is whole before and after."""

    def batch() -> None:
        writers = []
        try:
            for key in (A, B, C):
                writers.append(store.create(key, len(LARGE)))
                writers[-1].write(LARGE[:40_000])
                writers[-1].write(LARGE[40_000:])
            store.commit(writers)
        finally:
            for writer in writers:
                writer.abort()

    def abort() -> None:
        store.create(D, 10).abort()

    return [
        lambda: put(store, A, b"replaced"),
        batch,
        abort,
        lambda: read(store, A),
        lambda: read_pages(store, B),
        lambda: list(store.scan()),
        lambda: store.delete(B),
        lambda: store.delete(B),
        lambda: store.quarantine(C),
        store.free_bytes,
    ]


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, DiskFull), (errno.EIO, StoreFailed)])
def test_every_call_failing_in_turn(tmp_path: Path, number: int, expected: type[LocalError]) -> None:
    """The right error, a store that goes on, and nothing leaked but what could not be removed."""
    folder = tmp_path / "store"
    disk = InterceptedDisk(KernelDisk())
    store = PosixStore(folder, disk)
    put(store, A, b"first")
    fds = open_fds()
    struck: list[tuple[int, str]] = []
    for kind, operation in enumerate(operations(store)):
        at = 0
        while True:
            stuck = len(list((folder / "incoming").iterdir()))
            with failing(disk, at, number) as fault:
                try:
                    operation()
                except expected:
                    assert fault.struck
                else:
                    # Closing, cleaning up and advice are the only calls whose failure changes nothing.
                    assert fault.struck in (None, "close", "unlink", "drop_cached")
            if fault.struck is None:
                break
            struck.append((kind, fault.struck))
            assert open_fds() == fds, struck[-1]
            assert len(list((folder / "incoming").iterdir())) == stuck + (struck[-1] == (2, "unlink")), (
                struck[-1]
            )
            assert read(store, A) in (b"first", b"replaced", LARGE)
            assert all(isinstance(item, StoredShare) for item in store.scan())
            at += 1
    calls = {call for _, call in struck}
    assert calls == {
        *("create_file", "reserve", "write", "flush_file", "rename", "flush_folder", "close", "unlink"),
        *("open_file", "describe", "read_into", "read_uncached", "entries", "look", "free_bytes"),
        *("write_uncached", "cut", "drop_cached"),
    }
    store.close()
    PosixStore(folder).close()
    assert list((folder / "incoming").iterdir()) == []


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, DiskFull), (errno.EIO, StoreFailed)])
def test_every_call_of_an_opening_failing_in_turn(
    number: int, expected: type[LocalError], *, is_new: bool
) -> None:
    model = new_disk()
    if not is_new:
        PosixStore(FOLDER, model).create(A, 10)  # never closed: leaves a file in incoming
    for at in range(1000):
        again = new_disk() if is_new else model.after_kill()
        disk = InterceptedDisk(again)
        with failing(disk, at, number) as fault:
            try:
                store = PosixStore(FOLDER, disk)
            except expected:
                assert again.open_count == 0, fault.struck
                continue
            assert fault.struck in (None, "close")
        store.close()
        assert again.open_count == 0
        if fault.struck is None:
            break
    assert at > 100


class Halting(InterceptedDisk):
    """A disk that takes and gives a few bytes at a time, as the system may."""

    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:7])

    def write_uncached(self, fd: int, data: memoryview) -> int:
        return super().write_uncached(fd, data[:DIRECT_BYTES])

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        return super().read_into(fd, buffer[:5000], offset)

    def read_uncached(self, fd: int, buffer: memoryview, offset: int) -> int:
        return super().read_uncached(fd, buffer[:DIRECT_BYTES], offset)


class Buffered(InterceptedDisk):
    """A file system that cannot go past the page cache."""

    def write_uncached(self, fd: int, data: memoryview) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    def read_uncached(self, fd: int, buffer: memoryview, offset: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")


def test_calls_that_do_only_a_part_are_continued(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store", Halting(KernelDisk()))
    put(store, A, content_of("a", 1000))
    assert read(store, A) == content_of("a", 1000)
    put(store, B, LARGE)
    assert read_pages(store, B) == LARGE
    store.close()


@pytest.mark.parametrize("size_bytes", [UNCACHED_BYTES, UNCACHED_BYTES + 1, len(LARGE)])
@pytest.mark.parametrize("kind", [KernelDisk, lambda: Buffered(KernelDisk())])
def test_records_read_into_whole_pages(tmp_path: Path, kind: Callable[[], Disk], size_bytes: int) -> None:
    """Past the page cache where the file system can, else through it: the same bytes."""
    store = PosixStore(tmp_path / "store", kind())
    put(store, B, LARGE[:size_bytes])
    assert read_pages(store, B) == LARGE[:size_bytes]
    store.close()


def written(calls: list[str]) -> InterceptedDisk:
    """A disk that notes how records are written."""

    def note(call: str) -> None:
        if call in ("write", "write_uncached", "cut"):
            calls.append(call)

    return InterceptedDisk(KernelDisk(), after=note)


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (UNCACHED_BYTES - 1, ["write"] * 2),
        (UNCACHED_BYTES, ["write_uncached"]),
        (UNCACHED_BYTES + 1, ["write_uncached", "cut"]),
        (PAGES_BYTES, ["write_uncached"]),
        (PAGES_BYTES + 1, ["write_uncached"] * 2 + ["cut"]),
        (2 * PAGES_BYTES + DIRECT_BYTES, ["write_uncached"] * 3),
    ],
)
def test_large_records_are_written_in_whole_pages(
    tmp_path: Path, size_bytes: int, expected: list[str]
) -> None:
    calls: list[str] = []
    store = PosixStore(tmp_path / "store", written(calls))
    content = Random(size_bytes).randbytes(size_bytes)
    writer = store.create(A, size_bytes)
    writer.write(content[:777])
    writer.write(content[777:])
    assert calls == expected
    store.commit([writer])
    assert read(store, A) == content
    store.close()


def test_what_finds_no_memory_to_be_gathered_in_goes_through_the_cache(tmp_path: Path) -> None:
    calls: list[str] = []
    store = PosixStore(tmp_path / "store", written(calls))
    for _ in range(2):  # aborted and committed records give their memory back
        keys = [next(KEYS) for _ in range(GATHERING_MAX + 1)]
        writers = [store.create(key, len(LARGE)) for key in keys]
        for writer in reversed(writers):
            writer.write(LARGE[:9])
        writers[1].abort()
        del writers[1], keys[1]
        for writer in writers:
            writer.write(LARGE[9:])
        store.commit(writers)
        assert [read(store, key) for key in keys] == [LARGE] * GATHERING_MAX
        assert calls.count("write") == 2
        assert calls.count("write_uncached") == GATHERING_MAX - 1
        calls.clear()
    store.close()
