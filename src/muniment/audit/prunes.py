"""The audit of prunes: whether rules and holds let go what an owner gave up (docs/audit.md section 5).

Decides from the log alone, by its own reading of docs/keeping.md section 7, and shares nothing with what
plans prunes.  What a prune names is looked up in all versions of all rows, which a second fold yields.
Without the read right there are none, and only what a prune says in clear is checked, as all acts are.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from muniment.audit.report import AuditReport
from muniment.core.entries import open_pruned
from muniment.core.key_ring import KeyRing
from muniment.crypto.entries import SignedEntry
from muniment.errors import NotCapable
from muniment.ids import BlobId, MemberId, id_text
from muniment.ports import RowVersion
from muniment.spec.act import FOR_EVER_S, Hold, Prune, Retain
from muniment.spec.blob import BlobName, BlobRef
from muniment.spec.view_row import EXTENT_TAG, NAME_TAG, extent_fields, name_fields

_NS = 10**9


@dataclass(frozen=True, slots=True)
class _Given:
    """A prune, and what was in force when it was written."""

    index: int
    author: MemberId
    act: Prune
    blobs: frozenset[BlobId]
    keeps: Mapping[int, int]
    holds: Set[int]


class PruneAudit:
    """The prunes of one log.

    Args:
        report: what is found goes there.
    """

    def __init__(self, report: AuditReport) -> None:
        self._report = report
        self._given: list[_Given] = []
        self._keeps: dict[int, int] = {}
        self._holds: set[int] = set()
        self._times = array("q")  # of the log after each entry
        self._size = 0
        self._unopened = 0

    @property
    def any(self) -> bool:
        """Whether something was given up."""
        return bool(self._report.prunes)

    def take(self, signed: SignedEntry, ring: KeyRing) -> None:
        """The next entry of the log, whose rights are in order."""
        index, entry = self._size, signed.entry
        self._size += 1
        self._times.append(max(entry.time_ns, self._times[-1]) if index else entry.time_ns)
        match entry.act:
            case Retain(inode, keep_s):
                self._keeps.pop(inode, None)
                if keep_s is not None:
                    self._keeps[inode] = keep_s
            case Hold(inode, on):
                (self._holds.add if on else self._holds.discard)(inode)
            case Prune() as act:
                self._report.prunes += 1
                try:
                    blobs = frozenset(name.blob for name in open_pruned(entry, ring))
                except NotCapable:
                    self._unopened += 1
                    return
                self._report.pruned_blobs += len(blobs)
                keeps, holds = dict(self._keeps), frozenset(self._holds)
                self._given.append(_Given(index, entry.author, act, blobs, keeps, holds))

    def judge(self, versions: Callable[[], Iterable[RowVersion]], folded: int) -> None:
        """Hold all prunes against the volume's history.

        Args:
            versions: all versions of rows of the first `folded` entries.
            folded: those that could be opened.
        """
        closed = [given for given in self._given if given.act.size > folded]
        left = len(closed) + self._unopened
        if left:
            self._report.prune_rules = f"{left} of {self._report.prunes} prunes: the content is not open"
        if len(closed) == len(self._given):
            return
        history = _History(versions(), frozenset().union(*(given.blobs for given in self._given)))
        checked = [given for given in self._given if given.act.size <= folded]
        for given in checked:
            wrong = [why for blob in sorted(given.blobs) if (why := self._why_not(given, blob, history))]
            if wrong:
                self._given.remove(given)
                more = f", and {len(wrong) - 1} blobs more" if len(wrong) > 1 else ""
                self._report.forged(
                    f"entry {given.index}",
                    f"its author, {id_text(given.author)}, pruned {wrong[0]}{more}",
                    "he gave up what had to be kept: nodes delete it after their grace, so store it again "
                    "from a copy at once, and remove him",
                )

    def accepted(self, names: Iterable[tuple[int, Iterable[BlobName]]]) -> frozenset[BlobId]:
        """The blobs that may be missing: pruned as rules allow, and not named again since.

        Args:
            names: of all entries, with their places.
        """
        gone: dict[BlobId, int] = {}
        for given in self._given:
            for blob in given.blobs:
                gone[blob] = max(given.act.size, gone.get(blob, 0))
        for index, named in names:
            for name in named:
                if index >= gone.get(name.blob, index + 1):
                    del gone[name.blob]
        return frozenset(gone)

    def _why_not(self, given: _Given, blob: BlobId, history: _History) -> str:
        """What keeps a blob; empty if nothing does."""
        for inode, since, until in history.uses.get(blob, ()):
            if since >= given.act.size:
                continue  # stored again later, which is another matter
            told = f"blob {id_text(blob)[:12]} of inode {inode}"
            if until is None or until >= given.act.size:
                return f"{told}, whose content it was"
            if history.is_held(inode, given):
                return f"{told}, on which a hold lay"
            keep_s = history.keep_s(inode, given)
            if keep_s is None or keep_s == FOR_EVER_S:
                return f"{told}, which no rule let go"
            if self._times[until] + keep_s * _NS > given.act.until_ns:
                return f"{told}, which was to be kept for {keep_s} s since entry {until}"
        return ""


class _History:
    """What a log tells of some blobs, and where all files ever were.

    Attributes:
        uses: by blob, the inode, and the entries between which it lay there.
    """

    def __init__(self, versions: Iterable[RowVersion], blobs: Set[BlobId]) -> None:
        self.uses: dict[BlobId, list[tuple[int, int, int | None]]] = {}
        self._names: dict[int, list[tuple[int, int, int | None]]] = {}
        for one in versions:
            if one.row[0] == NAME_TAG:
                parent, _, inode, _ = name_fields(one.row)
                self._names.setdefault(inode, []).append((parent, one.since, one.until))
            elif one.row[0] == EXTENT_TAG:
                inode, _, _, source, _ = extent_fields(one.row)
                if isinstance(source, BlobRef) and source.name.blob in blobs:
                    self.uses.setdefault(source.name.blob, []).append((inode, one.since, one.until))

    def is_held(self, inode: int, given: _Given) -> bool:
        """Whether a hold lies on it, or on anything that it was ever below."""
        seen, now = set[int](), {inode}
        while now:
            if now & given.holds:
                return True
            seen |= now
            now = {
                parent
                for one in now
                for parent, since, _ in self._names.get(one, ())
                if since < given.act.size
            } - seen
        return False

    def keep_s(self, inode: int, given: _Given) -> int | None:
        """How long the nearest rule keeps it, where it was last; the longest of several; None: no rule."""
        names, size = self._names.get(inode, ()), given.act.size
        ends = [size if until is None else min(until, size) for _, since, until in names if since < size]
        if not ends:
            return None
        found = [
            self._nearest(inode, parent, max(ends) - 1, given) for parent in self._at(inode, max(ends) - 1)
        ]
        if None in found or not found:
            return None
        longest = [keep_s for keep_s in found if keep_s is not None]
        return FOR_EVER_S if FOR_EVER_S in longest else max(longest)

    def _nearest(self, inode: int, folder: int, at: int, given: _Given) -> int | None:
        seen, one = {inode}, inode
        while one not in given.keeps:
            if folder in seen:
                return None
            one = folder
            seen.add(one)
            folder = next(self._at(one, at), one)
        return given.keeps[one]

    def _at(self, inode: int, at: int) -> Iterator[int]:
        """The folders that it is in after an entry."""
        for parent, since, until in self._names.get(inode, ()):
            if since <= at and (until is None or at < until):
                yield parent
