"""What every `LogStore` must do; a driver's test class inherits this suite and gives it stores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muniment.errors import InternalError, StoreFailed
from muniment.merkle.log_tree import (
    Frontier,
    Subtree,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
)
from muniment.ports import LoggedEntry, LogStore

OpenLog = Callable[[], LogStore]
"""Opens the same log again each time it is called."""


def entries_of(count: int, start: int = 0) -> list[LoggedEntry]:
    """Distinct entries of growing size."""
    signed = [b"entry %d " % at * (1 + at % 7) for at in range(start, start + count)]
    return [LoggedEntry(leaf_hash(one), one) for one in signed]


def grow(store: LogStore, entries: list[LoggedEntry], frontier: Frontier) -> Frontier:
    """Append a batch as a sequencer does; the checkpoint is the root, unsigned."""
    frontier, nodes = frontier.extend(entry.hash for entry in entries)
    store.append(entries, nodes, frontier.root())
    return frontier


class LogStoreContract:
    """The suite; `opened` comes from the driver's test class."""

    def test_a_new_log_is_empty(self, opened: OpenLog) -> None:
        store = opened()
        assert (store.size, store.checkpoint()) == (0, b"")
        assert store.read(0, 10, bytes_max=100) == []
        assert store.find(leaf_hash(b"x")) is None

    def test_entries_come_back_in_order(self, opened: OpenLog) -> None:
        store, entries = opened(), entries_of(10)
        frontier = grow(store, entries[:1], Frontier())
        frontier = grow(store, entries[1:], frontier)
        assert (store.size, store.checkpoint()) == (10, frontier.root())
        assert store.read(0, 10, bytes_max=1 << 20) == [entry.signed for entry in entries]
        assert store.read(3, 5, bytes_max=1 << 20) == [entry.signed for entry in entries[3:5]]
        assert store.read(8, 99, bytes_max=1 << 20) == [entry.signed for entry in entries[8:]]
        assert [store.find(entry.hash) for entry in entries] == list(range(10))

    def test_a_read_ends_at_its_bytes_but_gives_one(self, opened: OpenLog) -> None:
        store, entries = opened(), entries_of(6)
        grow(store, entries, Frontier())
        sizes = [len(entry.signed) for entry in entries]
        assert len(store.read(0, 6, bytes_max=0)) == 1
        assert len(store.read(0, 6, bytes_max=sum(sizes[:3]))) == 3
        assert len(store.read(0, 6, bytes_max=sum(sizes[:3]) + 1)) == 3

    def test_proofs_from_its_nodes_hold(self, opened: OpenLog) -> None:
        store, entries, frontier, roots = opened(), entries_of(21), Frontier(), {}
        for entry in entries:
            frontier = grow(store, [entry], frontier)
            roots[frontier.size] = frontier.root()
        for index, entry in enumerate(entries):
            check_inclusion(entry.hash, index, 21, inclusion_path(index, 21, store.node), roots[21])
            path = consistency_path(index + 1, 21, store.node)
            check_consistency(index + 1, roots[index + 1], 21, roots[21], path)
        assert Frontier.at(13, store.node).root() == roots[13]

    def test_a_node_that_is_not_complete_is_not_there(self, opened: OpenLog) -> None:
        store = opened()
        grow(store, entries_of(3), Frontier())
        for level, index in ((0, 3), (1, 1), (2, 0)):
            with pytest.raises(StoreFailed):
                store.node(level, index)

    def test_an_entry_that_is_there_spoils_the_whole_batch(self, opened: OpenLog) -> None:
        store, entries = opened(), entries_of(3)
        frontier = grow(store, entries[:1], Frontier())
        with pytest.raises(StoreFailed):
            grow(store, [entries[1], entries[0]], frontier)
        assert store.size == 1
        assert store.checkpoint() == frontier.root()
        assert store.find(entries[1].hash) is None
        assert grow(store, entries[1:], frontier).size == store.size

    def test_a_checkpoint_can_gain_cosignatures(self, opened: OpenLog) -> None:
        store = opened()
        grow(store, entries_of(1), Frontier())
        store.replace_checkpoint(b"cosigned")
        assert store.checkpoint() == b"cosigned"

    def test_a_replica_begun_later_has_what_it_was_given_and_no_more(self, opened: OpenLog) -> None:
        store, entries = opened(), entries_of(21)
        before, nodes = Frontier().extend(entry.hash for entry in entries[:11])
        known = {(node.level, node.index): node.hash for node in nodes}
        peaks = [Subtree(level, index, known[level, index]) for level, index in ((3, 0), (1, 4), (0, 10))]
        extra = Subtree(0, 2, entries[2].hash)
        frontier, completed = before.extend(entry.hash for entry in entries[11:15])
        store.begin(11, entries[11:15], [*peaks, extra, *completed], frontier.root())
        grow(store, entries[15:], frontier)
        store = opened()
        assert (store.start, store.size) == (11, 21)
        assert store.read(11, 21, bytes_max=1 << 20) == [entry.signed for entry in entries[11:]]
        assert store.find(entries[20].hash) == 20
        assert store.find(entries[2].hash) is None
        assert store.node(0, 2) == entries[2].hash
        whole, _ = Frontier().extend(entry.hash for entry in entries)
        assert Frontier.at(21, store.node) == whole
        assert Frontier.at(11, store.node) == before
        check_inclusion(entries[12].hash, 12, 21, inclusion_path(12, 21, store.node), whole.root())
        for start, stop in ((0, 21), (10, 12), (3, 5)):
            with pytest.raises(StoreFailed):
                store.read(start, stop, bytes_max=100)
        with pytest.raises(StoreFailed):
            store.node(0, 3)
        with pytest.raises(InternalError):
            store.begin(11, entries[11:], peaks, b"")
