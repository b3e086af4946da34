"""Both drivers of `CheckpointStore` under one suite, and what only the one with files does."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from muniment.errors import StoreFailed
from muniment.logs.checkpoints import FolderCheckpoints, MemoryCheckpoints
from muniment.testing.contracts.checkpoint_store import CheckpointStoreContract, OpenCheckpoints, note_of


class TestMemory(CheckpointStoreContract):
    @pytest.fixture
    def opened(self) -> OpenCheckpoints:
        store = MemoryCheckpoints()
        return lambda: store


class TestFolder(CheckpointStoreContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "checkpoints"

    @pytest.fixture
    def opened(self, folder: Path) -> Iterator[OpenCheckpoints]:
        stores: list[FolderCheckpoints] = []

        def opened() -> FolderCheckpoints:
            stores.append(FolderCheckpoints(folder))
            return stores[-1]

        yield opened
        for store in stores:
            store.close()

    def test_they_are_there_again(self, opened: OpenCheckpoints, folder: Path) -> None:
        store = opened()
        for size in (1, 2, 5000):
            store.keep(size, note_of(size))
        store.close()
        again = opened()
        again.keep(2, note_of(2))
        again.keep(3, note_of(3))
        assert list(again.notes()) == [note_of(size) for size in (1, 2, 3, 5000)]
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}

    @pytest.mark.parametrize("cut", [1, 5, 13, 20])
    def test_half_a_note_at_the_end_is_forgotten(
        self, opened: OpenCheckpoints, folder: Path, cut: int
    ) -> None:
        store = opened()
        for size in (1, 2):
            store.keep(size, note_of(size))
        store.close()
        (file,) = folder.iterdir()
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size - cut)
        again = opened()
        assert list(again.notes()) == [note_of(1)]
        again.keep(3, note_of(3))
        again.close()
        assert list(opened().notes()) == [note_of(1), note_of(3)]

    def test_one_flipped_bit_anywhere_is_told_and_costs_one_note(self, folder: Path) -> None:
        store, whole = FolderCheckpoints(folder), [note_of(size) for size in (1, 2, 3)]
        for size in (1, 2, 3):
            store.keep(size, note_of(size))
        store.close()
        assert not store.inspect()
        (file,) = folder.iterdir()
        data = file.read_bytes()
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << at % 8
            file.write_bytes(flipped)
            store = FolderCheckpoints(folder)
            left = list(store.notes())
            assert len(left) == 2
            assert set(left) < set(whole)
            (told,) = store.inspect()
            assert str(file) in told
            store.keep(4, note_of(4))
            store.close()
            assert file.read_bytes()[: len(data)] == flipped
            assert list(store.notes()) == [*left, note_of(4)]

    def test_a_folder_that_is_none(self, folder: Path) -> None:
        folder.write_bytes(b"")
        with pytest.raises(StoreFailed):
            FolderCheckpoints(folder)
