"""Random volumes under random rules, holds and prunes, against an oracle that looks at every state by itself.

The oracle knows trees only: which files there were after each entry, where, and in which blobs their content
lay.  What it needs is never pruned, and what nothing needs goes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from tests.thoroughness import times

from muniment.core.keeping.pruning import PrunePlan, TreePast
from muniment.core.membership import Rule
from muniment.ids import BlobId
from muniment.spec.act import FOR_EVER_S
from muniment.spec.operation import ROOT, Kind
from muniment.testing.sample_volume import RandomVolume, Tree, entry_meta, entry_time_ns, folded, tree_of
from muniment.views.memory import MemoryView

SECOND_NS = 10**9


@dataclass
class Oracle:
    """All states of a volume, and what is to be kept of them."""

    trees: list[Tree] = field(default_factory=list)
    rules: dict[int, Rule] = field(default_factory=dict)
    holds: set[int] = field(default_factory=set)

    def blobs(self, at: int, ino: int) -> list[tuple[int, int, BlobId]]:
        """Where the content of a file lay after an entry."""
        return [
            (extent.offset, extent.length, extent.source.name.blob)
            for owner, extent in self.trees[at].extents
            if owner == ino and not isinstance(extent.source, bytes)
        ]

    def held(self) -> set[int]:
        found, more = set(self.holds), True
        while more:
            inside = {name.inode for tree in self.trees for name in tree.names if name.parent in found}
            more = not inside <= found
            found |= inside
        return found

    def keep_s(self, ino: int) -> float:
        """By the nearest rule above each of its names where it was last; the longest counts."""
        last = max(at for at, tree in enumerate(self.trees) if any(one.inode == ino for one in tree.names))
        above = defaultdict(list)
        for name in self.trees[last].names:
            above[name.inode].append(name.parent)

        def longest(one: int) -> float:
            if one in self.rules:
                keep_s = self.rules[one].keep_s
                return float("inf") if keep_s == FOR_EVER_S else keep_s
            return float("inf") if one == ROOT else max(map(longest, above[one]))

        return longest(ino)

    def needed(self, until_ns: int) -> set[BlobId]:
        found, held, size = set[BlobId](), self.held(), len(self.trees)
        for at, tree in enumerate(self.trees):
            for inode in tree.inodes:
                if inode.kind is not Kind.FILE:
                    continue
                ino = inode.inode
                lies = self.blobs(at, ino)
                over = next((end for end in range(at, size) if self.blobs(end, ino) != lies), None)
                kept = over is None or ino in held
                if not kept and over is not None:
                    kept = entry_time_ns(over) + self.keep_s(ino) * SECOND_NS > until_ns
                if kept:
                    found.update(blob for _, _, blob in lies)
        return found

    def all(self) -> set[BlobId]:
        return {
            extent.source.name.blob
            for tree in self.trees
            for _, extent in tree.extents
            if not isinstance(extent.source, bytes)
        }


def plan(view: MemoryView, oracle: Oracle, until_ns: int, pruned: dict[BlobId, int]) -> PrunePlan:
    past = TreePast(view.row_versions(), view.size)
    return past.plan(oracle.rules, oracle.holds, until_ns, entry_time_ns, pruned)


@pytest.mark.parametrize("seeds", [range(at, at + 4) for at in range(0, times(6), 4)])
def test_what_is_needed_is_never_pruned_and_nothing_else_is_kept(seeds: range) -> None:
    assert sum(map(pruned_of, seeds)) > 0


def pruned_of(seed: int) -> int:
    """Let one volume live; returns how many blobs went."""
    chance, volume, view, oracle = random.Random(seed), RandomVolume(seed), MemoryView(), Oracle()
    pruned: dict[BlobId, int] = {}
    went = 0
    for index in range(50):
        with view.batch() as batch:
            batch.record(
                index, entry_meta(index), folded(batch.state, volume.transaction(batch.state), index)
            )
            oracle.trees.append(tree_of(batch.state))
        inode = chance.randrange(1, 12)
        match chance.randrange(9):
            case 0:
                keep_s = chance.choice([0, 0, 0, 3, 20, FOR_EVER_S])
                oracle.rules[inode] = Rule(index, keep_s)
            case 1:
                oracle.rules.pop(inode, None)
            case 2:
                oracle.holds = {chance.randrange(3, 12)} if chance.random() < 0.4 else set()
            case _ if index % 3 == 2:
                oracle.rules.setdefault(ROOT, Rule(index, chance.choice([0, 5])))
                until_ns = entry_time_ns(index) + chance.choice([0, 2 * SECOND_NS])
                made, needed = plan(view, oracle, until_ns, pruned), oracle.needed(until_ns)
                goes = {name.blob for name in made.blobs}
                assert not goes & needed
                assert (
                    goes | needed | {blob for blob in pruned if not named_again(oracle, blob, pruned)}
                    == oracle.all()
                )
                assert [name.blob for name in made.blobs] == sorted(goes)
                assert bool(made.files) == bool(goes)
                pruned |= dict.fromkeys(goes, made.size)
                went += len(goes)
                assert not plan(view, oracle, until_ns, pruned).blobs
    return went


def named_again(oracle: Oracle, blob: BlobId, pruned: dict[BlobId, int]) -> bool:
    """Whether it lay anywhere in a state that its prune did not look at."""
    return any(
        not isinstance(extent.source, bytes) and extent.source.name.blob == blob
        for tree in oracle.trees[pruned[blob] :]
        for _, extent in tree.extents
    )
