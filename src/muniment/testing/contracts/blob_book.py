"""What every `BlobBook` must do; a driver's test class inherits this suite and gives it books."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muniment.core.placement import Slot
from muniment.errors import InternalError
from muniment.ids import BlobId, NodeId, ShareNumber
from muniment.ports import BlobBook, NamedBlobs, Sighting
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape, CodecId

OpenBook = Callable[[], BlobBook]
"""Opens the same book again each time it is called; the one before is closed."""


def blob(at: int) -> BlobName:
    """Blob names in the order of their numbers."""
    return BlobName(BlobId(at.to_bytes(32, "big")), BlobShape(CodecId.RS, 4, 6, 1000 + at))


def slot(share: int, node: int) -> Slot:
    """A share at a node, both by number."""
    return Slot(ShareNumber(share), NodeId(bytes([node]) * 32))


def adds(*numbers: int) -> NamedBlobs:
    """An entry that names these blobs."""
    return NamedBlobs(added=tuple(map(blob, numbers)))


def prunes(*numbers: int) -> NamedBlobs:
    """A prune of these."""
    return NamedBlobs(pruned=tuple(map(blob, numbers)))


class BlobBookContract:
    """The suite; `opened` comes from the driver's test class."""

    def test_a_new_one_is_empty(self, opened: OpenBook) -> None:
        book = opened()
        assert (book.size, book.count(), list(book.kept(None, 10))) == (0, (0, 0), [])
        assert list(book.is_kept([blob(1).blob])) == [False]
        assert dict(book.last_answers()) == {}

    def test_blobs_come_in_pages_in_the_order_of_their_names(self, opened: OpenBook) -> None:
        book = opened()
        book.take_in(0, [adds(5, 1), adds(), adds(3, 1)])
        book.take_in(3, [adds(2)])
        assert book.size == 4
        assert list(book.kept(None, 3)) == [blob(1), blob(2), blob(3)]
        assert list(book.kept(blob(3).blob, 3)) == [blob(5)]
        assert book.count() == (4, 4)

    def test_it_says_what_it_was_made_from_until_it_is_cleared(self, opened: OpenBook) -> None:
        book = opened()
        assert book.bound == b""
        book.take_in(0, [adds(1)], bound=b"this")
        book.take_in(1, [adds(2), prunes(1)], bound=b"that")
        book.note([(blob(1).blob, slot(0, 1))], [], now_s=1.0, proven=True)
        book.answered([slot(0, 1).node], 1.0)
        assert book.bound == b"that"
        book.close()
        book = opened()
        assert book.bound == b"that"
        book.clear()
        assert (book.size, book.bound, book.count(), dict(book.last_answers())) == (0, b"", (0, 0), {})
        assert not any(book.sightings([blob(1).blob]))
        book.take_in(0, [adds(3)], bound=b"new")
        assert (book.bound, list(book.kept(None, 9))) == (b"new", [blob(3)])

    def test_what_is_pruned_is_not_kept_until_it_is_named_again(self, opened: OpenBook) -> None:
        book = opened()
        book.take_in(0, [adds(1, 2, 3), prunes(1, 2, 9), adds(2)])
        assert list(book.kept(None, 10)) == [blob(2), blob(3)]
        assert list(book.is_kept([blob(1).blob, blob(2).blob, blob(9).blob])) == [False, True, False]
        assert book.count() == (3, 2)
        book.take_in(3, [prunes(2), adds(1)])
        assert list(book.kept(None, 10)) == [blob(1), blob(3)]

    def test_what_was_named_behind_what_a_prune_looked_at_is_kept(self, opened: OpenBook) -> None:
        book = opened()
        gone = (blob(1), blob(2), blob(3))
        book.take_in(0, [adds(1, 2, 3), adds(2), NamedBlobs(pruned=gone, pruned_size=1)])
        assert list(book.kept(None, 10)) == [blob(2)]
        book.take_in(
            3, [NamedBlobs(pruned=(blob(2),), pruned_size=3), NamedBlobs(pruned=gone, pruned_size=1)]
        )
        assert list(book.kept(None, 10)) == []
        book.take_in(5, [adds(3)])
        assert list(book.kept(None, 10)) == [blob(3)]

    def test_entries_are_taken_in_once_and_in_order(self, opened: OpenBook) -> None:
        book = opened()
        book.take_in(0, [adds(1)])
        for start in (0, 2):
            with pytest.raises(InternalError):
                book.take_in(start, [adds(2)])
        assert (book.size, list(book.kept(None, 10))) == (1, [blob(1)])

    def test_the_last_sighting_and_the_last_proof_are_remembered(self, opened: OpenBook) -> None:
        book = opened()
        one, two = blob(1).blob, blob(2).blob
        book.note([(one, slot(0, 1)), (one, slot(1, 2))], [], now_s=10.0, proven=True)
        book.note([(one, slot(0, 1)), (two, slot(0, 3))], [(one, slot(1, 2))], now_s=20.0, proven=False)
        assert [list(seen) for seen in book.sightings([one, two, blob(3).blob])] == [
            [Sighting(slot(0, 1), 20.0, 10.0, 0.0)],
            [Sighting(slot(0, 3), 20.0, 0.0, 0.0)],
            [],
        ]

    def test_a_lease_is_remembered_and_a_sighting_does_not_end_it(self, opened: OpenBook) -> None:
        book = opened()
        one = blob(1).blob
        book.note([(one, slot(0, 1)), (one, slot(1, 2))], [], now_s=10.0, proven=True)
        book.leased([(one, slot(0, 1)), (one, slot(5, 5))], 99.0)
        book.note([(one, slot(0, 1))], [], now_s=20.0, proven=False)
        assert list(book.sightings([one])[0]) == [
            Sighting(slot(0, 1), 20.0, 10.0, 99.0),
            Sighting(slot(1, 2), 10.0, 10.0, 0.0),
        ]

    def test_what_no_entry_named_is_neither_kept_nor_pruned(self, opened: OpenBook) -> None:
        book = opened()
        book.take_in(0, [adds(1, 2), prunes(1, 2, 9), adds(2)])
        asked = [blob(1).blob, blob(2).blob, blob(9).blob]
        assert list(book.is_pruned(asked)) == [True, False, False]
        assert list(book.is_kept(asked)) == [False, True, False]

    def test_no_lease_runs_longer_than_its_node_lists_it(self, opened: OpenBook) -> None:
        book = opened()
        for at in range(1, 6):
            book.note([(blob(at).blob, slot(0, 1)), (blob(at).blob, slot(1, 2))], [], now_s=1.0, proven=True)
            book.leased([(blob(at).blob, slot(0, 1)), (blob(at).blob, slot(1, 2))], 50.0)
        book.leased([(blob(4).blob, slot(0, 1))], 0.0)
        ends = {blob(2).share(0): 40.0, blob(4).share(0): 60.0, blob(9).share(0): 60.0}
        book.listed(slot(0, 1).node, blob(1).share(0), blob(4).share(0), ends)
        seen = book.sightings([blob(at).blob for at in range(1, 6)])
        assert [one[0].leased_s for one in seen] == [50.0, 40.0, 0.0, 60.0, 50.0]
        assert [one[1].leased_s for one in seen] == [50.0] * 5
        book.listed(slot(0, 1).node, None, None, {blob(1).share(0): 90.0})
        seen = book.sightings([blob(at).blob for at in range(1, 6)])
        assert [one[0].leased_s for one in seen] == [50.0, 0.0, 0.0, 0.0, 0.0]

    def test_the_last_answer_of_each_node_is_remembered(self, opened: OpenBook) -> None:
        book = opened()
        book.answered([slot(0, 1).node, slot(0, 2).node], 10.0)
        book.answered([slot(0, 2).node], 20.0)
        assert dict(book.last_answers()) == {slot(0, 1).node: 10.0, slot(0, 2).node: 20.0}
