"""The introducer: a set of signed node records that clients can follow (docs/spec/wire.md section 6).

It is trusted with nothing but availability: every record carries its node's own signature and expiry, and
clients check both again.  It can hide nodes; it cannot invent or change one.

    announce     a later record of a node replaces the earlier; one that has expired withdraws the node
    roster       all records, or what changed since a version, at once or when something changes

`IntroducerService` belongs to one event loop and has no I/O.  Between two awaits of the loop its state is
whole, so nothing is locked.  `RosterFile` keeps the set across restarts.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from muniment.crypto.records import open_record, record_from_text, record_text
from muniment.durable_file import write_whole
from muniment.errors import ClockSkewed, InvalidRequest, MunimentError, Overloaded
from muniment.ids import NodeId, id_from_text, id_text
from muniment.ports import Clock
from muniment.spec.limits import ANSWER_BYTES_MAX, KIB, TOKEN_SKEW_S_MAX
from muniment.spec.record import NodeRecord
from muniment.spec.wire import RosterAnswer

WAIT_S_MAX: Final = 60.0
"""Longest long poll."""

_REMEMBER_S: Final = 600
"""A removal is remembered so long at least, that clients who poll learn of it without the full set."""

RECORDS_BYTES_MAX: Final = ANSWER_BYTES_MAX - 64 * KIB
"""Room for records in an answer; the rest is for removals and the fields around."""

_REMOVED_MAX: Final = 1000
"""Removals in one answer: whoever missed more gets the full set, which names none."""

_ANSWERS_KEPT: Final = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Present:
    """A node in the roster; `version` is the change that brought this record."""

    record: NodeRecord
    text: str
    version: int


@dataclass(frozen=True, slots=True)
class _Gone:
    """A node that was in the roster, remembered so that its old record cannot be played back.

    Attributes:
        issued_s: no record issued before or then is taken.
        until_s: from then on every record it could be played back has expired.
        version: the change that removed it.
    """

    issued_s: int
    until_s: int
    version: int


class SavedRoster(msgspec.Struct, forbid_unknown_fields=True):
    """The file that keeps the set across restarts; `gone` holds [node, issued_s, until_s]."""

    format: int
    records: list[str]
    gone: list[tuple[str, int, int]]


class IntroducerService:
    """The set and its changes.

    Args:
        epoch: names this run; versions of another run mean nothing.
        records_max: nodes kept at most, and removals remembered at most.
        lifetime_s_max: longest time from now to a record's expiry.
        records_bytes_max: of all records as they are answered: a client reads no longer answer, and would
            see no node at all.
    """

    def __init__(
        self,
        epoch: str,
        records_max: int,
        lifetime_s_max: int,
        clock: Clock,
        *,
        records_bytes_max: int = RECORDS_BYTES_MAX,
    ) -> None:
        self._epoch, self._records_max, self._lifetime_s_max = epoch, records_max, lifetime_s_max
        self._clock = clock
        self._records_bytes_max, self._records_bytes = records_bytes_max, 0
        self._present: dict[NodeId, _Present] = {}
        self._gone: dict[NodeId, _Gone] = {}
        self._version = 0
        self._floor = 0  # removals up to this version are forgotten: who is older needs the full set
        self._changed = asyncio.Event()
        self._next_expiry_s = math.inf
        self._answers: dict[int, RosterAnswer] = {}

    @property
    def version(self) -> int:
        """Counts changes of this run."""
        return self._version

    @property
    def record_count(self) -> int:
        """Nodes in the roster."""
        return len(self._present)

    def announce(self, signed: bytes) -> bool:
        """Take a node's record; returns whether that changed anything.

        Raises:
            MalformedRecord, UnknownVersion: not a record signed by the node it names.
            ClockSkewed: issued in the future by this machine's clock.
            InvalidRequest: a later record of the node is known, or it expires too late.
            Overloaded: the roster is full, by number or by size.
        """
        now_s = self._clock.now_s()
        self.expire()
        record = open_record(signed, now_s=0.0)  # expired is allowed here: it withdraws
        if record.issued_s > now_s + TOKEN_SKEW_S_MAX:
            raise ClockSkewed(skew_s=int(record.issued_s - now_s))
        if record.expires_s > now_s + self._lifetime_s_max + TOKEN_SKEW_S_MAX:
            raise InvalidRequest(reason=f"a record may live for {self._lifetime_s_max} s at most")
        text = record_text(signed)
        known, gone = self._present.get(record.node), self._gone.get(record.node)
        if known is not None and known.text == text:
            return False
        issued_s = known.record.issued_s if known else gone.issued_s if gone else -1
        if record.issued_s <= issued_s:
            raise InvalidRequest(reason="a later record of this node is known")
        if record.expires_s <= max(now_s, record.issued_s):
            if known is None:
                return False
            self._remove(known, issued_s=record.issued_s)
        else:
            if known is None and len(self._present) >= self._records_max:
                raise Overloaded(limit=f"{self._records_max} nodes")
            records_bytes = self._records_bytes + _answered_bytes(text)
            if known is not None:
                records_bytes -= _answered_bytes(known.text)
            if records_bytes > self._records_bytes_max:
                raise Overloaded(limit=f"{self._records_bytes_max} bytes of records")
            self._records_bytes = records_bytes
            self._version += 1
            self._gone.pop(record.node, None)
            self._present[record.node] = _Present(record, text, self._version)
            self._next_expiry_s = min(self._next_expiry_s, record.expires_s)
        self._tell()
        return True

    def expire(self) -> bool:
        """Remove nodes whose record has expired; returns whether there were any.  Cheap when called often."""
        now_s = self._clock.now_s()
        if now_s < self._next_expiry_s:
            return False
        expired = [known for known in self._present.values() if known.record.expires_s <= now_s]
        for known in expired:
            self._remove(known, issued_s=known.record.issued_s)
        for node in [node for node, gone in self._gone.items() if gone.until_s <= now_s]:
            self._forget(node)
        ends = [known.record.expires_s for known in self._present.values()]
        ends += [gone.until_s for gone in self._gone.values()]
        self._next_expiry_s = min(ends, default=math.inf)
        if expired:
            self._tell()
        return bool(expired)

    def answer(self, epoch: str, version: int) -> RosterAnswer:
        """What changed since `version` of `epoch`; the full set where that is not known."""
        self.expire()
        full = epoch != self._epoch or not self._floor <= version <= self._version
        if not full:
            full = sum(gone.version > version for gone in self._gone.values()) > _REMOVED_MAX
        since = -1 if full else version
        if since not in self._answers:  # most who wait, wait for the same change
            if len(self._answers) >= _ANSWERS_KEPT:
                self._answers.clear()
            self._answers[since] = RosterAnswer(
                epoch=self._epoch,
                version=self._version,
                full=full,
                records=[known.text for known in self._present.values() if known.version > since],
                removed=[]
                if full
                else [id_text(n) for n, gone in self._gone.items() if gone.version > since],
            )
        return self._answers[since]

    async def wait_answer(self, epoch: str, version: int, wait_s: float) -> RosterAnswer:
        """As `answer`, but if nothing has changed wait up to `wait_s` for it."""
        try:
            async with asyncio.timeout(min(wait_s, WAIT_S_MAX)):
                while (answer := self.answer(epoch, version)).version == version and not answer.full:
                    await self._changed.wait()
        except TimeoutError:
            answer = self.answer(epoch, version)
        return answer

    def release_waiting(self) -> None:
        """Answer every waiting client now, changed or not: for a graceful stop."""
        self._version += 1
        self._tell()

    def saved(self) -> SavedRoster:
        """The set as it is kept across restarts."""
        return SavedRoster(
            format=1,
            records=[known.text for known in self._present.values()],
            gone=[(id_text(node), gone.issued_s, gone.until_s) for node, gone in self._gone.items()],
        )

    def restore(self, saved: SavedRoster) -> None:
        """Take over the set of an earlier run; every record is verified again, expired ones are left out."""
        for node, issued_s, until_s in saved.gone:
            self._gone[NodeId(id_from_text(node))] = _Gone(issued_s, until_s, 0)
            self._next_expiry_s = min(self._next_expiry_s, until_s)
        for text in saved.records:
            try:
                self.announce(record_from_text(text))
            except MunimentError as error:
                _log.warning("a saved record was left out: %s", error)

    def _remove(self, known: _Present, *, issued_s: int) -> None:
        self._version += 1
        node, until_s = known.record.node, int(self._clock.now_s()) + _REMEMBER_S
        del self._present[node]
        self._records_bytes -= _answered_bytes(known.text)
        self._gone[node] = _Gone(issued_s, max(known.record.expires_s, until_s), self._version)
        self._next_expiry_s = min(self._next_expiry_s, self._gone[node].until_s)
        if len(self._gone) > self._records_max:
            self._forget(next(iter(self._gone)))

    def _forget(self, node: NodeId) -> None:
        self._floor = max(self._floor, self._gone.pop(node).version)

    def _tell(self) -> None:
        """Wake everybody who waits; who comes later waits for the next change."""
        self._answers.clear()
        self._changed.set()
        self._changed = asyncio.Event()


def _answered_bytes(text: str) -> int:
    return len(text) + 3  # quotes and a comma


class RosterFile:
    """Keeps a service's set on disk; saves that come while one is written share the next one."""

    def __init__(self, path: Path, service: IntroducerService) -> None:
        self._path, self._service = path, service
        self._saved_version = -1
        self._turn = asyncio.Lock()

    def load(self) -> None:
        """Restore what the last run had; a damaged file is kept aside and reported, not fatal.

        Nodes announce themselves again within a third of their record's life, so starting empty heals.
        """
        try:
            self._service.restore(msgspec.json.decode(self._path.read_bytes(), type=SavedRoster))
        except FileNotFoundError:
            return
        except (msgspec.MsgspecError, MunimentError, UnicodeDecodeError) as error:
            _log.error("%s cannot be read (%s); starting without it", self._path, error)
            self._path.rename(self._path.with_name(self._path.name + ".damaged"))

    async def save(self) -> None:
        """Return when all changes up to now are durable.  Raises: DiskFull, StoreFailed."""
        version = self._service.version
        async with self._turn:
            if self._saved_version >= version:
                return
            version = self._service.version
            content = msgspec.json.encode(self._service.saved())
            await asyncio.to_thread(write_whole, self._path, content)
            self._saved_version = version
