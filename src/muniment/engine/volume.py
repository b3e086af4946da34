"""One volume as a member uses it: follow the log, read any state, change it by transactions.

    volume = Volume(follower, secret, log, clock, os.urandom)
    await volume.sync()
    await volume.commit(lambda state: Transaction((Make(ROOT, b"books", Kind.FOLDER, 0o755),)))

A change is planned on the newest state that is known, signed, ordered by the log service, and folded here as
everywhere: `commit` returns when that is done, and raises what the fold says if somebody was faster.

Concurrency: one thread belongs to the follower, and all its work runs there in turn; `_turn` keeps two
changes of this member apart, because his entries form a chain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from muniment.core.entries import Place, seal_statement, seal_transaction
from muniment.core.keys import EpochKeys, mend, rotation
from muniment.core.membership import Membership
from muniment.core.tree_state import TreeReading
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.entries import entry_hash, sign_entry
from muniment.crypto.member import MemberSecret
from muniment.engine.accusing import gather
from muniment.engine.follower import Follower
from muniment.engine.threads import wait_ended
from muniment.errors import (
    AuthorChainBroken,
    CallerError,
    ClockSkewed,
    EntryMisplaced,
    EntryRefused,
    EpochPassed,
    GrantsWrong,
    LogForked,
    MunimentError,
    NotCapable,
    NotMember,
    OperationRejected,
    Overtaken,
    ProtocolViolation,
    RotationDue,
    UnavailableError,
)
from muniment.ids import VolumeId
from muniment.ports import Appended, Clock, LogClient, VolumeView
from muniment.spec.act import Act, Role, Rotate
from muniment.spec.blob import BlobRef
from muniment.spec.checkpoint import decode_checkpoint, decode_note, origin_of
from muniment.spec.entry import Entry
from muniment.spec.transaction import Transaction

Plan = Callable[[TreeReading], Transaction]
"""Makes a transaction for a state; called again with a newer one if somebody was faster."""

BlobPlan = Callable[[TreeReading, tuple[BlobRef, ...]], Transaction]
"""Makes a transaction for a state, and for the blobs as they are stored now; called again like a `Plan`."""

ActPlan = Callable[[Membership], Act]
StatementPlan = Callable[[Membership], tuple[Act, bytes]]
"""An act that has a statement, and that statement."""

_log = logging.getLogger(__name__)
_TRIES: Final = 8
_OVERTAKEN: Final = (EpochPassed, AuthorChainBroken, EntryMisplaced)
_MENDS_MAX: Final = 256
_PAUSE_S: Final = 0.05
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Committed:
    """A change that is in the log and was folded.

    Attributes:
        index: of its entry.
        checkpoint: a signed one that covers it.
    """

    index: int
    checkpoint: bytes


@dataclass(slots=True, eq=False)
class Attempt:
    """One change on its way into the log.  Given to `commit` again, what was sent is not planned again.

    Attributes:
        unanswered: the signed entry that was sent, and may be in the log or get there still; empty: none is.
    """

    unanswered: bytes = b""


class Volume:
    """A member's volume.

    Args:
        follower: what is known of it; belongs to the volume from now on.
        secret: to write; None for one who only reads.
        log: the log service.
        clock: times of entries.
        entropy: for nonces and keys.
    """

    def __init__(
        self,
        follower: Follower,
        secret: MemberSecret | None,
        log: LogClient,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._follower = follower
        self._secret = secret
        self._log = log
        self._clock = clock
        self._entropy = entropy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="volume")
        self._turn = asyncio.Lock()
        self._whole: tuple[int, int] | None = None  # epochs and mended keys that were looked through

    @property
    def id(self) -> VolumeId:
        """Which volume it is."""
        return self._follower.volume

    @property
    def membership(self) -> Membership:
        """Members, policy and votes, as far as the log was followed; do not change it."""
        return self._follower.membership

    @property
    def view(self) -> VolumeView:
        """The states; may be read from any thread."""
        return self._follower.view

    @property
    def follower(self) -> Follower:
        """For audits; its methods run in this volume's thread."""
        return self._follower

    def now_ns(self) -> int:
        """By the member's clock, as entries have it."""
        return int(self._clock.now_s() * 1e9)

    def newest_keys(self) -> EpochKeys:
        """Of the present epoch; in this volume's thread.

        Raises: NotMember: he is none, or not any more; NotCapable: they were not granted.
        """
        return self._keys(self.membership.epoch)

    def keys_to_rotate(self) -> EpochKeys | None:
        """Of the present epoch; None if they were withheld: that must not keep anybody from new ones.

        In this volume's thread.  Raises: NotMember.
        """
        try:
            return self.newest_keys()
        except NotCapable:
            return None

    async def sealing_keys(self) -> EpochKeys:
        """Those under which the next change's content is sealed; where new ones are due, they are made first.

        Raises: as `newest_keys`; as `act`.
        """
        held = None if self._secret is None else self.membership.members.get(self._secret.member)
        if held is not None and held.role.writes and (self.membership.rotation_due or self._withheld()):
            async with self._turn:
                await self._rotate()
        return await self.run(self.newest_keys)

    def _keys(self, epoch: int) -> EpochKeys:
        if self._secret is not None and self._secret.member not in self.membership.members:
            raise NotMember(member=self._secret.member)
        return self._follower.ring.keys(epoch)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run blocking work on the view or the follower in this volume's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def aclose(self) -> None:
        """End the thread and close what the follower keeps, also where this is cancelled."""
        try:
            await self._log.aclose()
        finally:
            closed = asyncio.get_running_loop().run_in_executor(self._thread, self._follower.close)
            try:
                await asyncio.shield(closed)
            finally:
                await wait_ended(closed)
                self._thread.shutdown()

    # --- following ----------------------------------------------------------------------------

    async def sync(self) -> int:
        """Follow the log to its newest checkpoint; returns how many entries are known then.

        If somebody who rotated the keys has broken the chain to earlier ones, a writer mends it now.

        Raises: LogForked; as `LogClient`.
        """
        async with self._turn:
            return await self._follow_and_mend(await self._log.checkpoint())

    async def is_behind(self) -> bool:
        """Whether the log service has more than is known here: a cheap question before `sync`."""
        note = await self._log.checkpoint()
        # The view too: entries that somebody else is folding just now are not seen yet.
        return decode_checkpoint(decode_note(note).text).size > min(
            self._follower.frontier.size, self.view.size
        )

    async def wait_change(self, wait_s: float) -> bool:
        """Follow the log as soon as it has something new; False if it had not within `wait_s`."""
        known = self._follower.frontier.size
        note = await self._log.wait_beyond(known, wait_s)
        async with self._turn:
            if await self.run(lambda: self._follower.is_stale(note)):
                note = await self._log.checkpoint()  # another call went further while this one waited
            return await self._follow_and_mend(note) > known

    async def exchange(self, notes: Sequence[bytes]) -> bytes:
        """Compare checkpoints that another member shows, and show the newest of one's own.

        Returns: a signed note; empty before the first.
        Raises: LogForked: the log service showed him another log; MalformedRecord: not its checkpoints.
        """
        async with self._turn:
            for note in notes:
                await self._judge(lambda n=note: self._follower.compare(n))  # type: ignore[misc]
            return await self.run(self._follower.newest_note)

    async def move_to(self, log: LogClient, log_key: bytes) -> None:
        """Follow another log service from now on, if it continues the log that was seen.

        Raises: as `Follower.accept_host`, and then nothing has changed; as `LogClient`.
        """
        async with self._turn:
            note = await log.checkpoint()
            old = self._follower.frontier.size
            new = open_checkpoint(note, log_key, origin=origin_of(self.id)).size
            proof = await log.consistency(old, new) if old < new else ()
            await self.run(lambda: self._follower.accept_host(note, log_key, proof))
            self._log, left = log, self._log
            await left.aclose()
            await self._follow(note)

    async def _follow(self, note: bytes) -> int:
        follows = await self._judge(lambda: self._follower.follows(note))
        checkpoint, at = follows.checkpoint, follows.start
        if at >= follows.stop:
            return at
        async with aclosing(self._pages(at, follows.stop)) as pages:
            async for signed, proof in pages:
                await self._judge(lambda s=signed, p=proof: self._follower.take(s, note, checkpoint, p))  # type: ignore[misc]
        return follows.stop

    async def _pages(self, at: int, stop: int) -> AsyncGenerator[tuple[list[bytes], tuple[bytes, ...]]]:
        """Entries and the proof that they lead to `stop`; the next page comes while one is worked on."""
        coming = asyncio.create_task(self._page(at, stop))
        try:
            while at < stop:
                signed, proof = await coming
                at += len(signed)
                if at < stop:
                    coming = asyncio.create_task(self._page(at, stop))
                yield signed, proof
        finally:  # what was asked for and is not needed any more; its error is nobody's
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _page(self, at: int, stop: int) -> tuple[list[bytes], tuple[bytes, ...]]:
        signed = await self._log.entries(at, stop)
        at += len(signed)
        if at > stop:
            raise ProtocolViolation(node=b"", reason="more entries than were asked for")
        return signed, () if at == stop else await self._log.consistency(at, stop)

    async def _judge(self, work: Callable[[], _T]) -> _T:
        """Run work of the follower; if the log forked, ask the service for what is missing as evidence."""
        try:
            return await self.run(work)
        except LogForked as forked:
            suspicion = self._follower.suspicion
            if suspicion is None:
                raise
            try:
                proofs = await gather(suspicion, self._log)
            except MunimentError:
                raise forked from None
            raise await self.run(lambda: self._follower.convict(suspicion, proofs)) from forked

    # --- changing -----------------------------------------------------------------------------

    async def commit(
        self,
        plan: Plan,
        *,
        epoch: int | None = None,
        attempt: Attempt | None = None,
        is_brief: bool = False,
    ) -> Committed:
        """Make one change.

        What a plan expects is what it says: if others were faster and the fold rejects it, it is made anew on
        the state they left, which either suits it or shows it why not.

        Args:
            plan: called in the volume's thread unless it is brief, and again if others were faster.
            epoch: under whose keys new content is sealed that the plan names; None: it names none.
            attempt: of a caller who calls again with the same change after an UnavailableError.  If an entry
                of it was not answered, that is sent again as it was; only if the log refuses it, and so can
                never have it, is the change planned anew.
            is_brief: planned and signed on the loop, since it takes less than to wake the thread would.
        Returns: when the entry is durable at the log service and folded here.

        Cancelled, the change may or may not be made.
        Raises: EpochPassed: the keys have changed; nothing is committed, seal the content anew;
            OperationRejected: the fold found something else than planned, though nobody was faster;
            Overtaken: somebody was, each of 8 times; NotCapable: no right to write; EntryRefused, LogForked;
            as `LogClient`; what `plan` raises.
        """
        planned = -1
        attempt = attempt or Attempt()

        def make(place: Place) -> Entry:
            nonlocal planned
            if epoch is not None and place.epoch != epoch:
                raise EpochPassed(epoch=epoch, current=place.epoch)
            planned = self.view.size
            keys = self._keys(place.epoch)
            self._check_folded(self._follower.frontier.size)
            transaction = plan(self.view.reading())
            return seal_transaction(place, transaction, keys, self._entropy)

        for count in range(_TRIES):
            async with self._turn:
                done = await self._append(make, attempt, is_brief=is_brief)
            self._check_folded(done.index + 1)
            (folded,) = self.view.entries(done.index, done.index + 1)  # a hop would cost more than this look
            why = folded.rejection
            if why is None:
                return done
            if done.index == planned:
                raise OperationRejected(why=why.code, operation=why.operation or 0, reason=why.reason)
            if count == _TRIES - 1:
                raise Overtaken(tries=_TRIES, reason=why.reason)
            await asyncio.sleep(_PAUSE_S * 2**count * self._jitter())
        raise AssertionError

    def _check_folded(self, size: int) -> None:
        """No change is planned on an old state, nor called made where its outcome cannot be known.

        Raises: NotCapable: whoever made new keys withheld those of earlier epochs.
        """
        if self.view.size < size:
            raise NotCapable(needed=f"read (entry {self.view.size})", given="read (later entries)")

    async def act(self, plan: ActPlan) -> Committed:
        """Make one membership act.  Raises: as `commit`."""
        async with self._turn:
            return await self._append(lambda place: place.entry(plan(self.membership)))

    async def declare(self, plan: StatementPlan) -> Committed:
        """Make one act that says something to the verify right.  Raises: as `commit`."""

        def make(place: Place) -> Entry:
            act, statement = plan(self.membership)
            return seal_statement(place, act, statement, self._keys(place.epoch), self._entropy)

        async with self._turn:
            return await self._append(make)

    async def _append(
        self, make: Callable[[Place], Entry], attempt: Attempt | None = None, *, is_brief: bool = False
    ) -> Committed:
        """Sign, order and follow; what changed under us is planned anew, what was lost is sent again."""
        attempt = attempt or Attempt()
        for count in range(_TRIES):
            if count:
                await asyncio.sleep(_PAUSE_S * 2**count * self._jitter())
                await self._follow(await self._log.checkpoint())
            resumed = bool(attempt.unanswered)
            if not resumed:
                if self._withheld():
                    await self._rotate()
                # Whoever changes what this reads has the turn, which is ours.
                sign = partial(self._signed, make)
                attempt.unanswered = sign() if is_brief else await self.run(sign)
            signed = attempt.unanswered
            try:
                (done,) = await self._send([signed])
            except (EntryRefused, ClockSkewed) as refused:
                # The log looks for an entry before it judges it, so it is not there; and it cannot follow
                # later, since the author's chain, the epoch and the time only go on.  A new one may be made.
                attempt.unanswered = b""
                if isinstance(refused, RotationDue):
                    await self._rotate()
                elif not resumed and not isinstance(refused, _OVERTAKEN):
                    raise
                faster = refused
                continue
            if not await self._judge(partial(self._follower.take_own, signed, done.index, done.checkpoint)):
                await self._follow(done.checkpoint)
                await self._check_kept(signed, done.index)
            attempt.unanswered = b""
            return Committed(done.index, done.checkpoint)
        raise Overtaken(tries=_TRIES, reason=str(faster)) from faster

    async def _check_kept(self, signed: bytes, index: int) -> None:
        """An acknowledgement is not signed: only the entry in its place shows that it was not dropped.

        Raises: LogForked: it is not there.
        """
        entry = entry_hash(signed)
        if await self.run(lambda: self._follower.replica.find(entry)) != index:
            reason = f"it acknowledged a change as entry {index}, and that is another or none"
            raise LogForked(volume=self.id, reason=reason)

    async def _send(self, signed: Sequence[bytes]) -> list[Appended]:
        """Have entries ordered; a call whose answer was lost is repeated as it was."""
        for attempt in range(_TRIES):
            try:
                return await self._log.append(signed)
            except UnavailableError:
                if attempt >= _TRIES // 2:
                    raise
                await asyncio.sleep(_PAUSE_S * 2**attempt * (1 + self._jitter()))
        raise AssertionError

    def _jitter(self) -> float:
        """A number from 0 to 1, so that those who were refused together do not come back together."""
        return self._entropy(1)[0] / 256

    def _signed(self, make: Callable[[Place], Entry]) -> bytes:
        """In the thread: the next entry of this member."""
        if self._secret is None:
            raise NotCapable(needed="volume write", given="volume read")
        frontier = self._follower.frontier
        place = Place.next(
            self.membership,
            self._secret.member,
            seen_size=frontier.size,
            seen_root=frontier.root(),
            now_ns=self.now_ns(),
        )
        return sign_entry(self._secret.identity, make(place))

    async def _rotate(self) -> None:
        """Begin a new epoch: a member left, and until then nobody can write, or its keys were withheld."""
        await self._follow(await self._log.checkpoint())
        if not self.membership.rotation_due and not self._withheld():
            return  # somebody else was faster

        def make(place: Place) -> Entry:
            fresh, _ = rotation(self.membership, self.keys_to_rotate(), self._entropy)
            return place.entry(Rotate(fresh))

        signed = await self.run(lambda: self._signed(make))
        try:
            (done,) = await self._send([signed])
        except (EpochPassed, AuthorChainBroken, GrantsWrong):
            return  # somebody else was faster, or another one left
        await self._follow_and_mend(done.checkpoint)

    def _withheld(self) -> bool:
        """Whether who rotated the keys last kept them from this owner, who may rotate them again."""
        if self._secret is None:
            return False
        held, ring = self.membership.members.get(self._secret.member), self._follower.ring
        return held is not None and held.role is Role.OWNER and ring.refusal is not None

    # --- mending ------------------------------------------------------------------------------

    async def _follow_and_mend(self, note: bytes) -> int:
        """Follow the log, and give newcomers the earlier keys that somebody has cut them off from.

        That these cannot be given now is nobody's error: the next one who may write does it.
        """
        known = await self._follow(note)
        try:
            for _ in range(_MENDS_MAX):
                signed = await self.run(self._mending)
                if signed is None:
                    break
                (done,) = await self._send([signed])
                known = await self._follow(done.checkpoint)
        except (CallerError, UnavailableError) as error:
            _log.warning("the way to earlier keys of a volume is broken, and could not be mended: %s", error)
        return known

    def _mending(self) -> bytes | None:
        """In the thread: the next entry that mends the key chain; None if it is whole, or not his to mend."""
        membership, secret = self.membership, self._secret
        held = None if secret is None else membership.members.get(secret.member)
        looked = membership.epoch, len(membership.mended)
        if held is None or not held.role.writes or membership.rotation_due or self._whole == looked:
            return None
        older = next(self._follower.ring.broken(), None)
        if older is None:
            self._whole = looked
            return None
        given = mend(self.id, self._keys(membership.epoch), older, self._entropy)
        return self._signed(lambda place: place.entry(given))
