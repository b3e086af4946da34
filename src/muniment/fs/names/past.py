"""The past, to be looked at in place: a folder at the root that no listing shows, and that nobody can change.

    .muniment/at/WHEN/...              the whole tree as it was: WHEN is the index of an entry, the name of a
                                       snapshot or a time (`names.when`); listed are the snapshots
    .muniment/versions/PATH/INDEX      what the file that is at PATH now was after each entry that changed it

If the volume has a `.muniment` of its own, that is what callers see.

Everything here has numbers behind those of volumes and of what is made here, in ranges of `INODE_MAX`: two
for what stands in no state (`_OWN`, `_VERSIONS`), one for the folders that mirror the present, one for the
roots of past states, by their entries, and one for each past state into which somebody looks.  That range is
given to another state when nobody knows a number of it, nor its root's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from muniment.core.tree_state import Inode, Name, StoredExtent, TreeReading
from muniment.errors import FileRefused, HistoryMissing
from muniment.fs.errnos import Because
from muniment.fs.names.when import time_ns
from muniment.fs.store import Store
from muniment.ports import Clock
from muniment.spec.operation import INODE_MAX, ROOT, Kind

NAME: Final = b".muniment"
_OWN, _MIRROR, _VERSIONS, _ROOTS, _STATES = range(1, 6)
_RANGES: Final = 1 << 10
_TOP, _AT, _HISTORY = (_OWN * INODE_MAX + low for low in (1, 2, 3))
_FOLDERS: Final = {_AT: b"at", _HISTORY: b"versions"}
_VERSIONS_MAX: Final = 50_000
_READABLE: Final = 0o555


class Past:
    """See the module; answers as `TreeReading` does for numbers from `PAST_FIRST` of `numbers` on.

    Args:
        store: has the states.
        clock: what times as "2h ago" are counted from.
        known: all numbers that somebody knows or has open.
    """

    def __init__(self, store: Store, clock: Clock, known: Callable[[], Iterable[int]]) -> None:
        self._store, self._clock, self._known = store, clock, known
        self._states: OrderedDict[int, tuple[int, TreeReading]] = (
            OrderedDict()
        )  # by range, longest unused first
        self._ranges: dict[int, int] = {}  # by entry
        self._versions: dict[int, tuple[int, int]] = {}  # entry and inode, by number
        self._numbers: dict[tuple[int, int], int] = {}
        self._next = _VERSIONS * INODE_MAX

    # --- as TreeReading -----------------------------------------------------------------------

    def inode(self, ino: int) -> Inode | None:
        """What has this number; None if nothing has it any more."""
        match ino // INODE_MAX:
            case 1:
                return self._own(ino)
            case 2:
                row = self._newest.inode(ino % INODE_MAX)
                return None if row is None else self._mirrored(row)
            case 3:
                version = self._versions.get(ino)
                row = None if version is None else self._store.state(version[0]).inode(version[1])
                return None if row is None else row._replace(inode=ino, links=1)
            case 4:
                return self._root(ino)
            case slot:
                state = self._states.get(slot)
                row = None if state is None else state[1].inode(ino % INODE_MAX)
                return None if state is None or row is None else _then(row, slot * INODE_MAX, state[0])

    def child(self, parent: int, name: bytes) -> Name | None:
        """What a name leads to; `NAME` in the root is asked for here too."""
        if parent == ROOT:
            return Name(ROOT, NAME, _TOP, Kind.FOLDER) if name == NAME else None
        low = parent % INODE_MAX
        match parent // INODE_MAX:
            case 1 if parent == _AT:
                at = self._find(name)
                return None if at is None else Name(parent, name, _ROOTS * INODE_MAX + at, Kind.FOLDER)
            case 1 if parent == _HISTORY:
                return self._mirror_child(parent, ROOT, name)
            case 1:
                found = [one for one in self._own_names(parent) if one.name == name]
                return found[0] if found else None
            case 2 if (row := self._newest.inode(low)) is not None and row.kind is Kind.FOLDER:
                return self._mirror_child(parent, low, name)
            case 2:
                return next((one for one in self._versions_of(parent, low) if one.name == name), None)
            case 3:
                return None
            case 4:
                return self._child_in(self._range(low), parent, ROOT, name)
            case slot:
                return self._child_in(slot, parent, low, name)

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        """As `TreeReading.children`."""
        low = parent % INODE_MAX
        match parent // INODE_MAX:
            case 1 if parent == _HISTORY:
                return self._mirror_names(parent, ROOT, after, limit)
            case 1:
                names = self._own_names(parent)
            case 2 if (row := self._newest.inode(low)) is not None and row.kind is Kind.FOLDER:
                return self._mirror_names(parent, low, after, limit)
            case 2:
                names = self._versions_of(parent, low)
            case 3:
                return []
            case 4:
                return self._children_in(self._range(low), parent, ROOT, after, limit)
            case slot:
                return self._children_in(slot, parent, low, after, limit)
        return [one for one in names if one.name > after][:limit]

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        """As `TreeReading.extents`.  Raises: ContentPruned."""
        found = self._content(ino)
        return () if found is None else found[0].extents(found[1], start, stop)

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        """As `TreeReading.xattrs`."""
        found = self._content(ino)
        return {} if found is None else found[0].xattrs(found[1])

    # --- folders that stand in no state -------------------------------------------------------

    def _own(self, ino: int) -> Inode | None:
        if ino != _TOP and ino not in _FOLDERS:
            return None
        root = self._newest.inode(ROOT)
        assert root is not None
        parent = ROOT if ino == _TOP else _TOP
        return root._replace(inode=ino, mode=root.mode & _READABLE, links=2, entries=0, parent=parent)

    def _own_names(self, parent: int) -> list[Name]:
        if parent == _TOP:
            return [Name(parent, name, ino, Kind.FOLDER) for ino, name in _FOLDERS.items()]
        if parent != _AT:
            return []
        snapshots = self._store.snapshots()
        return [
            Name(parent, name, _ROOTS * INODE_MAX + at, Kind.FOLDER)
            for name, at in sorted(snapshots.items())
            if b"/" not in name
        ]

    def _find(self, name: bytes) -> int | None:
        """The entry after which it was as a name in `at` says."""
        at = self._store.snapshots().get(name)
        if at is not None:
            return at
        text = name.decode("utf-8", "replace")
        try:
            if text.isascii() and text.isdigit():
                at = int(text)
                return at if at <= self._store.newest and self._store.past(at) is not None else None
            moment = time_ns(text, self._clock.now_s())
            at = -1 if moment is None else self._store.index_at(moment)
        except HistoryMissing:
            return None
        return None if at < 0 else at

    # --- past states --------------------------------------------------------------------------

    def _root(self, ino: int) -> Inode | None:
        """The root of a state; None if that is of before what is known here."""
        try:
            row = self._store.state(ino % INODE_MAX).inode(ROOT)
        except HistoryMissing:
            return None
        return None if row is None else row._replace(inode=ino, parent=_AT)

    def _child_in(self, slot: int, parent: int, low: int, name: bytes) -> Name | None:
        state = self._states.get(slot)
        found = None if state is None else state[1].child(low, name)
        return None if found is None else _moved(found, parent, slot * INODE_MAX)

    def _children_in(self, slot: int, parent: int, low: int, after: bytes, limit: int) -> list[Name]:
        state = self._states.get(slot)
        found = () if state is None else state[1].children(low, after, limit)
        return [_moved(one, parent, slot * INODE_MAX) for one in found]

    def _range(self, at: int) -> int:
        """The range of the state after an entry, which it is given if it has none."""
        slot = self._ranges.get(at)
        if slot is None:
            slot = self._free_range()
            self._states[slot], self._ranges[at] = (at, self._store.past(at)), slot
        self._states.move_to_end(slot)
        return slot

    def _free_range(self) -> int:
        if len(self._states) < _RANGES - _STATES:
            return _STATES + len(self._states)
        known = {divmod(ino, INODE_MAX) for ino in self._known()}
        busy = {slot for slot, _ in known} | {self._ranges.get(at, 0) for slot, at in known if slot == _ROOTS}
        slot = next((slot for slot in self._states if slot not in busy), None)
        if slot is None:
            raise FileRefused(why=Because.NOT_SUPPORTED, reason="too many past states are looked at")
        del self._ranges[self._states.pop(slot)[0]]
        return slot

    # --- versions -----------------------------------------------------------------------------

    @property
    def _newest(self) -> TreeReading:
        return self._store.state(self._store.newest)

    def _mirrored(self, row: Inode) -> Inode:
        """A folder for a folder, and a folder of versions for a file: who may read one may list the other."""
        mode = row.mode & _READABLE
        if row.kind is not Kind.FOLDER:
            mode = row.mode & 0o444 | (row.mode & 0o444) >> 2
        ino, parent = _MIRROR * INODE_MAX + row.inode, _MIRROR * INODE_MAX + row.parent
        if row.parent in (0, ROOT):  # a file does not know where it is, and nobody has to
            parent = _HISTORY
        return row._replace(inode=ino, kind=Kind.FOLDER, mode=mode, size=0, links=2, rdev=0, parent=parent)

    def _mirror_child(self, parent: int, folder: int, name: bytes) -> Name | None:
        found = self._newest.child(folder, name)
        return next(self._mirrors(parent, [found]), None) if found is not None else None

    def _mirror_names(self, parent: int, folder: int, after: bytes, limit: int) -> list[Name]:
        """At most `limit`; fewer are the last: pages of nothing but links and pipes are read over."""
        found: list[Name] = []
        while page := self._newest.children(folder, after, limit):
            found += self._mirrors(parent, page)
            if len(page) < limit or len(found) >= limit:
                break
            after = page[-1].name
        return found[:limit]

    @staticmethod
    def _mirrors(parent: int, names: Iterable[Name]) -> Iterator[Name]:
        for one in names:
            if one.kind in (Kind.FOLDER, Kind.FILE):
                yield Name(parent, one.name, _MIRROR * INODE_MAX + one.inode, Kind.FOLDER)

    def _versions_of(self, parent: int, ino: int) -> list[Name]:
        if len(self._versions) > _VERSIONS_MAX:
            self._forget_versions()
        found = []
        for index in self._store.versions(ino):
            number = self._numbers.get((index, ino))
            if number is None:
                number = self._numbers[index, ino] = self._next
                self._versions[number] = index, ino
                self._next += 1
            found.append(Name(parent, b"%d" % index, number, Kind.FILE))
        return sorted(found, key=lambda one: one.name)

    def _forget_versions(self) -> None:
        known = set(self._known())
        for number in [one for one in self._versions if one not in known]:
            del self._numbers[self._versions.pop(number)]

    def _content(self, ino: int) -> tuple[TreeReading, int] | None:
        slot, low = divmod(ino, INODE_MAX)
        if slot == _VERSIONS:
            version = self._versions.get(ino)
            return None if version is None else (self._store.past(version[0]), version[1])
        if slot == _ROOTS:
            return self._store.past(low), ROOT
        state = self._states.get(slot)
        return None if state is None else (state[1], low)


def _moved(name: Name, parent: int, base: int) -> Name:
    return name._replace(parent=parent, inode=base + name.inode)


def _then(row: Inode, base: int, at: int) -> Inode:
    """An inode of the state after an entry, whose range begins at `base`."""
    parent = _ROOTS * INODE_MAX + at if row.parent == ROOT else row.parent and base + row.parent
    return row._replace(inode=base + row.inode, parent=parent)
