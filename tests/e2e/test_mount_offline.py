"""A mount reads from its disk what it has read before: with every node stopped, and right though it rots."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.mounting import Library, library, needs_mounts
from tests.e2e.node_processes import running

from muniment.net.server import free_port
from muniment.node.compose import init_log
from muniment.node.config import LogConfig

pytestmark = needs_mounts

RNG = random.Random(12)
TREE = {f"small{at}": RNG.randbytes(20_000 + at) for at in range(5)} | {"large": RNG.randbytes(9_000_000)}
OTHER = RNG.randbytes(100_000)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """All is written through a mount that is gone, and nothing was read."""
    folder = tmp_path_factory.mktemp("offline")
    init_log(folder / "log", LogConfig(port=free_port("127.0.0.1")))
    with running("run_log", folder / "log") as log, library(folder, str(log.address)) as made:
        records = [made.typed(f"muni node status --record {node.address}") for node in made.nodes]
        (folder / "roster").write_text("\n".join(records))  # a mount begins without asking the nodes
        mount(made)
        for name, content in (TREE | {"unread": OTHER}).items():
            (made.mounted / name).write_bytes(content)
        umount(made)
        yield made


def mount(books: Library, *options: str, at: Path | None = None) -> None:
    done = books.user.muni("mount", *options, "books", at or books.mounted)
    assert done.code == 0, done.err


def umount(books: Library, *, at: Path | None = None) -> None:
    done = books.user.muni("umount", at or books.mounted)
    assert done.code == 0, done.err


def read(books: Library, *, at: Path | None = None) -> dict[str, bytes]:
    return {name: ((at or books.mounted) / name).read_bytes() for name in TREE}


def kept_bytes(books: Library) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in blobs(books))


def refused(path: Path) -> str:
    """The error that reading a file ends with."""
    try:
        path.read_bytes()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "none"


def blobs(books: Library) -> list[Path]:
    """What is in the cache."""
    cache = books.user.home / "muniment" / "cache"
    return [path for path in cache.iterdir() if not path.name.startswith("index.sqlite")]


def log_of(books: Library) -> str:
    (path,) = (books.user.home / "muniment").glob("volumes/*/mounts/1/mount.log")
    return path.read_text()


def test_the_limit_holds_for_what_a_mount_reads(books: Library) -> None:
    assert not blobs(books)
    mount(books, "-o", "disk_cache=0")
    assert read(books) == TREE
    umount(books)
    assert not blobs(books)
    mount(books, "-o", "disk_cache=5MiB")
    assert read(books) == TREE
    umount(books)
    assert 1 << 20 < kept_bytes(books) <= 5 << 20


def test_two_mounts_that_read_at_the_same_time_share_one_cache_and_one_limit(books: Library) -> None:
    other = books.user.home / "other"
    other.mkdir()
    mount(books, "-o", "disk_cache=9MiB,cache=0")
    mount(books, "-o", "disk_cache=9MiB,cache=0", at=other)
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda at: read(books, at=at), [books.mounted, other]))
    umount(books)
    umount(books, at=other)
    assert both == [TREE, TREE]
    assert 1 << 20 < kept_bytes(books) <= 9 << 20


def test_what_was_read_once_is_right_though_it_rots_and_there_with_no_node(books: Library) -> None:
    mount(books)
    assert read(books) == TREE
    umount(books)
    kept = blobs(books)
    assert sum(path.stat().st_size for path in kept) >= sum(map(len, TREE.values()))
    assert not any(content[:64] in path.read_bytes() for path in kept for content in TREE.values())

    for path in kept:  # while the nodes are there
        record = bytearray(path.read_bytes())
        record[len(record) // 2] ^= 0x10
        path.write_bytes(record)
    mount(books)
    assert read(books) == TREE
    umount(books)
    assert log_of(books).count("the cache on disk is damaged") == len(kept)

    for node in books.nodes:
        assert node.stop() == 0
    mount(books, "-o", "deadline=20")
    assert read(books) == TREE
    assert refused(books.mounted / "unread") in ("EIO", "ETIMEDOUT")
    umount(books)
    mount(books, "-o", "deadline=20,disk_cache=0")
    assert refused(books.mounted / "large") in ("EIO", "ETIMEDOUT")
    umount(books)
