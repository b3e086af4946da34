"""Every share read again and verified, round after round (docs/node.md section 8).

A clock's hand: BlobIds are hashes, so shares lie evenly in the space of keys, and a hand that sweeps it once
in a round meets each share once in that time, in small steps and without a plan.  Whatever lies behind the
hand and was not read yet is read next, at a bounded rate; a node that was off for long catches up the same
way.  Where it is stands in the ledger, so a restart goes on within a minute's reading of where it was.

Finds bit rot (into quarantine, shown to the owners) and shares that are gone (listed as missing).
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from muniment.errors import ShareCorrupt, ShareUnknown, StoreFailed
from muniment.node.scrub_book import ScrubBook, ScrubRound
from muniment.node.service import NodeService
from muniment.ports import Clock, StoredShare
from muniment.spec.limits import MIB
from muniment.spec.wire import ScrubStatus

_STEP_SHARES_MAX: Final = 64
_STEP_BYTES: Final = 4 * MIB
"""Read in one step at least, if so much is due, so that a step ends soon."""

_NOTE_S: Final = 60.0
_STEP_S_MAX: Final = 60.0
_STEPS_IN_ROUND: Final = 1000
"""The hand moves so often in a short round, once a minute in a long one."""

_TOLD_MAX: Final = 100
"""Unreadable shares named in the log in one round: a dying disk must not fill another one."""

_KEYS: Final = 1 << 64
_log = logging.getLogger(__name__)


class Scrub:
    """The scrub of one node: blocking steps, one at a time; `status` in any thread.

    Args:
        book: made for it.
        round_s: one sweep over all keys.
        bytes_per_s: rate at which shares are read at most.
        clock: wall clock, as rounds go on over restarts.
    """

    def __init__(
        self, service: NodeService, book: ScrubBook, *, round_s: float, bytes_per_s: int, clock: Clock
    ) -> None:
        self._service, self._book, self._clock = service, book, clock
        self._round_s, self._bytes_per_s = round_s, bytes_per_s
        self._lock = threading.Lock()  # around the counters, which `status` reads
        self._round = book.load()
        self._noted_s = clock.monotonic_s()
        self._is_behind = False

    def status(self) -> ScrubStatus:
        """How far it is."""
        with self._lock:
            now, is_behind = self._round, self._is_behind
            done = self._hand()
            if is_behind:
                done = min(done, int.from_bytes(now.blob[:8].ljust(8, b"\0"), "big") / _KEYS)
            return ScrubStatus(
                round_started_s=now.started_s,
                done=done,
                share_count=now.shares,
                read_bytes=now.bytes,
                damaged_count=now.damaged,
                missing_count=now.missing,
                unreadable_count=now.unreadable,
                whole_since_s=now.whole_s,
                found_count=now.found,
            )

    def step(self) -> float:
        """Read a little of what is due; returns after how many seconds the next step should come.

        Raises: StoreFailed, DiskFull: the ledger failed; go on later.
        """
        with self._lock:
            now = self._round
            if not 0 < now.started_s <= self._clock.now_s():  # the first round, or the clock was set back
                now.started_s = self._clock.now_s()
            hand = self._hand()
        before = None if hand >= 1 else int(hand * _KEYS).to_bytes(8, "big")
        shares = self._book.due((now.blob, now.number), before, _STEP_SHARES_MAX)
        self._is_behind = bool(shares)
        if shares:
            read_bytes = 0
            for share in shares:
                self._read(share)
                read_bytes += share.size_bytes
                if read_bytes >= _STEP_BYTES:
                    break
            wait_s = read_bytes / self._bytes_per_s
        elif before is None:
            self._begin()
            wait_s = 0.0
        else:
            wait_s = min(_STEP_S_MAX, self._round_s / _STEPS_IN_ROUND)
        if self._clock.monotonic_s() - self._noted_s >= _NOTE_S:
            self.note()
        return wait_s

    def note(self) -> None:
        """Keep durably how far it is; also done once a minute, and when something was found."""
        self._book.note(self._round)
        self._noted_s = self._clock.monotonic_s()

    def _hand(self) -> float:
        """How much of this round's time is over, 0 to 1."""
        if not self._round.started_s:
            return 0.0
        return min(1.0, max(0.0, self._clock.now_s() - self._round.started_s) / self._round_s)

    def _read(self, share: StoredShare) -> None:
        damaged = missing = unreadable = 0
        try:
            self._service.verify(share.key)
        except ShareCorrupt:
            damaged = 1
        except ShareUnknown:
            # Given up and deleted since the batch was read, or lost: then it is in the ledger still.
            missing = self._service.drop_missing([share.key])
        except StoreFailed as error:
            unreadable = 1
            if self._round.unreadable < _TOLD_MAX:
                _log.error("%s cannot be read: %s", share.key, error)
        with self._lock:
            now = self._round
            now.blob, now.number = share.key.blob, share.key.number
            now.shares += 1
            now.bytes += share.size_bytes
            now.damaged += damaged
            now.missing += missing
            now.unreadable += unreadable
            now.found += damaged + missing
        if damaged or missing:
            self.note()

    def _begin(self) -> None:
        """End this round and begin the next."""
        with self._lock:
            last = self._round
            whole_s = last.whole_s if last.unreadable else last.started_s
            self._round = ScrubRound(self._clock.now_s(), b"", -1, 0, 0, 0, 0, 0, whole_s, last.found)
        self.note()
        _log.info(
            "all %d shares were read again: %d damaged, %d missing, %d unreadable",
            *(last.shares, last.damaged, last.missing, last.unreadable),
        )
