"""Who may do what in a volume: the fold of the clear part of its log (docs/spec/entry.md sections 1 and 3).

The log service runs this before it orders an entry, every member and auditor when they replay the log.  It
looks at nothing but the entries themselves, so all come to the same result: what is refused never enters a
log, and a log in which it stands is forged.  Three things are not seen from here: signatures
(`crypto.entries` checked them), what is encrypted, and whether `seen_root` is the log's (whoever has the
Merkle tree checks that).

`check` changes nothing; `admit` checks and then cannot fail.  A transaction costs O(1), an act
O(members and votes).  Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from muniment.core.ballots import Acceptance, Ballots, Removal, Subject, Vote
from muniment.crypto.entries import SignedEntry, volume_id
from muniment.errors import (
    ActRefused,
    AuthorChainBroken,
    ClockSkewed,
    EntryMisplaced,
    EntryTimeWrong,
    EpochPassed,
    GrantsWrong,
    InternalError,
    LastOwner,
    NotMember,
    RoleForbids,
    RotationDue,
)
from muniment.ids import EntryHash, MemberId
from muniment.spec.act import (
    FOR_EVER_S,
    MEMBERS_MAX,
    RULES_MAX,
    Accept,
    Act,
    Card,
    ChangePolicy,
    Found,
    Grant,
    Hold,
    Join,
    Kick,
    Leave,
    Mend,
    Prune,
    Report,
    Retain,
    Role,
    Rotate,
    Rotation,
    VolumePolicy,
)
from muniment.spec.entry import NO_ENTRY, NO_VOLUME, SKEW_NS_MAX, Entry

_SECOND_NS: Final = 1_000_000_000
REPORTS_NS: Final = 3600 * _SECOND_NS
"""Between two reports of one member, urgent ones and others counted apart."""


@dataclass(frozen=True, slots=True)
class Member:
    """One who was accepted and has not gone.

    Attributes:
        card: his public keys and name.
        role: what he may.
        since: index of the entry that made him a member.
    """

    card: Card
    role: Role
    since: int


@dataclass(frozen=True, slots=True)
class PendingJoin:
    """A join that waits for votes.

    Attributes:
        card: of the joiner.
        role: what he asks for.
        note: why, in his words.
        index: of the entry.
        time_ns: of the log then; it expires like a vote.
    """

    card: Card
    role: Role
    note: str
    index: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class EpochStart:
    """How an epoch began.

    Attributes:
        index: of the entry that began it.
        commitment: what its keys hash to.
        chain_read: the read key of the epoch before, encrypted; empty in epoch 0.
        chain_verify: likewise the verify key.
    """

    index: int
    commitment: bytes
    chain_read: bytes = b""
    chain_verify: bytes = b""


@dataclass(frozen=True, slots=True)
class Mended:
    """A way to the keys of an earlier epoch besides the chain, which somebody may have broken.

    Attributes:
        author: who gave it.
        under: the epoch whose keys open it.
        epoch: whose keys are in it: an earlier one.
        read: its read key, encrypted.
        verify: its verify key, encrypted.
    """

    author: MemberId
    under: int
    epoch: int
    read: bytes
    verify: bytes


@dataclass(frozen=True, slots=True)
class Rule:
    """How long versions of a file, or of all below a folder, are kept.

    Attributes:
        index: of the entry that says so.
        keep_s: seconds, or FOR_EVER_S.
    """

    index: int
    keep_s: int


@dataclass(frozen=True, slots=True)
class Held:
    """A hold on a file or folder.

    Attributes:
        index: of the entry that laid it; its reason is the statement there.
        author: who did.
    """

    index: int
    author: MemberId


@dataclass(frozen=True, slots=True)
class Pruned:
    """A prune; its blobs are the statement of its entry.

    Attributes:
        index: of the entry.
        author: whose it is.
        act: what it says in clear.
        rules: that were in force.
    """

    index: int
    author: MemberId
    act: Prune
    rules: Mapping[int, Rule]


@dataclass(frozen=True, slots=True)
class Reported:
    """A keeper's report; the record is the statement of its entry.

    Attributes:
        index: of the entry.
        author: who reports.
        time_ns: of the log then.
        urgent: something was lost.
    """

    index: int
    author: MemberId
    time_ns: int
    urgent: bool


@dataclass(frozen=True, slots=True)
class AuthorTail:
    """Where an author's next entry must join on.

    Attributes:
        sequence: of the next.
        previous: hash of the last; NO_ENTRY if there is none.
    """

    sequence: int = 0
    previous: EntryHash = NO_ENTRY


@dataclass(frozen=True, slots=True)
class ActPlace:
    """Where an act stands in the log.

    Attributes:
        index: of its entry.
        time_ns: of the log before it.
        hash: of its entry.
    """

    index: int
    time_ns: int
    hash: EntryHash


_NEW_AUTHOR: Final = AuthorTail()


class Membership:
    """The state after a log's first `size` entries; without any, only a founding entry is admitted.

    Attributes:
        volume: its id; NO_VOLUME before the founding.
        name: for people.
        epoch: which keys are in use.
        rotation_due: a member left and still has those keys: no transactions until there are new ones.
        size: entries folded.
        time_ns: of the log: the latest time of any entry in it.
        ruled: entries up to and with the last that changed a rule or a hold; 0: none did.
    """

    def __init__(self) -> None:
        self.volume = NO_VOLUME
        self.name = ""
        self.epoch = 0
        self.rotation_due = False
        self.size = 0
        self.time_ns = 0
        self._policy: VolumePolicy | None = None
        self._epochs: list[EpochStart] = []
        self._mended: tuple[Mended, ...] = ()
        self._rules: dict[int, Rule] = {}
        self._holds: dict[int, Held] = {}
        self._prunes: tuple[Pruned, ...] = ()
        self._reports: dict[tuple[MemberId, bool], Reported] = {}
        self.ruled = 0
        self._members: dict[MemberId, Member] = {}
        self._joins: dict[MemberId, PendingJoin] = {}
        self._grants: dict[MemberId, tuple[Grant, ...]] = {}
        self._taken_back: tuple[int, ...] = ()  # times of strangers' joins that were taken back
        self._ballots = Ballots()
        self._authors: dict[MemberId, AuthorTail] = {}
        self._acts: list[ActPlace] = []
        self._written = 0  # sum of the sequences of `_authors`: less than `size` by what was passed over

    def __repr__(self) -> str:
        return (
            f"<Membership of '{self.name}' at {self.size}, {len(self._members)} members, epoch {self.epoch}>"
        )

    # --- what there is ------------------------------------------------------------------------

    @property
    def policy(self) -> VolumePolicy:
        """What the owners agreed on.  Raises: InternalError: nothing is founded yet."""
        if self._policy is None:
            raise InternalError(reason="the policy of a volume that is not founded")
        return self._policy

    @property
    def members(self) -> Mapping[MemberId, Member]:
        """Present members."""
        return MappingProxyType(self._members)

    @property
    def epochs(self) -> tuple[EpochStart, ...]:
        """All epochs so far, by number."""
        return tuple(self._epochs)

    def epoch_start(self, epoch: int) -> EpochStart:
        """How one of them began."""
        return self._epochs[epoch]

    @property
    def mended(self) -> tuple[Mended, ...]:
        """What was given besides the chain, in order; the same object while nothing is added."""
        return self._mended

    @property
    def rules(self) -> Mapping[int, Rule]:
        """How long versions are kept, by the inode whose own rule it is."""
        return MappingProxyType(self._rules)

    @property
    def holds(self) -> Mapping[int, Held]:
        """Holds in force, by the inode on which they lie."""
        return MappingProxyType(self._holds)

    @property
    def prunes(self) -> tuple[Pruned, ...]:
        """All prunes so far, in order."""
        return self._prunes

    def reports(self) -> list[Reported]:
        """The last report of each member, urgent ones besides, the newest first."""
        return sorted(self._reports.values(), key=lambda report: report.index, reverse=True)

    def joins(self) -> dict[MemberId, PendingJoin]:
        """Joins that wait for votes and have not expired by the log's time."""
        since_ns = self._since_ns(self.time_ns)
        return {member: join for member, join in self._joins.items() if join.time_ns >= since_ns}

    def votes(self) -> dict[Subject, tuple[MemberId, ...]]:
        """Open votes that count by the log's time: who voted for what."""
        waiting, open_votes = self.joins(), self._ballots.open(self._since_ns(self.time_ns))
        return {
            subject: voters
            for subject, voters in open_votes.items()
            if not isinstance(subject, Acceptance) or subject.member in waiting
        }

    def grants_of(self, member: MemberId) -> tuple[Grant, ...]:
        """The present epoch's keys as they were wrapped to a member: he tries one after the other.

        Several owners accepted him, and any of them may have wrapped nonsense.
        """
        return self._grants.get(member, ())

    def tail(self, author: MemberId) -> AuthorTail:
        """Where an author's next entry joins on, member or not."""
        return self._authors.get(author, _NEW_AUTHOR)

    def tails(self) -> Mapping[MemberId, AuthorTail]:
        """Of all who have written, members or not; their sequences add up to `size`."""
        return MappingProxyType(self._authors)

    @property
    def acts(self) -> Sequence[ActPlace]:
        """All acts so far, in order; do not change it."""
        return self._acts

    def copy(self) -> Membership:
        """An independent copy.  Cost: O(members, authors and acts)."""
        other = Membership()
        other.__dict__.update(self.__dict__)
        other._epochs = list(self._epochs)
        other._members, other._joins = dict(self._members), dict(self._joins)
        other._grants, other._authors = dict(self._grants), dict(self._authors)
        other._ballots, other._acts = self._ballots.copy(), list(self._acts)
        other._rules, other._holds = dict(self._rules), dict(self._holds)
        other._reports = dict(self._reports)
        return other

    # --- what may follow ----------------------------------------------------------------------

    def check_clock(self, entry: Entry, now_ns: int) -> None:
        """What only a log service can check, when an entry arrives: its time against the service's clock.

        An author whose clock is behind the log's time takes the log's time, so a log that a wrong clock
        has led into the future once can still be written.

        Raises: ClockSkewed: more than SKEW_NS_MAX off.
        """
        if not now_ns - SKEW_NS_MAX <= entry.time_ns <= max(now_ns + SKEW_NS_MAX, self.time_ns):
            raise ClockSkewed(skew_s=(entry.time_ns - now_ns) // _SECOND_NS)

    def check(self, signed: SignedEntry) -> None:
        """Whether this entry may follow; nothing is changed.  Raises: EntryRefused: a leaf that says why."""
        entry = signed.entry
        if self.size == 0:
            self._check_founding(entry)
            return
        if entry.volume != self.volume:
            raise EntryMisplaced(reason="it is of another volume")
        if entry.seen_size > self.size:
            raise EntryMisplaced(reason=f"it has seen {entry.seen_size} entries, there are {self.size}")
        since_ns = self._since_ns(max(self.time_ns, entry.time_ns))
        role = self._role(entry, since_ns)
        self._check_tail(entry)
        if entry.epoch != self.epoch:
            raise EpochPassed(epoch=entry.epoch, current=self.epoch)
        behind_ns = self.time_ns - entry.time_ns
        if behind_ns > 2 * SKEW_NS_MAX:
            raise EntryTimeWrong(behind_s=behind_ns // _SECOND_NS)
        if isinstance(entry.act, Report | Retain | Hold | Prune):
            self._check_keeping(entry, role, entry.act)
        elif entry.act is not None:
            self._check_act(entry.author, role, entry.act, since_ns)
        else:
            if role is None or not role.writes:
                raise _forbidden(role, "write")
            if self.rotation_due:
                raise RotationDue(epoch=self.epoch)

    def admit(self, signed: SignedEntry, index: int) -> None:
        """Fold the next entry.

        Args:
            signed: verified.
            index: where it stands; must be `size`.
        Raises: EntryRefused: as `check`, and then nothing has changed.
        """
        if index != self.size:
            raise InternalError(reason=f"entry {index} given to a fold of {self.size} entries")
        self.check(signed)
        entry = signed.entry
        if entry.act is not None:
            self._acts.append(ActPlace(index, self.time_ns, signed.hash))
        self.size += 1
        self.time_ns = max(self.time_ns, entry.time_ns)
        self._authors[entry.author] = AuthorTail(entry.sequence + 1, signed.hash)
        self._written += 1
        if isinstance(entry.act, Found):
            self._found(signed, entry.act)
        elif entry.act is not None:
            self._apply(entry.author, entry.act, index)

    def pass_over(self, size: int, time_ns: int, tails: Mapping[MemberId, AuthorTail]) -> None:
        """Go on behind transactions that are not looked at: they leave nothing but times and tails.

        Args:
            size: entries then.
            time_ns: of the log then.
            tails: of authors then; of those who are not named nothing is known that was not before.
        Raises: EntryMisplaced: so many transactions cannot lead there; nothing has changed.
        """
        if size < self.size or time_ns < self.time_ns or (size == self.size and time_ns != self.time_ns):
            raise EntryMisplaced(reason=f"there is no way from {self.size} to {size} entries at that time")
        written = self._written
        for author, tail in tails.items():
            known = self.tail(author)
            written += tail.sequence - known.sequence
            if tail.sequence < known.sequence or (tail.sequence == known.sequence and tail != known):
                raise EntryMisplaced(reason="an author's entries do not fit what was passed over")
        if written > size:
            raise EntryMisplaced(reason=f"authors have written {written} entries of {size}")
        self.size, self.time_ns, self._written = size, time_ns, written
        self._authors |= tails

    # --- checks -------------------------------------------------------------------------------

    def _check_founding(self, entry: Entry) -> None:
        act = entry.act
        if not isinstance(act, Found) or entry.sequence or entry.epoch or entry.seen_size:
            raise EntryMisplaced(reason="a log begins with the founding of its volume")
        if act.card.member != entry.author:
            raise ActRefused(reason="the card is not the author's")
        if not act.grants[0].fits(Role.OWNER):
            raise GrantsWrong(reason="the founder gets both keys")

    def _role(self, entry: Entry, since_ns: int) -> Role | None:
        """The author's role; None for one who may join or take his join back."""
        member = self._members.get(entry.author)
        if member is not None:
            return member.role
        waits = isinstance(entry.act, Leave) and self._waiting(entry.author, since_ns) is not None
        if waits or isinstance(entry.act, Join):
            return None
        raise NotMember(member=entry.author)

    def _check_tail(self, entry: Entry) -> None:
        tail = self.tail(entry.author)
        if (entry.sequence, entry.previous) != (tail.sequence, tail.previous):
            raise AuthorChainBroken(member=entry.author, expected=tail.sequence, got=entry.sequence)

    def _check_keeping(self, entry: Entry, role: Role | None, act: Report | Retain | Hold | Prune) -> None:
        time_ns = max(self.time_ns, entry.time_ns)
        if isinstance(act, Report):
            if role is None or not role.verifies:
                raise _forbidden(role, "report")
            last = self._reports.get((entry.author, act.urgent))
            if last is not None and time_ns < last.time_ns + REPORTS_NS:
                raise ActRefused(reason="this member's last report of the kind is less than an hour old")
            return
        if role is not Role.OWNER:
            raise _forbidden(role, "say what is kept")
        match act:
            case Retain(inode, keep_s):
                rule = self._rules.get(inode)
                if (rule.keep_s if rule is not None else None) == keep_s:
                    raise ActRefused(reason="versions there are kept so long already")
                if rule is None and len(self._rules) >= RULES_MAX:
                    raise ActRefused(reason=f"{RULES_MAX} files and folders have a rule of their own")
            case Hold(inode, on):
                if (inode in self._holds) == on:
                    raise ActRefused(reason="there is a hold already" if on else "there is no hold to lift")
                if len(self._holds) >= RULES_MAX and on:
                    raise ActRefused(reason=f"{RULES_MAX} holds are in force")
            case Prune(size, until_ns):
                self._check_prune(size, until_ns, time_ns)

    def _check_prune(self, size: int, until_ns: int, time_ns: int) -> None:
        """What of a prune is to be seen in clear; whether its blobs may go, an audit says."""
        if size > self.size or size < self.ruled:
            raise ActRefused(reason="it was made of other rules than are in force now")
        if until_ns > time_ns:
            raise ActRefused(reason="it ends times that have not gone by")
        if all(rule.keep_s == FOR_EVER_S for rule in self._rules.values()):
            raise ActRefused(reason="no rule lets anything go")

    def _check_act(
        self,
        author: MemberId,
        role: Role | None,
        act: Join | Leave | Rotate | Mend | Accept | Kick | ChangePolicy | Found,
        since_ns: int,
    ) -> None:
        match act:
            case Join():
                self._check_join(author, act, since_ns)
            case Leave():
                if role is Role.OWNER and len(self._members) > 1 and self._owners() == 1:
                    raise LastOwner(member=author)
            case Rotate(rotation):
                if role is not Role.OWNER and not (self.rotation_due and role is Role.WRITER):
                    raise _forbidden(role, "rotate the keys")
                self._check_rotation(rotation, without=None)
            case Mend():
                if role is None or not role.writes:
                    raise _forbidden(role, "mend the keys")
                self._check_mend(author, act)
            case Accept() | Kick() | ChangePolicy():
                if role is not Role.OWNER:
                    raise _forbidden(role, "vote")
                self._check_vote(author, act, since_ns)
            case Found():  # names no volume, and `check` saw to that
                raise EntryMisplaced(reason="the volume is founded already")

    def _check_mend(self, author: MemberId, act: Mend) -> None:
        if self.rotation_due:  # who has left has the present keys, and need not have been given the earlier
            raise RotationDue(epoch=self.epoch)
        if act.epoch >= self.epoch:
            raise ActRefused(reason="the keys of earlier epochs are mended, and of no other")
        if any((m.author, m.under, m.epoch) == (author, self.epoch, act.epoch) for m in self._mended):
            raise ActRefused(reason="this member has mended it in this epoch already")

    def _check_join(self, author: MemberId, act: Join, since_ns: int) -> None:
        if act.card.member != author:
            raise ActRefused(reason="the card is not the author's")
        member = self._members.get(author)
        if member is not None and act.role >= member.role:
            raise ActRefused(reason="a member joins again for a higher role only")
        if self._waiting(author, since_ns) is not None:
            raise ActRefused(reason="a join of this member waits for votes already")
        if member is not None:
            return  # members have one each, whatever strangers do
        waiting = [join.time_ns for one, join in self._joins.items() if one not in self._members]
        if sum(time_ns >= since_ns for time_ns in (*waiting, *self._taken_back)) >= MEMBERS_MAX:
            raise ActRefused(reason="too many joins wait for votes, or were taken back lately")

    def _check_vote(self, author: MemberId, act: Accept | Kick | ChangePolicy, since_ns: int) -> None:
        match act:
            case Accept():
                join = self._waiting(act.member, since_ns)
                if join is None:
                    raise ActRefused(reason="no join of this member waits for votes")
                if join.role is not act.role:
                    raise ActRefused(reason=f"the join asks for the role {join.role.name.lower()}")
                if act.member not in self._members and len(self._members) >= MEMBERS_MAX:
                    raise ActRefused(reason=f"the volume has {MEMBERS_MAX} members")
                if not act.grant.fits(act.role):
                    raise GrantsWrong(reason="not the keys of the role")
            case Kick():
                if act.member not in self._members:
                    raise ActRefused(reason="there is no such member to remove")
                if act.member == author:
                    raise ActRefused(reason="nobody removes himself by a vote; he leaves")
                self._check_rotation(act.rotation, without=act.member)
            case ChangePolicy():
                if act.policy == self.policy:
                    raise ActRefused(reason="this policy is in force")
        if self._ballots.has(_subject(act), author, since_ns):
            raise ActRefused(reason="this owner has voted for it already")

    def _check_rotation(self, rotation: Rotation, without: MemberId | None) -> None:
        """Raise GrantsWrong unless it grants to each remaining member what his role gets."""
        if [grant.member for grant in rotation.grants] != sorted(self._members.keys() - {without}):
            raise GrantsWrong(reason="other members than the remaining ones")
        if not all(grant.fits(self._members[grant.member].role) for grant in rotation.grants):
            raise GrantsWrong(reason="not the keys of the role")

    # --- effects, of what was checked -----------------------------------------------------------

    def _found(self, signed: SignedEntry, act: Found) -> None:
        founder = act.card.member
        self.volume, self.name, self._policy = volume_id(signed.signed), act.name, act.policy
        self._members[founder] = Member(act.card, Role.OWNER, 0)
        self._epochs.append(EpochStart(0, act.commitment))
        self._grants[founder] = act.grants

    def _apply(self, author: MemberId, act: Act, index: int) -> None:
        match act:
            case Join(card, role, note):
                self._forget_expired_joins()
                self._joins[author] = PendingJoin(card, role, note, index, self.time_ns)
            case Leave():
                # Else one who comes and goes could make the log as long as he likes.
                if author not in self._members:
                    self._taken_back += (self._joins[author].time_ns,)
                self._forget_join(author)
                if self._members.pop(author, None) is not None:
                    self._ballots.close(Removal(author))
                    self._ballots.drop(author)
                    self._grants.pop(author, None)
                    self.rotation_due = True
            case Rotate(rotation):
                self._begin_epoch(rotation, index)
            case Mend(epoch, read, verify):
                self._mended += (Mended(author, self.epoch, epoch, read, verify),)
            case Accept() | Kick() | ChangePolicy():
                self._vote(author, act, index)
            case Report(urgent):
                self._reports[author, urgent] = Reported(index, author, self.time_ns, urgent)
            case Prune():
                self._prunes += (Pruned(index, author, act, dict(self._rules)),)
            case Retain(inode, keep_s):
                self.ruled = index + 1
                self._rules.pop(inode, None)
                if keep_s is not None:
                    self._rules[inode] = Rule(index, keep_s)
            case Hold(inode, on):
                self.ruled = index + 1
                self._holds.pop(inode, None)
                if on:
                    self._holds[inode] = Held(index, author)

    def _vote(self, author: MemberId, act: Accept | Kick | ChangePolicy, index: int) -> None:
        subject = _subject(act)
        grant = act.grant if isinstance(act, Accept) else None
        self._ballots.cast(subject, Vote(author, self.time_ns, grant))
        votes = self._ballots.counting(subject, self._since_ns(self.time_ns))
        if len(votes) < self.policy.quorum.votes(self._owners()):
            return
        match act:
            case Accept(member, role):
                before = self._members.get(member)
                since = index if before is None else before.since
                self._members[member] = Member(self._joins[member].card, role, since)
                granted = tuple(vote.grant for vote in votes if vote.grant is not None)
                self._grants[member] = granted + self._grants.get(member, ())
                self._forget_join(member)
            case Kick(member, rotation):
                del self._members[member]
                self._forget_join(member)
                self._begin_epoch(rotation, index)
            case ChangePolicy(policy):
                self._forget_expired_joins()  # by the old policy: what has expired never counts again
                self._policy = policy
                self._ballots.clear()

    def _begin_epoch(self, rotation: Rotation, index: int) -> None:
        self.epoch += 1
        self.rotation_due = False
        self._epochs.append(
            EpochStart(index, rotation.commitment, rotation.chain_read, rotation.chain_verify)
        )
        self._grants = {grant.member: (grant,) for grant in rotation.grants}
        self._ballots.clear()

    def _forget_join(self, member: MemberId) -> None:
        """With the votes for it: they are for this join and for no later one."""
        if self._joins.pop(member, None) is not None:
            self._ballots.close(*(Acceptance(member, role) for role in Role))

    def _forget_expired_joins(self) -> None:
        since_ns = self._since_ns(self.time_ns)
        for member in [member for member, join in self._joins.items() if join.time_ns < since_ns]:
            self._forget_join(member)
        self._taken_back = tuple(time_ns for time_ns in self._taken_back if time_ns >= since_ns)

    def _waiting(self, member: MemberId, since_ns: int) -> PendingJoin | None:
        join = self._joins.get(member)
        return None if join is None or join.time_ns < since_ns else join

    def _owners(self) -> int:
        return sum(member.role is Role.OWNER for member in self._members.values())

    def _since_ns(self, now_ns: int) -> int:
        """What is older than this has expired."""
        return now_ns - self.policy.vote_lifetime_s * _SECOND_NS


def _subject(act: Accept | Kick | ChangePolicy) -> Subject:
    match act:
        case Accept(member, role):
            return Acceptance(member, role)
        case Kick(member):
            return Removal(member)
        case ChangePolicy(policy):
            return policy


def _forbidden(role: Role | None, act: str) -> RoleForbids:
    return RoleForbids(role="none" if role is None else role.name.lower(), act=act)
