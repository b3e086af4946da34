"""The audit of a volume by one of its members: log, content, view and blobs in one walk (docs/audit.md).

    report = await audit_volume(volume, secret.read, log_key, log=lambda: SqliteLog(path), blobs=grid)

The log is read once, in one thread that nothing else uses; the nodes are asked between its pages.  Nothing is
written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from muniment.audit.blob_check import BlobAudit
from muniment.audit.log_check import LogAudit
from muniment.audit.prunes import PruneAudit
from muniment.audit.report import AuditReport, Finding
from muniment.audit.view_check import Refold, ViewAudit
from muniment.core.entries import open_names
from muniment.core.key_ring import KeyRing
from muniment.crypto.entries import SignedEntry, known_entry
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.errors import HistoryMissing, IntegrityError, MalformedRecord, NotCapable, StoreFailed
from muniment.ids import BlobId, VolumeId
from muniment.ports import AuditedLog, AuditedView, BlobChecker, RowVersion
from muniment.spec.blob import BlobName
from muniment.spec.limits import MIB

SAMPLES: Final = 2
"""Past states of a view that are read back; every row of the past is compared without that."""

_KEY_BYTES: Final = 32
_TURN_ENTRIES: Final = 256
_READ_BYTES: Final = MIB
_P = TypeVar("_P", AuditedLog, AuditedView)


async def audit_volume(
    volume: VolumeId,
    secret: ReadSecret | VerifySecret,
    log_key: bytes,
    *,
    log: Callable[[], AuditedLog],
    view: Callable[[], AuditedView] | None = None,
    notes: Sequence[bytes] = (),
    blobs: BlobChecker | None = None,
    deep: bool = False,
    former_log_keys: Sequence[bytes] = (),
    samples: int = SAMPLES,
    executor: Executor | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
    found: Iterable[Finding] = (),
) -> AuditReport:
    """Audit everything that the holder of `secret` can look into.

    Args:
        volume: whose log it must be.
        secret: of a member; a VerifySecret audits all but the content, and the report says so.
        log_key: Ed25519 key of the log service.
        log: opens the log, or a member's replica of it; it is closed again.
        view: opens the view that is to be compared with the log; None: none is.
        notes: further signed checkpoints of this log, such as the member has kept or got from others.
        blobs: asks the nodes; None: nobody is asked, and the audit needs no network.
        deep: read and verify every share.
        former_log_keys: of services that had the log before it was moved: their checkpoints count too.
        samples: how many past states of the view are read back.
        executor: processes that verify signatures besides; functions and bytes are sent there.
        entropy: for the key under which the view is summed up.
        found: what is wrong beside log and view, for the same report.
    Returns: what was found; damage and forgery of any kind are findings, not errors.
    Raises: HistoryMissing: this is a replica that began with a view snapshot; FileFailed: a file cannot be
        opened at all; what `blobs` raises beyond UnavailableError.
    Cancellation: ends behind the entries that are being read, with everything closed.
    Cost: O(entries), most of it for signatures; memory for the present tree, not for the log.
    """
    report = AuditReport(volume)
    for one in found:
        report.add(one)
    asked = None if blobs is None else BlobAudit(blobs, report, deep=deep)
    loop = asyncio.get_running_loop()
    keys = (log_key, *former_log_keys)
    audit = _Audit(volume, secret, keys, notes, report, samples, executor, entropy)
    thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
    try:
        turns = audit.run(log, view)
        try:
            while (names := await loop.run_in_executor(thread, next, turns, None)) is not None:
                if asked is not None:
                    asked.note(names)
                    await asked.ask()
            if asked is not None:
                await asked.ask(least=1)
                asked.settle(audit.gone)
        finally:
            await asyncio.shield(loop.run_in_executor(thread, turns.close))
            thread.shutdown()
    finally:
        thread.shutdown(wait=False)
    return report


@dataclass(slots=True)
class _Audit:
    """One audit; all of it but the asking of nodes, in one thread."""

    volume: VolumeId
    secret: ReadSecret | VerifySecret
    log_keys: Sequence[bytes]
    notes: Sequence[bytes]
    report: AuditReport
    samples: int
    executor: Executor | None
    entropy: Callable[[int], bytes]
    gone: frozenset[BlobId] = frozenset()
    """Blobs that may be missing; known in the end."""

    def run(
        self, open_log: Callable[[], AuditedLog], open_view: Callable[[], AuditedView] | None
    ) -> Generator[list[BlobName], None, None]:
        """The audit by turns, each with the blobs that were named in it."""
        log = self._opened("the log's file", open_log)
        if log is None:
            self.report.content = "there is no log"
            return
        try:
            if log.start:
                raise HistoryMissing(start=log.start)
            view = None if open_view is None else self._opened("the view's file", open_view)
            try:
                yield from self._walk(log, view)
            finally:
                if view is not None:
                    view.close()
        finally:
            log.close()

    def _opened(self, place: str, opens: Callable[[], _P]) -> _P | None:
        try:
            return opens()
        except (StoreFailed, IntegrityError) as error:
            self.report.damaged(
                place,
                f"it does not open: {error}",
                "nothing in it can be used; get it again, or fold it anew",
            )
            return None

    def _walk(self, log: AuditedLog, view: AuditedView | None) -> Iterator[list[BlobName]]:
        report, ring = self.report, KeyRing(self.secret)
        walk = LogAudit(log, self.volume, self.log_keys, self.notes, report, self.executor)
        refold = Refold(ring, report)
        prunes = PruneAudit(report)
        compared = None
        if view is not None:
            compared = ViewAudit(view, report, self.entropy(_KEY_BYTES), self.samples)
            compared.start(refold.state)
        named: list[BlobName] = []
        for at, signed in enumerate(self._in_turn(walk, log, ring), 1):
            if signed is not None:
                prunes.take(signed, ring)
                done = refold.take(signed)
                if done is None:
                    named += _names(signed, ring)
                else:
                    kept, gone, names = done
                    named += names
                    if compared is not None:
                        compared.take(kept, gone, refold.state)
            if at % _TURN_ENTRIES == 0:
                yield named
                named = []
        report.state_hash = refold.state.state_hash().digest()
        if compared is not None:
            compared.end(refold.size, whole=walk.whole)
            compared.differing_rows(lambda size: _versions(log, ring, size))
        if prunes.any:
            prunes.judge(lambda: _versions(log, ring, refold.size), refold.size)
            judged = enumerate(_read(log, 0, report.judged))
            self.gone = prunes.accepted((at, _names(signed, ring)) for at, signed in judged)
        yield named

    def _in_turn(self, walk: LogAudit, log: AuditedLog, ring: KeyRing) -> Iterator[SignedEntry | None]:
        """What was judged, in the log's order, as soon as the holder has its keys; None: nothing yet.

        Who joined later got the keys to all that was before then, so the first entry that is closed to him
        waits for that, and all behind it with it.  What stays closed comes at the end.
        """
        judged, waits, first = 0, 0, None
        for signed in walk.walk():
            if signed is None:
                yield None
                continue
            judged += 1
            if signed.entry.act is not None:
                ring.follow(walk.membership)
            if first is None and not self._is_open(signed, ring):
                waits, first = judged - 1, signed
            if first is None:
                yield signed
            elif signed.entry.act is not None and self._is_open(first, ring):
                yield from _read(log, waits, judged)
                first = None
            else:
                yield None
        if first is not None:
            yield from _read(log, waits, judged)

    def _is_open(self, signed: SignedEntry, ring: KeyRing) -> bool:
        """Whether the holder has all keys to the entry that he can ever have."""
        if signed.entry.act is not None:
            return True
        try:
            keys = ring.keys(signed.entry.epoch)
        except NotCapable:
            return False
        return keys.read is not None or isinstance(self.secret, VerifySecret)


def _read(log: AuditedLog, at: int, stop: int) -> Iterator[SignedEntry]:
    """Entries of a log that were judged before."""
    while at < stop:
        for signed in log.read(at, stop, bytes_max=_READ_BYTES):
            yield known_entry(signed)
            at += 1


def _names(signed: SignedEntry, ring: KeyRing) -> tuple[BlobName, ...]:
    """The blobs of an entry whose content is closed to the holder, as far as its names are not."""
    if signed.entry.act is not None:
        return ()
    try:
        return open_names(signed.entry, ring)
    except (MalformedRecord, NotCapable):
        return ()


def _versions(log: AuditedLog, ring: KeyRing, size: int) -> Iterator[RowVersion]:
    """All versions of rows of a log that was audited, up to the entry `size` - 1."""
    refold = Refold(ring)
    for signed in _read(log, 0, size):
        done = refold.take(signed)
        if done is not None:
            yield from done[1]
    yield from refold.state.open_rows()
