"""The present of the file system: the newest state that is taken in, and every change since.

Belongs to the loop.  `apply` changes what callers see and queues the change; the committer takes batches from
the queue, one at a time, and says what became of them; `advance` takes in what the log has beyond, ours and
others', and runs what is still queued on that, so that what another client made impossible fails alone.

The state below is pinned to an entry: however far the view has got, nothing changes here between two awaits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final

from muniment.core.fold import Fold, Why
from muniment.core.tree_state import TreeReading
from muniment.errors import MunimentError, OperationRejected
from muniment.fs.committing.changes import Change, taken
from muniment.fs.names.numbers import LOCAL_FIRST, PAST_FIRST, Numbers
from muniment.fs.names.past import Past
from muniment.fs.names.reading import HereReading, Orphan
from muniment.fs.names.shown_times import ShownTimes, Times
from muniment.fs.names.tree import HereTree
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    Link,
    Make,
    Operation,
    RemoveXattr,
    Rename,
    SetAttributes,
    SetXattr,
    Truncate,
    Write,
)

_TOUCHED_MAX: Final = 50_000
_TOUCHED_IDLE_MAX: Final = 512
"""The tree stands on an older state and has what was changed since on top: up to so many inodes and names,
fewer when nothing is queued.  To lay it on the newest state costs as much as a change."""

_FORGOTTEN_MAX: Final = 1 << 15
"""A kernel that needs memory forgets inodes whose numbers and times programs remember: so many stay as they
were, at some 600 bytes each."""

_SHARE: Final = 64
"""Numbers are given back when one in so many is to be: that needs the tree to be laid anew."""


def _inodes(changes: Iterable[Change]) -> set[int]:
    return {ino for change in changes for ino in change.inodes}


@dataclass(slots=True)
class _Again:
    """What came of running queued changes on another state."""

    tree: HereTree
    orphans: dict[int, Orphan]
    queue: deque[Change] = field(default_factory=deque)
    failed: list[tuple[Change, MunimentError]] = field(default_factory=list)


class Present:
    """See the module.

    Args:
        state: of the volume after the entry `at`, in its numbers.
        numbers: of this file system.
        held: whether somebody needs an inode's number here.
        opened: the inodes that somebody has open.

    Attributes:
        tree: what callers see.
        at: the entry up to which entries were taken in.
        under_way: the batch that the committer has.
    """

    def __init__(
        self,
        state: TreeReading,
        at: int,
        numbers: Numbers,
        held: Callable[[int], bool],
        opened: Callable[[], Iterable[int]],
        past: Past | None = None,
    ) -> None:
        self.at, self._numbers, self._held, self._opened = at, numbers, held, opened
        self._past = past
        self._orphans: dict[int, Orphan] = {}
        self._times = ShownTimes()
        self._queue: deque[Change] = deque()
        self._count = 0
        self._forgotten: dict[int, None] = {}  # numbers that nobody knows now, by when that was
        self._ours: set[int] = set()  # entries beyond `at`
        self._is_behind = False  # the tree stands on an older state than that after `at`
        self._undone: set[int] = set()  # inodes that it shows as changes made them that were not allowed
        self.under_way: tuple[Change, ...] = ()
        self.tree = self._on(state, self._orphans)

    def _on(self, state: TreeReading, orphans: Mapping[int, Orphan]) -> HereTree:
        return HereTree(HereReading(state, self._numbers, orphans, self._times.known, self._past), self._held)

    @property
    def newest(self) -> int:
        """The number of the last change."""
        return self._count

    @property
    def waiting(self) -> int:
        """Changes that are in no entry yet."""
        return len(self._queue) + len(self.under_way)

    @property
    def done(self) -> int:
        """Up to this number every change is in the log, or never will be."""
        first = next(iter(self.under_way or self._queue), None)
        return self._count if first is None else first.number - 1

    def unsettled(self) -> list[Change]:
        """The changes that are in no entry yet, or in one of which nothing was heard."""
        return [*self.under_way, *self._queue]

    # --- changing -----------------------------------------------------------------------------

    def apply(
        self, operation: Operation, time_ns: int, blobs: Sequence[BlobRef] = (), *, made: int = 0
    ) -> Change:
        """Show a change to all callers from now on, and queue it for the log.

        Args:
            made: the number that a `Make` takes.
        Raises: OperationRejected: nothing has changed.
        """
        local = self._is_nameless(operation)
        if made:
            self.tree.next_inode = made
        Fold(self.tree, blobs, self.at + 1, time_ns).run(operation)
        if made in self._orphans:
            self._named(made)
        self._count += 1
        change = Change(self._count, operation, tuple(blobs), time_ns, made, local)
        self._queue.append(change)
        return change

    def add_nameless(self, orphan: Orphan) -> None:
        """Show a file that has no name yet, and may get one by a `Make` of its number."""
        self._orphans[orphan.row.inode] = orphan

    def _named(self, ino: int) -> None:
        """What was nameless is made now, as it is by then."""
        del self._orphans[ino]
        self._queue = deque(one for one in self._queue if not (one.local and ino in one.inodes))

    def _is_nameless(self, operation: Operation) -> bool:
        """Whether it is about a file that only handles know, and no entry can tell of.

        Raises: OperationRejected: it would bring one back, or is to be made in a folder that is gone.
        """
        match operation:
            case SetAttributes(inode) | Write(inode) | Truncate(inode):
                return self.tree.is_gone(inode)
            case SetXattr(inode) | RemoveXattr(inode):
                return self.tree.is_gone(inode)
            case Make():
                needed = [operation.parent]
            case Link():
                needed = [operation.inode, operation.parent]
            case Rename():
                needed = [operation.new_parent]
            case _:
                return False
        if any(map(self.tree.is_gone, needed)):
            raise OperationRejected(why=Why.NOT_FOUND, operation=0, reason="it is removed already")
        return False

    # --- for the committer --------------------------------------------------------------------

    def take(self) -> tuple[Change, ...]:
        """The next batch, which stays `under_way` until it is settled; as large as an entry may be."""
        assert not self.under_way
        self.under_way = taken(self._queue)
        return self.under_way

    def halve(self) -> tuple[Change, ...]:
        """The earlier half of the batch, which is the batch from now on; the rest waits again."""
        half = len(self.under_way) // 2
        self._queue.extendleft(reversed(self.under_way[half:]))
        self.under_way = self.under_way[:half]
        return self.under_way

    def settled(self, index: int | None, failed: Iterable[Change]) -> None:
        """The batch is the entry `index`; None: there is none.

        Args:
            failed: what of it was not allowed: there the tree shows what is not so.
        """
        self.under_way = ()
        self._undone.update(_inodes(failed))
        if index is not None:
            self._ours.add(index)

    def advance(self, at: int, state: Callable[[int], TreeReading]) -> list[tuple[Change, MunimentError]]:
        """Take in what the log has up to the entry `at`; no batch is under way.

        Args:
            state: gives that after an entry.
        Returns: queued changes that the new state does not allow; callers must no longer count on them.
        Cost: O(queued changes), when others have changed anything or too much is kept.
        """
        assert not self.under_way
        if at == self.at and not self._is_behind and not self._undone:
            return []
        ours = not self._undone and all(index in self._ours for index in range(self.at + 1, at + 1))
        if ours and self._stays():
            self._is_behind |= at > self.at
            self.at = at
            self._ours.clear()
            return []  # the tree shows it already
        return self._rebuild(at, state)

    def _stays(self) -> bool:
        """Whether the tree is left on the state that it stands on."""
        if self._queue:
            return self.tree.touched < _TOUCHED_MAX
        too_many = len(self._forgotten) - _FORGOTTEN_MAX
        return self.tree.touched < _TOUCHED_IDLE_MAX and too_many <= _FORGOTTEN_MAX // _SHARE

    def _rebuild(self, at: int, state: Callable[[int], TreeReading]) -> list[tuple[Change, MunimentError]]:
        """Run what is queued on another state; if that cannot be read, all stays as it is."""
        own = next(index for index in count(self.at) if index + 1 not in self._ours)
        is_ours = own == at and not self._undone  # so nobody has lost what he has open
        fresh, before = state(at), self._keep_times(own, at, state)
        again = self._run_again(at, fresh, is_ours=is_ours)
        undone = before.keys() & _inodes(change for change, _ in again.failed)
        if undone:  # their times were kept as they have never been
            self._times.put_back(before, undone)
            again = self._run_again(at, fresh, is_ours=is_ours)
        self.at, self.tree, self._orphans, self._queue = at, again.tree, again.orphans, again.queue
        self._is_behind = False
        self._undone.clear()
        self._ours.clear()
        self._let_go()
        return again.failed

    def _keep_times(self, own: int, at: int, state: Callable[[int], TreeReading]) -> dict[int, Times | None]:
        """Keep the times that the tree shows.  What others have changed came before the last entry of ours,
        behind it, or both.

        Args:
            own: up to this entry all that are new are of this mount.
        Returns: as `ShownTimes.keep`.
        """
        if not self._is_behind and not self._ours:
            return {}
        last = max(self._ours, default=own)
        spans = [(own, last - 1), (last, at)] if last > own else []
        others = [
            (self._reading(state(start)), self._reading(state(stop))) for start, stop in spans if start < stop
        ]
        shown = (row for row in self.tree.kept() if row.links and row.inode not in self._undone)
        return self._times.keep(shown, self._reading(state(last)), others)

    def _reading(self, state: TreeReading) -> HereReading:
        """A state as it is, in the numbers of this file system."""
        return HereReading(state, self._numbers, past=self._past)

    def _run_again(self, at: int, state: TreeReading, *, is_ours: bool) -> _Again:
        old, fresh = self.tree, self._reading(state)
        gone = {row.inode for row in old.kept() if row.links == 0} | self._orphans.keys()
        if not is_ours:
            gone.update(self._opened())  # another client may have removed them
        waits = {change.made for change in self._queue}
        orphans = {
            ino: kept
            for ino in gone
            if ino not in waits and fresh.inode(ino) is None and self._held(ino)
            if (kept := old.orphan(ino)) is not None
        }
        again = _Again(self._on(state, orphans), orphans)
        for change in self._queue:
            if change.local and (orphans.keys() & change.inodes or not again.tree.inode(change.inodes[0])):
                continue  # it is in the copy already, or nobody has that open any more
            if change.made:
                again.tree.next_inode = change.made
            try:
                Fold(again.tree, change.blobs, at + 1, change.time_ns).run(change.operation)
            except OperationRejected as error:
                again.failed.append((change, error))
                if change.made and self._held(change.made) and (kept := old.orphan(change.made)):
                    orphans[change.made] = kept  # its handles go on working
            else:
                # Who was faster may have kept a name for what was removed here: it goes on to be a file.
                change.local = change.local and again.tree.is_gone(change.inodes[0])
                again.queue.append(change)
        return again

    def _let_go(self) -> None:
        """Give back numbers and times that were forgotten long ago."""
        too_many = len(self._forgotten) - _FORGOTTEN_MAX
        for ino in list(islice(self._forgotten, max(too_many, 0))):
            if not self.tree.keeps(ino) and not self._held(ino):
                del self._forgotten[ino]
                self._times.forget(ino)
                self._numbers.forget(ino)

    def drop_all(self, at: int, state: Callable[[int], TreeReading]) -> list[Change]:
        """Nothing more will get into the log: show the state as it is; returns what was queued."""
        dropped, self.under_way = self.unsettled(), ()
        self._queue.clear()
        self._undone.update(_inodes(dropped))
        self._rebuild(at, state)
        return dropped

    def know(self, ino: int) -> None:
        """Somebody knows the inode by this number, again perhaps."""
        self._forgotten.pop(ino, None)

    def forget(self, ino: int) -> None:
        """Nobody knows the inode by this number any more; who looks for it soon finds it as it was."""
        self._orphans.pop(ino, None)
        self._forgotten.pop(ino, None)
        self.tree.let_go(ino)
        if LOCAL_FIRST <= ino < PAST_FIRST or ino in self._times.known or self.tree.keeps(ino):
            self._forgotten[ino] = None
