"""What a prune may give up: blobs that only versions refer to whose time to be kept is over.

Pure: the rows that a view ever had go in, with the times of their validity; names of blobs come out.
Source: docs/keeping.md section 7.  `audit.prunes` decides the same from the log and shares no code with this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from muniment.core.membership import Rule
from muniment.ids import BlobId
from muniment.spec.act import FOR_EVER_S
from muniment.spec.blob import BlobName, BlobRef
from muniment.spec.view_row import EXTENT_TAG, NAME_TAG, extent_fields, name_fields

_SECOND_NS: Final = 1_000_000_000
_OPEN: Final = 1 << 62


class RowTime(Protocol):
    """A row of the state, the entry that brought it and the one that took it; None: it is valid still."""

    @property
    def row(self) -> bytes: ...
    @property
    def since(self) -> int: ...
    @property
    def until(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """A name that an inode had."""

    name: bytes
    parent: int
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class _Use:
    """A piece of a file that lay in a blob."""

    inode: int
    name: BlobName
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class FilePruned:
    """A file of which versions go.

    Attributes:
        inode: of the file.
        path: where it is, or was last; one of several.
        rule: that lets them go.
        ends: entries that took their place, in order.
    """

    inode: int
    path: bytes
    rule: Rule
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What goes.

    Attributes:
        size: entries that were looked at.
        until_ns: versions go whose time had ended then.
        files: of which versions go, by inode.
        blobs: in the order of their BlobIds.
        held: blobs that would go but for holds.
    """

    size: int
    until_ns: int
    files: tuple[FilePruned, ...]
    blobs: tuple[BlobName, ...]
    held: int

    @property
    def stored_bytes(self) -> int:
        """What the nodes get back if all shares are in place."""
        return sum(name.shape.n * name.shape.record_bytes for name in self.blobs)


class TreePast:
    """Names and content of a volume over all of its history.

    Args:
        rows: every row that is or was, in any order.
        size: entries folded.
    Cost: O(rows), memory too.
    """

    def __init__(self, rows: Iterable[RowTime], size: int) -> None:
        self.size = size
        self._places: defaultdict[int, list[_Place]] = defaultdict(list)
        self._uses: list[_Use] = []
        for one in rows:
            until = _OPEN if one.until is None else one.until
            if one.row[0] == NAME_TAG:
                parent, name, inode, _ = name_fields(one.row)
                self._places[inode].append(_Place(name, parent, one.since, until))
            elif one.row[0] == EXTENT_TAG:
                inode, _, _, source, _ = extent_fields(one.row)
                if isinstance(source, BlobRef):
                    self._uses.append(_Use(inode, source.name, one.since, until))

    def names_again(self, blob: BlobId, size: int) -> bool:
        """Whether anything refers to a blob that an entry from `size` on has brought."""
        return any(use.name.blob == blob and use.since >= size for use in self._uses)

    def below(self, inodes: Collection[int]) -> set[int]:
        """These, and all that is or ever was below them."""
        inside: defaultdict[int, set[int]] = defaultdict(set)
        if inodes:
            for inode, places in self._places.items():
                for place in places:
                    inside[place.parent].add(inode)
        found, open_ones = set(inodes), list(inodes)
        while open_ones:
            new = inside.get(open_ones.pop(), set()) - found
            found |= new
            open_ones += new
        return found

    def rule_of(self, inode: int, rules: Mapping[int, Rule]) -> Rule | None:
        """The rule that counts for a file: the nearest above it where it is, or was last.

        With several names it is the one that keeps longest.  None: it is kept for ever, as nothing says else.
        """
        at, found = self._last(inode), None
        for place in self._placed(inode, at):
            rule = rules.get(inode) or self._rule_above(place.parent, at, rules)
            if rule is None:
                return None
            found = rule if found is None else max(found, rule, key=_length)
        return found

    def path_of(self, inode: int) -> bytes:
        """Where a file is, or was last; with several names any of them."""
        at = self._last(inode)
        place = next(self._placed(inode, at), None)
        if place is None:
            return b""
        above = [one.name for one in self._way_up(place.parent, at)]
        return b"/".join([*reversed(above), place.name])

    def _last(self, inode: int) -> int:
        """The newest entry after which it has a name."""
        last = max((place.until for place in self._places.get(inode, ())), default=0)
        return self.size - 1 if last >= self.size else last - 1

    def _placed(self, inode: int, at: int) -> Iterator[_Place]:
        return (place for place in self._places.get(inode, ()) if place.since <= at < place.until)

    def _rule_above(self, folder: int, at: int, rules: Mapping[int, Rule]) -> Rule | None:
        if folder in rules:
            return rules[folder]
        return next((rules[one.parent] for one in self._way_up(folder, at) if one.parent in rules), None)

    def _way_up(self, folder: int, at: int) -> Iterator[_Place]:
        """The names of a folder and of those above it; the root stands under none."""
        seen: set[int] = set()  # a damaged view may have a circle
        while folder not in seen and (place := next(self._placed(folder, at), None)) is not None:
            seen.add(folder)
            yield place
            folder = place.parent

    def plan(
        self,
        rules: Mapping[int, Rule],
        holds: Collection[int],
        until_ns: int,
        reached_ns: Callable[[int], int],
        pruned: Mapping[BlobId, int],
    ) -> PrunePlan:
        """What may go.

        Args:
            rules, holds: in force.
            until_ns: now, by the log's time or the author's clock.
            reached_ns: the time of the log after an entry.
            pruned: blobs that went before, with the `size` of that prune.
        """
        held_inodes, own = self.below(holds), dict[int, Rule | None]()
        needed, held = set[BlobId](), set[BlobId]()
        again = set[BlobId]()
        may_go: list[_Use] = []
        for use in self._uses:
            blob = use.name.blob
            if use.since >= pruned.get(blob, 0):
                again.add(blob)
            if use.until >= self.size:
                needed.add(blob)
                continue
            if use.inode not in own:
                own[use.inode] = self.rule_of(use.inode, rules)
            rule = own[use.inode]
            if rule is None or not _is_over(rule, reached_ns(use.until), until_ns):
                needed.add(blob)
            elif use.inode in held_inodes:
                held.add(blob)
            else:
                may_go.append(use)
        names, ends = dict[BlobId, BlobName](), defaultdict[int, set[int]](set)
        for use in may_go:
            blob = use.name.blob
            if blob not in needed and blob not in held and blob in again:
                names[blob] = use.name
                ends[use.inode].add(use.until)
        files = [
            FilePruned(inode, self.path_of(inode), rule, tuple(sorted(ends[inode])))
            for inode in sorted(ends)
            if (rule := own[inode]) is not None
        ]
        blobs = tuple(names[blob] for blob in sorted(names))
        return PrunePlan(self.size, until_ns, tuple(files), blobs, len((held - needed) & again))


def _is_over(rule: Rule, ended_ns: int, until_ns: int) -> bool:
    return rule.keep_s != FOR_EVER_S and ended_ns + rule.keep_s * _SECOND_NS <= until_ns


def _length(rule: Rule) -> float:
    return float("inf") if rule.keep_s == FOR_EVER_S else rule.keep_s
