"""What mounts of a volume leave in their folders, and who takes it up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from muniment.engine.opened import LOCAL, KnownVolume
from muniment.errors import StoreFailed
from muniment.ids import VolumeId
from muniment.node.folder import FolderLock
from muniment.node.mounts import MountHome, unsaved_in


@pytest.fixture
def volume(tmp_path: Path) -> KnownVolume:
    return KnownVolume(VolumeId(b"v" * 32), "books", LOCAL, b"k" * 32, tmp_path)


@contextlib.contextmanager
def place(volume: KnownVolume, number: int) -> Iterator[MountHome]:
    folder = volume.folder / "mounts" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(MountHome(volume, folder, FolderLock(folder))) as made:
        yield made


def left(volume: KnownVolume, number: int, name: str, data: bytes = b"x") -> Path:
    path = volume.folder / "mounts" / str(number) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_the_next_mount_takes_what_any_that_ended_has_kept_the_oldest_first(volume: KnownVolume) -> None:
    left(volume, 2, "unsaved-900")
    left(volume, 1, "unsaved-1000")
    left(volume, 3, "unsaved-99", b"oldest")
    unfinished = left(volume, 1, "unsaved-5.new")
    with place(volume, 1) as here:
        assert here.has_unsaved()
        found = here.take_unsaved()
        assert [path.name for path in found] == ["unsaved-99", "unsaved-900", "unsaved-1000"]
        assert {path.parent for path in found} == {here.folder}
        assert found[0].read_bytes() == b"oldest"
        assert not unfinished.exists()
        for path in found:
            path.unlink()
        assert not here.has_unsaved()


def test_what_a_mount_has_that_is_served_is_left_to_it(volume: KnownVolume) -> None:
    theirs, sent = left(volume, 2, "unsaved-1"), left(volume, 2, "sent", b"t" * 32)
    with place(volume, 1) as here:
        with place(volume, 2):
            assert here.take_unsaved() == []
            assert here.has_unsaved()
            assert not here.take_sent().exists()
        assert theirs.exists()
        assert sent.read_bytes() == b"t" * 32
        assert here.take_unsaved() == unsaved_in(here.folder)
        assert not theirs.exists()


def test_lists_of_what_was_sent_are_put_together(volume: KnownVolume) -> None:
    others = left(volume, 2, "sent", b"t" * 32)
    left(volume, 1, "sent", b"m" * 32 + b"torn")
    with place(volume, 1) as here:
        assert here.take_sent().read_bytes() == b"m" * 32 + b"t" * 32
        assert not others.exists()
    with place(volume, 3) as here:
        path = here.take_sent()
        assert path.read_bytes() == b"m" * 32 + b"t" * 32
        assert path.stat().st_mode & 0o077 == 0


def test_what_cannot_be_read_or_taken_is_one_error_of_ours(volume: KnownVolume) -> None:
    left(volume, 2, "sent/a-folder")
    left(volume, 2, "unsaved-1")
    with place(volume, 1) as here:
        with pytest.raises(StoreFailed):
            here.take_sent()
        left(volume, 1, "unsaved-1/a-folder")
        with pytest.raises(StoreFailed):
            here.take_unsaved()
