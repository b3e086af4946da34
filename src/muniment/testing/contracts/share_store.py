"""What every `ShareStore` does, whatever it writes to.

A driver's test subclasses `ShareStoreContract` and gives a fixture `medium`: something on which stores can be
opened one after the other.  Needs pytest.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from muniment.errors import InternalError, ShareUnknown, StoreFailed
from muniment.ids import BlobId, ShareKey, ShareNumber
from muniment.ports import ForeignObject, ShareStore, ShareWriter, StoredShare


class Medium(Protocol):
    """What a store writes to, seen from outside the store."""

    @property
    def keeps(self) -> bool:
        """Whether a store opened after another one's close has its shares."""
        ...

    def open(self) -> ShareStore:
        """Open a store on it; only while no other one is open."""
        ...

    def plant(self, name: str, content: bytes) -> bool:
        """Put something between the shares that no store put there; False where nobody else can write."""
        ...

    def quarantined(self) -> list[bytes]:
        """The contents of the quarantine."""
        ...

    def leftovers(self) -> int:
        """How many unfinished writes take room."""
        ...


def share_key(seed: int | str, number: int = 0) -> ShareKey:
    """A key that differs for each seed, evenly spread."""
    return ShareKey(BlobId(hashlib.sha256(str(seed).encode()).digest()), ShareNumber(number))


def content_of(seed: int | str, size_bytes: int) -> bytes:
    """Bytes that differ for each seed."""
    return hashlib.shake_128(f"content {seed}".encode()).digest(size_bytes)


def put(store: ShareStore, key: ShareKey, content: bytes) -> None:
    """Store one share."""
    writer = store.create(key, len(content))
    writer.write(content)
    store.commit([writer])


def read(store: ShareStore, key: ShareKey) -> bytes:
    """A whole record."""
    reader = store.open(key)
    try:
        buffer = bytearray(reader.size_bytes)
        assert reader.read_into(0, buffer) == len(buffer)
        return bytes(buffer)
    finally:
        reader.close()


def shares_of(store: ShareStore) -> dict[ShareKey, int]:
    """What a scan finds; nothing foreign, nothing twice."""
    found = list(store.scan())
    shares = {item.key: item.size_bytes for item in found if isinstance(item, StoredShare)}
    assert len(shares) == len(found), found
    return shares


def foreign_of(store: ShareStore) -> list[ForeignObject]:
    """What a scan finds and does not know."""
    return [item for item in store.scan() if isinstance(item, ForeignObject)]


def assert_absent(store: ShareStore, key: ShareKey) -> None:
    """Neither `open` nor `scan` shows the share."""
    with pytest.raises(ShareUnknown) as caught:
        store.open(key)
    assert (caught.value.blob, caught.value.share) == (key.blob, key.number)
    assert key not in {item.key for item in store.scan() if isinstance(item, StoredShare)}


class ShareStoreContract:
    """Subclass it and give the fixture `medium`."""

    @pytest.fixture
    def medium(self) -> Medium:
        """What the subclass is about."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, medium: Medium) -> Iterator[ShareStore]:
        """A store on an empty medium."""
        store = medium.open()
        yield store
        store.close()

    # --- writing and reading ------------------------------------------------------------------

    @pytest.mark.parametrize("size_bytes", [1, 4095, 65536, 100_003])
    def test_a_committed_share_reads_as_it_was_written(self, store: ShareStore, size_bytes: int) -> None:
        key, content = share_key("one", 255), content_of("one", size_bytes)
        put(store, key, content)
        assert read(store, key) == content
        assert shares_of(store) == {key: size_bytes}

    def test_a_record_of_many_megabytes(self, store: ShareStore) -> None:
        key, content = share_key("large"), content_of("large", 11 * 1024 * 1024 + 7)
        writer = store.create(key, len(content))
        for start in range(0, len(content), 1 << 20):
            writer.write(memoryview(content)[start : start + (1 << 20)])
        store.commit([writer])
        assert hashlib.sha256(read(store, key)).digest() == hashlib.sha256(content).digest()

    def test_pieces_of_any_kind_whose_buffers_are_reused(self, store: ShareStore) -> None:
        key, content = share_key("pieces"), content_of("pieces", 3000)
        expected = content[:1000] + bytes(999) + content[2000:]
        writer = store.create(key, len(expected))
        assert writer.key == key
        writer.write(content[:1])
        writer.write(b"")
        reused = bytearray(content[1:1000])
        writer.write(reused)
        reused[:] = bytes(999)
        writer.write(memoryview(reused))
        reused[:] = content[2000:2999]
        writer.write(memoryview(reused)[:500])
        writer.write(memoryview(reused)[500:])
        writer.write(content[2999:])
        store.commit([writer])
        assert read(store, key) == expected

    def test_reads_at_any_offset_and_length(self, store: ShareStore) -> None:
        key, size_bytes = share_key("ranges"), 50_001
        content = content_of("ranges", size_bytes)
        put(store, key, content)
        reader = store.open(key)
        assert reader.size_bytes == size_bytes
        for offset in (0, 1, 16_383, 16_384, size_bytes - 1, size_bytes, size_bytes + 7):
            for length in (0, 1, 4096, 16_385, size_bytes + 3):
                buffer = bytearray(b"\xa5" * length)
                got = reader.read_into(offset, memoryview(buffer))
                assert got == max(0, min(length, size_bytes - offset))
                assert buffer[:got] == content[offset : offset + got]
                assert buffer[got:] == b"\xa5" * (length - got)
        reader.close()
        reader.close()

    def test_a_share_that_is_not_there(self, store: ShareStore) -> None:
        put(store, share_key("here", 1), b"x")
        assert_absent(store, share_key("here", 0))
        assert_absent(store, share_key("nowhere"))

    # --- the moment of commit -----------------------------------------------------------------

    def test_nothing_is_visible_before_its_commit(self, store: ShareStore) -> None:
        key = share_key("hidden")
        writer = store.create(key, 5)
        assert_absent(store, key)
        writer.write(b"abcde")
        assert_absent(store, key)
        store.commit([writer])
        assert read(store, key) == b"abcde"

    def test_abort_at_any_time_leaves_nothing(self, store: ShareStore, medium: Medium) -> None:
        key = share_key("aborted")
        for written in (b"", b"abc", b"abcde"):
            writer = store.create(key, 5)
            writer.write(written)
            writer.abort()
            writer.abort()
            with pytest.raises(StoreFailed):
                writer.write(b"de")
            with pytest.raises(InternalError):
                store.commit([writer])
            assert_absent(store, key)
        assert medium.leftovers() == 0

    def test_abort_after_commit_changes_nothing(self, store: ShareStore) -> None:
        key = share_key("kept")
        writer = store.create(key, 3)
        writer.write(b"abc")
        store.commit([writer])
        writer.abort()
        assert read(store, key) == b"abc"
        with pytest.raises(InternalError):
            store.commit([writer])
        assert read(store, key) == b"abc"

    @pytest.mark.parametrize("written", [b"", b"abcd", b"abcdef", b"abcde" * 1000])
    def test_another_size_than_announced_fails_the_batch(
        self, store: ShareStore, medium: Medium, written: bytes
    ) -> None:
        old, right, wrong = share_key("old"), share_key("right"), share_key("old", 1)
        put(store, old, b"old")
        writers = []
        for key, content in ((old, b"new"), (wrong, written), (right, b"right")):
            writer = store.create(key, 5 if key == wrong else len(content))
            writer.write(content)
            writers.append(writer)
        with pytest.raises(InternalError):
            store.commit(writers)
        assert shares_of(store) == {old: 3}
        assert read(store, old) == b"old"
        for writer in writers:
            with pytest.raises(InternalError):
                store.commit([writer])
        assert medium.leftovers() == 0

    def test_a_batch_is_committed_whole(self, store: ShareStore) -> None:
        contents = {share_key(seed, seed): content_of(seed, 100 + seed) for seed in range(40)}
        writers = []
        for key, content in contents.items():
            writers.append(store.create(key, len(content)))
            writers[-1].write(content)
        store.commit(writers)
        assert shares_of(store) == {key: len(content) for key, content in contents.items()}
        assert {key: read(store, key) for key in contents} == contents
        store.commit([])

    def test_of_two_writers_of_one_share_the_last_to_commit_wins(self, store: ShareStore) -> None:
        key = share_key("twice")
        first, second, third = (store.create(key, 1) for _ in range(3))
        for writer, content in ((first, b"1"), (second, b"2"), (third, b"3")):
            writer.write(content)
        store.commit([second])
        assert read(store, key) == b"2"
        store.commit([third, first])
        assert read(store, key) == b"1"
        assert shares_of(store) == {key: 1}

    def test_a_writer_given_twice_or_made_elsewhere_is_refused(self, store: ShareStore) -> None:
        writer = store.create(share_key("given twice"), 1)
        writer.write(b"1")
        with pytest.raises(InternalError):
            store.commit([writer, writer])
        stranger = Stranger(share_key("stranger"))
        with pytest.raises(InternalError):
            store.commit([stranger])
        assert stranger.is_aborted
        assert shares_of(store) == {}

    def test_a_replaced_share_reads_as_the_new_one(self, store: ShareStore) -> None:
        key = share_key("replaced")
        put(store, key, b"old and longer")
        put(store, key, b"new")
        assert read(store, key) == b"new"
        assert shares_of(store) == {key: 3}

    # --- removing -----------------------------------------------------------------------------

    def test_delete_is_idempotent(self, store: ShareStore, medium: Medium) -> None:
        key, other = share_key("deleted"), share_key("deleted", 1)
        put(store, key, b"x")
        put(store, other, b"y")
        store.delete(key)
        assert_absent(store, key)
        store.delete(key)
        store.delete(share_key("never there"))
        assert shares_of(store) == {other: 1}
        assert medium.quarantined() == []
        put(store, key, b"again")
        assert read(store, key) == b"again"

    def test_quarantine_hides_a_share_and_keeps_its_bytes(self, store: ShareStore, medium: Medium) -> None:
        key, other = share_key("condemned"), share_key("condemned", 1)
        put(store, other, b"good")
        for content in (b"bad", b"bad again"):
            put(store, key, content)
            store.quarantine(key)
            assert_absent(store, key)
            store.quarantine(key)
        store.quarantine(share_key("never there"))
        assert sorted(medium.quarantined()) == [b"bad", b"bad again"]
        assert shares_of(store) == {other: 4}
        put(store, key, b"good now")
        assert read(store, key) == b"good now"

    def test_foreign_objects_are_reported_and_moved_aside(self, store: ShareStore, medium: Medium) -> None:
        key = share_key("among strangers")
        put(store, key, b"mine")
        text = str(key)
        names = [
            "README",
            f"{text[0]}/notes about ü.txt",
            f"{text[0]}/{text}x",
            f"{text[0]}/{text[:-1]}00",
            f"{text[0]}/{text[:-1]}256",
            f"{text[0]}/{text.upper()}",
            f"{'b' if text[0] == 'a' else 'a'}/{text}",
        ]
        planted = [name for name in names if medium.plant(name, name.encode())]
        found = foreign_of(store)
        assert sorted(item.size_bytes for item in found) == sorted(len(name.encode()) for name in planted)
        assert all(item.name.isascii() and item.name.isprintable() for item in found)
        assert read(store, key) == b"mine"
        for item in found:
            store.quarantine(item)
            store.quarantine(item)
        assert shares_of(store) == {key: 4}
        assert sorted(medium.quarantined()) == sorted(name.encode() for name in planted)

    # --- the whole store ----------------------------------------------------------------------

    def test_scan_finds_all_of_many(self, store: ShareStore) -> None:
        assert shares_of(store) == {}
        keys = [share_key(seed, seed % 3) for seed in range(150)]
        writers = [store.create(key, 2) for key in keys]
        for writer in writers:
            writer.write(b"ab")
        store.commit(writers)
        assert shares_of(store) == dict.fromkeys(keys, 2)

    def test_a_scan_may_be_left_unfinished(self, store: ShareStore) -> None:
        for seed in range(3):
            put(store, share_key(seed), b"x")
        scan = store.scan()
        assert isinstance(next(scan), StoredShare)
        del scan
        assert len(shares_of(store)) == 3

    def test_threads_do_not_disturb_one_another(self, store: ShareStore, medium: Medium) -> None:
        shared = share_key("shared")

        def work(thread: int) -> None:
            for turn in range(6):
                mine = [share_key(f"{thread} {turn}", number) for number in range(3)]
                writers = [store.create(key, 1000) for key in (*mine, shared)]
                for writer in writers:
                    writer.write(content_of(writer.key.number, 600))
                    writer.write(content_of(writer.key.number, 1000)[600:])
                spare = store.create(mine[0], 10)
                store.commit(writers)
                spare.abort()
                assert read(store, mine[1]) == content_of(1, 1000)
                store.delete(mine[1])
                store.quarantine(mine[2])
                assert read(store, shared) == content_of(0, 1000)
                assert sum(1 for _ in store.scan()) > 0

        in_threads(4, work)
        expected = {share_key(f"{thread} {turn}") for thread in range(4) for turn in range(6)}
        assert shares_of(store) == dict.fromkeys((*expected, shared), 1000)
        assert medium.quarantined() == [content_of(2, 1000)] * 24
        assert medium.leftovers() == 0

    def test_abort_from_another_thread_while_writing(self, store: ShareStore, medium: Medium) -> None:
        for turn in range(10):
            key = share_key(f"raced {turn}")
            writer = store.create(key, 64 * 1000)
            started = threading.Event()

            def work(thread: int, writer: ShareWriter = writer, started: threading.Event = started) -> None:
                if thread:
                    started.wait()
                    writer.abort()
                    return
                started.set()
                with pytest.raises(StoreFailed):
                    write_for_ever(writer)

            in_threads(2, work)
            assert_absent(store, key)
        assert medium.leftovers() == 0

    def test_room_is_a_number_or_not_known(self, store: ShareStore) -> None:
        room = store.free_bytes()
        assert room is None or room > 0

    def test_close_ends_everything(self, medium: Medium) -> None:
        store = medium.open()
        kept, unfinished = share_key("kept"), share_key("unfinished")
        put(store, kept, b"kept")
        writer = store.create(unfinished, 4)
        writer.write(b"half")
        scan = store.scan()
        next(scan)
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.create(kept, 1),
            lambda: store.commit([]),
            lambda: store.commit([writer]),
            lambda: store.open(kept),
            lambda: store.delete(kept),
            lambda: store.quarantine(kept),
            lambda: list(store.scan()),
            store.free_bytes,
        ]
        for call in calls:
            with pytest.raises((StoreFailed, InternalError)):
                call()
        writer.abort()
        assert medium.leftovers() == 0
        again = medium.open()
        try:
            assert shares_of(again) == ({kept: 4} if medium.keeps else {})
        finally:
            again.close()


class Stranger:
    """A writer that no store made."""

    def __init__(self, key: ShareKey) -> None:
        self.key = key
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Never called."""
        raise NotImplementedError

    def abort(self) -> None:
        """Noted."""
        self.is_aborted = True


def write_for_ever(writer: ShareWriter) -> None:
    """Until it fails."""
    while True:
        writer.write(bytes(1000))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(0)` to `work(count - 1)` at once; the first error of any is raised."""
    errors: list[BaseException] = []

    def guarded(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(thread,)) for thread in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
