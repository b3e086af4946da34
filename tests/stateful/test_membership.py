"""The fold of membership against an oracle that keeps the whole history and counts anew each time.

Anybody tries anything in any order, well-made or spoilt in one way.  The fold must admit what the oracle
admits, refuse the rest with the oracle's leaf and without a trace, and both must agree on everything that is
visible.  The oracle follows docs/spec/entry.md section 3 to the letter and does not care what that costs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.thoroughness import times
from tests.unit.membership.support import SECOND_NS, START_NS, Volume, policy, shaped_rotation

from muniment.core.ballots import Acceptance, Removal, Subject
from muniment.core.membership import Membership
from muniment.errors import (
    ActRefused,
    AuthorChainBroken,
    EntryMisplaced,
    EntryRefused,
    EntryTimeWrong,
    EpochPassed,
    GrantsWrong,
    LastOwner,
    NotMember,
    RoleForbids,
    RotationDue,
)
from muniment.ids import EntryHash, MemberId, VolumeId
from muniment.spec.act import (
    Accept,
    Act,
    ChangePolicy,
    Grant,
    Join,
    Kick,
    Leave,
    Quorum,
    Role,
    Rotate,
    Rotation,
    VolumePolicy,
)

NAMES = ("anna", "ben", "cleo", "dora", "emil")
POLICIES = [policy(quorum, lifetime_s) for quorum in Quorum for lifetime_s in (60, 600)]
ROLES = st.sampled_from([Role.OWNER] * 3 + list(Role))
Refusal = type[EntryRefused]


@dataclass(frozen=True)
class Event:
    """An entry that was admitted, and what the world looked like when it was."""

    author: str
    act: Act | None
    log_ns: int
    epoch: int
    policy_count: int
    lifetime_ns: int
    made: str = ""
    """Who became a member, or got another role, by it."""
    removed: str = ""
    """Who is no member, or joiner, any more by it."""


class Oracle:
    """The history, and what follows from it."""

    def __init__(self, founding: VolumePolicy) -> None:
        self.history = [Event("anna", None, START_NS, 0, 0, 0, made="anna")]
        self.roles = {"anna": Role.OWNER}
        self.policy = founding
        self.policy_count = 0
        self.epoch = 0
        self.due = False

    @property
    def log_ns(self) -> int:
        return max(event.log_ns for event in self.history)

    @property
    def lifetime_ns(self) -> int:
        return self.policy.vote_lifetime_s * SECOND_NS

    def sequence(self, name: str) -> int:
        return sum(event.author == name for event in self.history)

    def join_index(self, name: str, now_ns: int) -> int | None:
        """Where the join stands of one who waits."""
        for index, event in reversed(list(enumerate(self.history))):
            if name in (event.made, event.removed):
                return None
            if event.author == name and isinstance(event.act, Join):
                later = [(each.log_ns, each.lifetime_ns) for each in self.history[index + 1 :]]
                expired = [
                    at - event.log_ns > lifetime for at, lifetime in [*later, (now_ns, self.lifetime_ns)]
                ]
                return None if any(expired) else index
        return None

    def voters(self, subject: Subject, now_ns: int, ids: dict[MemberId, str]) -> set[str]:
        """Whose votes for `subject` count."""
        since = 0
        match subject:
            case Acceptance(member):
                since = self.join_index(ids[member], now_ns) or len(self.history)
            case Removal(member):
                gone = [at for at, event in enumerate(self.history) if event.removed == ids[member]]
                since = max(gone, default=0)
        voters = set()
        for index, event in enumerate(self.history):
            if self._subject(event.act) != subject or index < since:
                continue
            left = any(later.removed == event.author for later in self.history[index:])
            same = (event.epoch, event.policy_count) == (self.epoch, self.policy_count)
            if same and not left and now_ns - event.log_ns <= self.lifetime_ns:
                voters.add(event.author)
        return {name for name in voters if self.roles.get(name) is Role.OWNER}

    def votes(self, ids: dict[MemberId, str]) -> dict[Subject, set[str]]:
        """All that count by the log's time and have not carried."""
        subjects = {self._subject(event.act) for event in self.history} - {None, self.policy}
        counts = {
            subject: self.voters(subject, self.log_ns, ids) for subject in subjects if subject is not None
        }
        return {subject: voters for subject, voters in counts.items() if voters}

    def _subject(self, act: Act | None) -> Subject | None:
        match act:
            case Accept(member, role):
                return Acceptance(member, role)
            case Kick(member):
                return Removal(member)
            case ChangePolicy(wanted):
                return wanted
        return None

    def owners(self) -> int:
        return Counter(self.roles.values())[Role.OWNER]

    # --- judging ------------------------------------------------------------------------------

    def refusal(self, author: str, act: Act | None, now_ns: int, ids: dict[MemberId, str]) -> Refusal | None:
        """Why a well-placed entry is refused; None if it is not."""
        role, waits = self.roles.get(author), self.join_index(author, now_ns) is not None
        if role is None and not isinstance(act, Join) and not (isinstance(act, Leave) and waits):
            return NotMember
        match act:
            case None if role is not None and role > Role.WRITER:
                return RoleForbids
            case None:
                return RotationDue if self.due else None
            case Join():
                lower = role is not None and act.role >= role
                return ActRefused if lower or waits or ids[act.card.member] != author else None
            case Leave():
                last = role is Role.OWNER and self.owners() == 1 and len(self.roles) > 1
                return LastOwner if last else None
            case Rotate():
                if role is not Role.OWNER and not (role is Role.WRITER and self.due):
                    return RoleForbids
                return None if self._fits(act.rotation, "", ids) else GrantsWrong
        if role is not Role.OWNER:
            return RoleForbids
        refusal = self._vote_refusal(author, act, now_ns, ids)
        if refusal is not None:
            return refusal
        subject = self._subject(act)
        assert subject is not None
        return ActRefused if author in self.voters(subject, now_ns, ids) else None

    def _vote_refusal(self, author: str, act: Act, now_ns: int, ids: dict[MemberId, str]) -> Refusal | None:
        match act:
            case Accept(member, role, granted):
                index = self.join_index(ids[member], now_ns)
                join = None if index is None else self.history[index].act
                if not isinstance(join, Join) or join.role is not role:
                    return ActRefused
                return None if self._has(granted, role) else GrantsWrong
            case Kick(member, rotation):
                if ids[member] not in self.roles or ids[member] == author:
                    return ActRefused
                return None if self._fits(rotation, ids[member], ids) else GrantsWrong
            case ChangePolicy(wanted):
                return ActRefused if wanted == self.policy else None
        return None

    def _has(self, granted: Grant, role: Role) -> bool:
        wanted = {Role.AUDITOR: (False, True), Role.WITNESS: (False, False)}.get(role, (True, True))
        return (granted.read != b"", granted.verify != b"") == wanted

    def _fits(self, rotation: Rotation, without: str, ids: dict[MemberId, str]) -> bool:
        granted = {ids[one.member]: one for one in rotation.grants}
        if granted.keys() != self.roles.keys() - {without}:
            return False
        return all(self._has(one, self.roles[name]) for name, one in granted.items())

    # --- folding ------------------------------------------------------------------------------

    def admit(self, author: str, act: Act | None, time_ns: int, ids: dict[MemberId, str]) -> None:
        event = Event(author, act, max(self.log_ns, time_ns), self.epoch, self.policy_count, self.lifetime_ns)
        self.history.append(event)
        subject = self._subject(act)
        carried = subject is not None and (
            len(self.voters(subject, event.log_ns, ids)) >= self.policy.quorum.votes(self.owners())
        )
        match act:
            case Leave():
                self.due = self.due or author in self.roles
                self.roles.pop(author, None)
                event = dataclasses.replace(event, removed=author)
            case Rotate():
                self.epoch, self.due = self.epoch + 1, False
            case Accept(member, role) if carried:
                self.roles[ids[member]] = role
                event = dataclasses.replace(event, made=ids[member])
            case Kick(member) if carried:
                del self.roles[ids[member]]
                self.epoch, self.due = self.epoch + 1, False
                event = dataclasses.replace(event, removed=ids[member])
            case ChangePolicy(wanted) if carried:
                self.policy, self.policy_count = wanted, self.policy_count + 1
        self.history[-1] = event


class MembershipModel(RuleBasedStateMachine):
    """`volume` is the fold under test, fed with real signed entries; `oracle` says what must come of them."""

    @initialize(quorum=st.sampled_from(Quorum), lifetime_s=st.sampled_from([60, 600]))
    def begin(self, quorum: Quorum, lifetime_s: int) -> None:
        self.volume = Volume(quorum, lifetime_s)
        self.oracle = Oracle(policy(quorum, lifetime_s))
        self.ids = {self.volume.id(name): name for name in (*NAMES, "nobody")}

    def attempt(self, author: str, act: Act | None, behind_s: int = 0) -> None:
        """A well-placed entry, whose time is somewhat behind."""
        time_ns = self.volume.now_ns - behind_s * SECOND_NS
        expected = self.oracle.refusal(author, act, max(self.oracle.log_ns, time_ns), self.ids)
        if self.oracle.log_ns - time_ns > 240 * SECOND_NS and expected is not NotMember:
            expected = EntryTimeWrong
        self.give(author, act, expected, time_ns=time_ns)

    def give(self, author: str, act: Act | None, expected: Refusal | None, **changes: object) -> None:
        signed = self.volume.entry(author, act, **changes)
        before = self.seen()
        try:
            self.volume.state.check(signed)
            checked: Refusal | None = None
        except EntryRefused as error:
            checked = type(error)
        assert self.seen() == before, "a check left a trace"
        assert checked is expected, (author, act, checked, expected)
        if expected is None:
            self.volume.give(signed)
            self.oracle.admit(author, act, signed.entry.time_ns, self.ids)

    def seen(self) -> tuple[object, ...]:
        state = self.volume.state
        return (
            state.size, state.time_ns, state.epoch, state.policy, state.rotation_due, dict(state.members),
            state.joins(), state.votes(), *(state.tail(self.volume.id(name)) for name in NAMES),
        )  # fmt: skip

    # --- everybody tries everything -------------------------------------------------------------

    def someone(self, data: st.DataObject, role: Role | None = None) -> str:
        """Mostly an owner, else a member (in the end those of `role`), else anybody."""
        roles = self.oracle.roles
        owners = sorted(name for name in roles if roles[name] is (role or Role.OWNER))
        groups = [list(NAMES), sorted(roles), owners, owners, owners]
        return data.draw(st.sampled_from(groups[data.draw(st.integers(0, 4))] or list(NAMES)))

    def rarely(self, data: st.DataObject) -> bool:
        return data.draw(st.integers(0, 9)) == 0

    @rule(data=st.data(), later_s=st.integers(0, 40), behind_s=st.sampled_from([0, 0, 50, 240, 241]))
    def write(self, data: st.DataObject, later_s: int, behind_s: int) -> None:
        self.volume.now_ns += later_s * SECOND_NS
        self.attempt(self.someone(data), None, behind_s)

    @rule(author=st.sampled_from(NAMES), role=ROLES, data=st.data())
    def join(self, author: str, role: Role, data: st.DataObject) -> None:
        self.attempt(author, self.volume.join("ben" if self.rarely(data) else author, role))

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def accept(self, name: str, data: st.DataObject) -> None:
        index = self.oracle.join_index(name, max(self.oracle.log_ns, self.volume.now_ns))
        join = None if index is None else self.oracle.history[index].act
        role = join.role if isinstance(join, Join) and not self.rarely(data) else Role.WRITER
        act = self.volume.accept(name, role)
        if self.rarely(data):
            act = dataclasses.replace(act, grant=dataclasses.replace(act.grant, read=b""))
        self.attempt(self.someone(data), act, data.draw(st.sampled_from([0, 0, 50])))

    @rule(everybody=st.permutations(NAMES), name=st.sampled_from(NAMES), role=ROLES)
    def join_with_all_votes(self, everybody: list[str], name: str, role: Role) -> None:
        """Otherwise there would hardly ever be five members."""
        self.attempt(name, self.volume.join(name, role))
        for owner in everybody:
            if self.oracle.roles.get(owner) is Role.OWNER:
                self.attempt(owner, self.volume.accept(name, role))

    @rule(data=st.data())
    def kick(self, data: st.DataObject) -> None:
        name = self.someone(data)
        self.attempt(self.someone(data), Kick(self.volume.id(name), self.rotation(name, data)))

    @rule(data=st.data())
    def rotate(self, data: st.DataObject) -> None:
        author = self.someone(data, Role.WRITER if self.oracle.due else None)
        self.attempt(author, Rotate(self.rotation("", data)))

    def rotation(self, without: str, data: st.DataObject) -> Rotation:
        """For those who remain, or sometimes for somebody else, or of another role."""
        roles = {name: role for name, role in self.oracle.roles.items() if name != without}
        if not roles or self.rarely(data):
            roles[data.draw(st.sampled_from([*NAMES, "nobody"]))] = data.draw(st.sampled_from(Role))
        return shaped_rotation((self.volume.id(name), role) for name, role in roles.items())

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Rarely those who can write: a volume without them is a dull one."""
        name = data.draw(st.sampled_from(NAMES))
        if self.oracle.roles.get(name, Role.WITNESS) > Role.WRITER or self.rarely(data):
            self.attempt(name, Leave())

    @rule(data=st.data(), wanted=st.sampled_from(POLICIES))
    def change_policy(self, data: st.DataObject, wanted: VolumePolicy) -> None:
        self.attempt(self.someone(data), ChangePolicy(wanted))

    @rule(data=st.data(), again=st.booleans())
    def vote_on_what_is_open(self, data: st.DataObject, *, again: bool) -> None:
        """By somebody else, or by one who has voted for it."""
        votes = self.oracle.votes(self.ids)
        if not votes:
            return
        subject = data.draw(st.sampled_from(sorted(votes, key=repr)))
        author = data.draw(st.sampled_from(sorted(votes[subject]))) if again else self.someone(data)
        match subject:
            case Acceptance(member, role):
                self.attempt(author, self.volume.accept(self.ids[member], role))
            case Removal(member):
                self.attempt(author, Kick(member, self.rotation(self.ids[member], data)))
            case _:
                self.attempt(author, ChangePolicy(subject))

    # --- and spoils it --------------------------------------------------------------------------

    @rule(data=st.data(), sort=st.sampled_from(["gap", "back", "previous", "epoch", "old"]))
    def misplace(self, data: st.DataObject, sort: str) -> None:
        author = self.someone(data)
        state, member = self.volume.state, author in self.oracle.roles
        tail = state.tail(self.volume.id(author))
        assert tail.sequence == self.oracle.sequence(author)
        previous = EntryHash(b"p" * 32)
        spoilt: dict[str, dict[str, object]] = {
            "gap": {"sequence": tail.sequence + 1, "previous": previous},
            "back": {"sequence": max(1, tail.sequence - 1), "previous": previous},
            "previous": {"sequence": max(1, tail.sequence), "previous": previous},
            "epoch": {"epoch": state.epoch + 1},
            "old": {"epoch": max(0, state.epoch - 1)},
        }
        if sort == "old" and state.epoch == 0:
            return
        leaf: Refusal = EpochPassed if sort in ("epoch", "old") else AuthorChainBroken
        self.give(author, None, leaf if member else NotMember, time_ns=state.time_ns, **spoilt[sort])

    @rule(author=st.sampled_from(NAMES), elsewhere=st.booleans())
    def misdirect(self, author: str, elsewhere: bool) -> None:
        changes: dict[str, object] = {"seen_size": self.volume.state.size + 1}
        if elsewhere:
            changes = {"volume": VolumeId(b"v" * 32)}
        self.give(author, None, EntryMisplaced, **changes)

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Any entry of the log once more, votes and foundings too."""
        signed = data.draw(st.sampled_from(self.volume.log))
        before = self.seen()
        try:
            self.volume.state.check(signed)
        except (AuthorChainBroken, NotMember, EntryMisplaced):
            assert self.seen() == before
        else:
            raise AssertionError("an entry was admitted twice")

    # --- what both see --------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "volume"):
            return
        state, oracle = self.volume.state, self.oracle
        assert {held.card.name: held.role for held in state.members.values()} == oracle.roles
        assert (state.epoch, state.rotation_due, state.policy) == (oracle.epoch, oracle.due, oracle.policy)
        assert (state.size, state.time_ns) == (len(oracle.history), oracle.log_ns)
        waiting = {name for name in NAMES if oracle.join_index(name, oracle.log_ns) is not None}
        assert {self.ids[member] for member in state.joins()} == waiting
        votes = {subject: {self.ids[voter] for voter in voters} for subject, voters in state.votes().items()}
        assert votes == oracle.votes(self.ids)
        assert not state.members or Role.OWNER in oracle.roles.values()
        assert len(state.epochs) == state.epoch + 1
        for name in NAMES:
            granted = state.grants_of(self.volume.id(name))
            assert bool(granted) == (name in oracle.roles)

    def teardown(self) -> None:
        """A copy and a replay of the log end in the same state."""
        if not hasattr(self, "volume"):
            return
        copy, log, end = self.volume.state.copy(), self.volume.log, self.seen()
        self.volume.state = copy
        assert self.seen() == end
        state = Membership()
        for index, signed in enumerate(log):
            state.admit(signed, index)
        self.volume.state = state
        assert self.seen() == end


TestMembership = MembershipModel.TestCase
TestMembership.settings = settings(max_examples=times(50), stateful_step_count=50)
