"""The contract of caches of blobs, for the driver in a folder, and what is special to that."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muniment.caches import folder as driver
from muniment.caches.folder import FolderBlobCache
from muniment.errors import DiskFull, StoreFailed, UnknownVersion
from muniment.ids import id_text
from muniment.stores.disk import KernelDisk
from muniment.testing.contracts.blob_cache import (
    BLOCK_BYTES,
    BlobCacheContract,
    OpenCache,
    blob_at,
    content_at,
    found,
    keep,
    those_here,
)

_INDEX = "index.sqlite"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(top: Path) -> Iterator[OpenCache]:
    caches: list[FolderBlobCache] = []

    def open_one(blocks: int) -> FolderBlobCache:
        caches.append(FolderBlobCache(top, blocks * BLOCK_BYTES))
        return caches[-1]

    yield open_one
    for cache in caches:
        cache.close()


def blob_files(top: Path) -> list[str]:
    return sorted(path.name for path in top.iterdir() if not path.name.startswith(_INDEX))


class TestFolder(BlobCacheContract):
    """In a folder."""


def test_what_somebody_left_half_written_is_in_nobodys_way(opened: OpenCache, top: Path) -> None:
    cache = opened(5)
    keep(cache, 1)
    (top / f"{id_text(blob_at(2))}.new").write_bytes(b"half, and longer than what comes" * 1000)
    keep(cache, 2)
    assert found(cache, 2)
    assert blob_files(top) == sorted(id_text(blob_at(at)) for at in (1, 2))


def test_what_somebody_left_half_written_goes_when_its_turn_has_come(opened: OpenCache, top: Path) -> None:
    cache = opened(3)
    keep(cache, 1, 2)
    name = id_text(blob_at(1))
    (top / name).rename(top / f"{name}.new")  # he was killed before he could give it its name
    keep(cache, 3, 4)
    assert blob_files(top) == sorted(id_text(blob_at(at)) for at in (2, 3, 4))


def test_an_index_that_does_not_add_up_is_given_up_and_made_anew(opened: OpenCache, top: Path) -> None:
    cache = opened(3)
    keep(cache, 1)
    with contextlib.closing(sqlite3.connect(top / _INDEX)) as broken:
        broken.execute("UPDATE head SET size_bytes = 1 << 40")
        broken.commit()
    with pytest.raises(StoreFailed):
        keep(cache, 2)
    again = opened(3)
    keep(again, 3)
    assert blob_files(top) == [id_text(blob_at(3))]


def test_what_cannot_go_past_the_page_cache_goes_through_it(
    opened: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EINVAL, "not on this file system")

    monkeypatch.setattr(KernelDisk, "write_uncached", refused)
    monkeypatch.setattr(KernelDisk, "read_uncached", refused)
    cache = opened(2000)
    keep(cache, 1, size_bytes=5_000_001)
    assert found(cache, 1, 5_000_001)


def test_nobody_else_can_look_into_it(opened: OpenCache, top: Path) -> None:
    top.mkdir(mode=0o755)
    keep(opened(5), 1)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in top.iterdir()}
    assert (stat.S_IMODE(top.stat().st_mode), modes) == (0o700, {0o600})
    assert blob_files(top) == [id_text(blob_at(1))]


def test_two_at_once_keep_to_one_limit_and_see_each_others_blobs(opened: OpenCache) -> None:
    one, other = opened(3), opened(3)
    keep(one, 1, 2)
    assert found(other, 1)
    keep(other, 3, 4)
    assert those_here(one, 1, 2, 3, 4) == [1, 3, 4]
    keep(one, 5)
    assert those_here(other, 1, 3, 4, 5) == [3, 4, 5]


def test_processes_that_read_and_keep_at_the_same_time_never_take_more_than_the_limit(
    opened: OpenCache, top: Path
) -> None:
    limit, processes = 20, []
    opened(limit)
    for seed in range(3):
        process = os.fork()
        if process == 0:
            work_by_chance(top, limit, seed)
        processes.append(process)
    running, most = set(processes), 0
    while running:
        most = max(most, blocks_taken(top))
        ended = [os.waitpid(process, os.WNOHANG) for process in running]
        running -= {process for process, _ in ended}
        assert not any(code for _, code in ended)
    assert 0 < most <= limit
    cache = FolderBlobCache(top, limit * BLOCK_BYTES)
    keep(cache, 100)
    index = cache._index
    assert index is not None
    rows = index.rows("SELECT total(size_bytes), count(*) FROM blobs")
    assert rows == [(blocks_taken(top) * BLOCK_BYTES, len(blob_files(top)))]
    assert index.rows("SELECT size_bytes FROM head") == [(rows[0][0],)]
    cache.close()


def work_by_chance(top: Path, limit: int, seed: int) -> None:
    """In a process of its own: whatever is there is right."""
    code = 1
    try:
        chance, cache = random.Random(seed), FolderBlobCache(top, limit * BLOCK_BYTES)
        for _ in range(100):
            keep(cache, *(chance.randrange(30) for _ in range(3)), size_bytes=2 * BLOCK_BYTES)
            assert found(cache, chance.randrange(30), 2 * BLOCK_BYTES) in (True, None)
        code = 0
    finally:
        os._exit(code)


def blocks_taken(top: Path) -> int:
    taken = 0
    for name in blob_files(top):
        with contextlib.suppress(FileNotFoundError):
            taken += -(-(top / name).stat().st_size // BLOCK_BYTES)
    return taken


def test_while_somebody_else_is_stopped_in_the_middle_nothing_is_kept(
    opened: OpenCache, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_PAUSE_S", 0.0)  # what is waited for never comes
    cache = opened(3)
    keep(cache, 1)
    holder = os.open(top, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    keep(cache, 2)
    assert those_here(cache, 1, 2) == [1]
    assert found(cache, 1)
    os.close(holder)
    keep(cache, 2)
    assert those_here(cache, 1, 2) == [1, 2]


def test_what_a_crash_left_is_deleted_when_it_is_opened_again(opened: OpenCache, top: Path) -> None:
    cache = opened(4)
    keep(cache, 1, 2)
    name = id_text(blob_at(3))
    (top / name).write_bytes(b"not in the index")
    (top / f"{name}.new").write_bytes(b"half")
    (top / id_text(blob_at(1))).unlink()
    again = opened(4)
    keep(again, 4, 5, 6)  # the one that is gone takes no place
    assert blob_files(top) == sorted(id_text(blob_at(at)) for at in (2, 4, 5, 6))


@pytest.mark.parametrize("damage", [b"no database", b""], ids=["garbage", "empty"])
def test_a_damaged_index_begins_anew(opened: OpenCache, top: Path, damage: bytes) -> None:
    keep(opened(4), 1, 2)
    for path in top.glob(f"{_INDEX}*"):
        path.unlink()
    (top / _INDEX).write_bytes(damage)
    cache = opened(4)
    keep(cache, 3)
    assert blob_files(top) == [id_text(blob_at(3))]


def test_an_index_of_a_later_version_is_left_alone(opened: OpenCache, top: Path) -> None:
    keep(opened(4), 1)
    with contextlib.closing(sqlite3.connect(top / _INDEX)) as later:
        later.execute("PRAGMA user_version = 99")
    cache = opened(4)
    with pytest.raises(UnknownVersion):
        keep(cache, 2)
    assert blob_files(top) == [id_text(blob_at(1))]
    assert found(cache, 1)


def delete_all(top: Path) -> None:
    shutil.rmtree(top)


def delete_content(top: Path) -> None:
    for path in top.iterdir():
        path.unlink()


def put_another_there(top: Path) -> None:
    shutil.rmtree(top)
    other = FolderBlobCache(top, 10 * BLOCK_BYTES)
    keep(other, 9)
    other.close()


@pytest.mark.parametrize("delete", [delete_all, delete_content, put_another_there])
def test_one_that_is_deleted_while_it_is_used_says_so_and_puts_nothing_there(
    opened: OpenCache, top: Path, delete: Callable[[Path], None]
) -> None:
    cache = opened(4)
    keep(cache, 1)
    delete(top)
    before = blob_files(top) if top.exists() else []
    assert found(cache, 1) is None
    assert not cache.has(blob_at(1))
    with pytest.raises(StoreFailed, match="deleted"):
        keep(cache, 2)
    assert (blob_files(top) if top.exists() else []) == before


@contextlib.contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """As on a full disk: what is written beyond fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, kept)


def test_what_cannot_be_written_wholly_is_not_there_in_part(opened: OpenCache, top: Path) -> None:
    cache = opened(1000)
    keep(cache, 1)
    with files_of_at_most(300_000), pytest.raises((DiskFull, StoreFailed)):
        keep(cache, 2, size_bytes=400_000)
    assert blob_files(top) == [id_text(blob_at(1))]
    assert (found(cache, 1), found(cache, 2)) == (True, None)


def test_a_file_that_is_damaged_on_disk_is_read_as_it_is(opened: OpenCache, top: Path) -> None:
    """The driver does not know what is right; who reads does."""
    cache = opened(4)
    keep(cache, 1)
    path = top / id_text(blob_at(1))
    path.write_bytes(content_at(2, BLOCK_BYTES))
    assert found(cache, 1) is False
    path.write_bytes(b"")
    assert cache.read_into(blob_at(1), [memoryview(bytearray(5))]) == 0


def test_what_is_no_file_is_not_followed_and_does_not_hang(opened: OpenCache, top: Path) -> None:
    cache = opened(4)
    (top / id_text(blob_at(1))).symlink_to("/etc/passwd")
    (top / id_text(blob_at(2))).mkdir()
    os.mkfifo(top / id_text(blob_at(3)))
    with pytest.raises(StoreFailed):
        found(cache, 1)
    assert not found(cache, 2, 5000)
    assert not found(cache, 3)
    with pytest.raises(StoreFailed):
        cache.drop(blob_at(2))
