"""Files that are whole or not there, and what a failure leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from muniment.durable_file import write_whole
from muniment.errors import DiskFull, NotCapable, StoreFailed


def test_a_file_is_replaced_whole_or_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    write_whole(path, (part for part in (b"n", b"ew")), mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "file.new").write_bytes(b"half")
    write_whole(path, b"whole")
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "full"), DiskFull),
        (OSError(errno.EIO, "broken"), StoreFailed),
        (NotCapable(needed="read", given="verify"), NotCapable),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, error: BaseException, told: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def parts() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise error

    with pytest.raises(told):
        write_whole(path, parts())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_flush_that_fails_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fails)  # no file system here fails on demand
    with pytest.raises(StoreFailed):
        write_whole(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []
