"""What every `CheckpointStore` must do; a driver's test class inherits this suite and gives it stores."""

from __future__ import annotations

from collections.abc import Callable

from muniment.ports import CheckpointStore

OpenCheckpoints = Callable[[], CheckpointStore]
"""Opens the same store again each time it is called; the one before is closed."""


def note_of(size: int, text: str = "") -> bytes:
    """Something that stands for a note; stores do not look into them."""
    return f"checkpoint of {size} {text}\n".encode()


class CheckpointStoreContract:
    """The suite; `opened` comes from the driver's test class."""

    def test_a_new_one_is_empty(self, opened: OpenCheckpoints) -> None:
        store = opened()
        assert store.newest() == b""
        assert list(store.notes()) == []

    def test_all_are_kept_by_size(self, opened: OpenCheckpoints) -> None:
        store, sizes = opened(), [7, 3, 100_000, 4096, 4095, 1, 1 << 40]
        for size in sizes:
            store.keep(size, note_of(size))
        assert list(store.notes()) == [note_of(size) for size in sorted(sizes)]
        assert list(store.notes(4096)) == [note_of(size) for size in (4096, 100_000, 1 << 40)]
        assert store.newest() == note_of(1 << 40)

    def test_one_is_kept_once(self, opened: OpenCheckpoints) -> None:
        store = opened()
        for _ in range(3):
            for size in (5, 5000):
                store.keep(size, note_of(size))
        assert list(store.notes()) == [note_of(5), note_of(5000)]

    def test_two_of_one_size_are_both_kept(self, opened: OpenCheckpoints) -> None:
        store = opened()
        for text in ("b", "a"):
            store.keep(5, note_of(5, text))
        assert list(store.notes()) == [note_of(5, "b"), note_of(5, "a")]
        assert store.newest() == note_of(5, "a")

    def test_closing_twice_is_no_error(self, opened: OpenCheckpoints) -> None:
        store = opened()
        store.keep(1, note_of(1))
        store.flush()
        store.close()
        store.close()
