"""Share stores against a dict, in any order of calls, with restarts, kills and power cuts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from obstore.store import MemoryStore as ObstoreMemory
from tests.thoroughness import times

from muniment.errors import InternalError, ShareUnknown
from muniment.ports import ShareStore, ShareWriter
from muniment.stores.memory import MemoryStore
from muniment.stores.object import ObjectStore
from muniment.stores.posix import PosixStore
from muniment.testing.contracts.share_store import content_of, put, read, share_key, shares_of
from muniment.testing.disk_model import Choose, DiskModel

KEYS = [share_key(seed, seed) for seed in range(5)]
FOLDER = Path("/store")


class StoreMachine(RuleBasedStateMachine):
    """Calls a store and a dict alike; a subclass says which store, and how its process may end."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[int, bytes] = {}
        self.writers: list[tuple[int, ShareWriter, bytes, int]] = []  # share, writer, content, bytes written
        self.fresh = 0
        self.store: ShareStore

    @initialize()
    def begin(self) -> None:
        self.store = self.first_open()

    def first_open(self) -> ShareStore:
        raise NotImplementedError

    def restart(self) -> ShareStore | None:
        """Close and open again; None where nothing outlives a close."""
        raise NotImplementedError

    def new_content(self, size_bytes: int) -> bytes:
        self.fresh += 1
        return content_of(self.fresh, size_bytes)

    # --- calls --------------------------------------------------------------------------------

    @rule(share=st.integers(0, 4), size_bytes=st.integers(1, 300))
    def create(self, share: int, size_bytes: int) -> None:
        writer = self.store.create(KEYS[share], size_bytes)
        self.writers.append((share, writer, self.new_content(size_bytes), 0))

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 99), size_bytes=st.integers(1, 300))
    def write(self, which: int, size_bytes: int) -> None:
        which %= len(self.writers)
        share, writer, content, written = self.writers[which]
        writer.write(memoryview(content)[written : written + size_bytes])
        self.writers[which] = share, writer, content, min(len(content), written + size_bytes)

    @precondition(lambda self: self.writers)
    @rule(count=st.integers(1, 3))
    def commit(self, count: int) -> None:
        batch, self.writers = self.writers[:count], self.writers[count:]
        if any(len(content) != written for _, _, content, written in batch):
            with pytest.raises(InternalError):
                self.store.commit([writer for _, writer, _, _ in batch])
            return
        self.store.commit([writer for _, writer, _, _ in batch])
        self.expected.update((share, content) for share, _, content, _ in batch)

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 99))
    def abort(self, which: int) -> None:
        _, writer, _, _ = self.writers.pop(which % len(self.writers))
        writer.abort()

    @rule(share=st.integers(0, 4), size_bytes=st.integers(1, 300))
    def put(self, share: int, size_bytes: int) -> None:
        content = self.new_content(size_bytes)
        put(self.store, KEYS[share], content)
        self.expected[share] = content

    @rule(share=st.integers(0, 4))
    def delete(self, share: int) -> None:
        self.store.delete(KEYS[share])
        self.expected.pop(share, None)

    @rule(share=st.integers(0, 4))
    def quarantine(self, share: int) -> None:
        self.store.quarantine(KEYS[share])
        self.expected.pop(share, None)

    @rule(share=st.integers(0, 4), offset=st.integers(0, 400), length=st.integers(0, 400))
    def read_range(self, share: int, offset: int, length: int) -> None:
        if share not in self.expected:
            with pytest.raises(ShareUnknown):
                self.store.open(KEYS[share])
            return
        reader = self.store.open(KEYS[share])
        buffer = bytearray(length)
        got = reader.read_into(offset, buffer)
        reader.close()
        assert buffer[:got] == self.expected[share][offset : offset + length]

    @rule()
    def close_and_open(self) -> None:
        again = self.restart()
        if again is not None:
            self.store = again
            self.writers.clear()

    @invariant()
    def all_is_as_expected(self) -> None:
        if hasattr(self, "store"):
            assert shares_of(self.store) == {KEYS[share]: len(c) for share, c in self.expected.items()}
            assert {share: read(self.store, KEYS[share]) for share in self.expected} == self.expected

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


class OnMemory(StoreMachine):
    def first_open(self) -> ShareStore:
        return MemoryStore()

    def restart(self) -> ShareStore | None:
        return None


class OnObjects(StoreMachine):
    def first_open(self) -> ShareStore:
        self.spool = Path(tempfile.mkdtemp())
        self.objects = ObstoreMemory()
        return ObjectStore(self.objects, self.spool)

    def restart(self) -> ShareStore | None:
        self.store.close()
        return ObjectStore(self.objects, self.spool)

    def teardown(self) -> None:
        super().teardown()
        assert list(self.spool.iterdir()) == []
        self.spool.rmdir()


class OnFolder(StoreMachine):
    def first_open(self) -> ShareStore:
        self.folder = Path(tempfile.mkdtemp())
        return PosixStore(self.folder / "store")

    def restart(self) -> ShareStore | None:
        self.store.close()
        return PosixStore(self.folder / "store")

    def teardown(self) -> None:
        super().teardown()
        assert list((self.folder / "store/incoming").iterdir()) == []
        shutil.rmtree(self.folder)


class OnModelledDisk(StoreMachine):
    """Every call was acknowledged, so after any crash exactly the expected must be there."""

    def first_open(self) -> ShareStore:
        self.disk = DiskModel()
        return PosixStore(FOLDER, self.disk)

    def restart(self) -> ShareStore | None:
        self.store.close()
        return PosixStore(FOLDER, self.disk)

    @rule()
    def kill(self) -> None:
        self.go_on(self.disk.after_kill())

    @rule(seed=st.integers(0, 1000))
    def cut_power(self, seed: int) -> None:
        choose: Choose = Random(seed).randrange
        self.go_on(self.disk.after_power_cut(choose))

    def go_on(self, disk: DiskModel) -> None:
        self.disk = disk
        self.store = PosixStore(FOLDER, disk)
        self.writers.clear()


few = settings(max_examples=times(13), stateful_step_count=25)

TestMemory = OnMemory.TestCase
TestMemory.settings = few
TestObjects = OnObjects.TestCase
TestObjects.settings = few
TestFolder = OnFolder.TestCase
TestFolder.settings = few
TestModelledDisk = OnModelledDisk.TestCase
TestModelledDisk.settings = few
