"""Entries of named members, really signed, given to a real fold; the wrapped keys in them are only shaped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from muniment.core.membership import Membership
from muniment.crypto.entries import SignedEntry, open_entry, sign_entry
from muniment.crypto.hashing import derive
from muniment.crypto.member import MemberSecret
from muniment.ids import MemberId
from muniment.spec.act import (
    CHAIN_BYTES,
    COMMITMENT_BYTES,
    WRAPPED_BYTES,
    Accept,
    Act,
    Card,
    ChangePolicy,
    Found,
    Grant,
    Join,
    Kick,
    Leave,
    Quorum,
    Role,
    Rotate,
    Rotation,
    VolumePolicy,
    statement_bytes_max,
)
from muniment.spec.entry import NO_VOLUME, Entry

START_NS = 1_800_000_000 * 10**9
SECOND_NS = 10**9
POLICY = VolumePolicy(Quorum.ONE, 3600, "4/6", 5, 1 << 22)
EMPTY_ROOT = bytes(32)


def policy(quorum: Quorum = Quorum.ONE, lifetime_s: int = 3600) -> VolumePolicy:
    return dataclasses.replace(POLICY, quorum=quorum, vote_lifetime_s=lifetime_s)


def secret(name: str) -> MemberSecret:
    return MemberSecret(derive("tests of membership", name.encode()))


def shaped_grant(member: MemberId, role: Role) -> Grant:
    read, verify = (bytes(WRAPPED_BYTES) if has else b"" for has in (role.reads, role.verifies))
    return Grant(member, read, verify)


def shaped_rotation(members: Iterable[tuple[MemberId, Role]]) -> Rotation:
    grants = tuple(shaped_grant(member, role) for member, role in sorted(members))
    return Rotation(grants, bytes(COMMITMENT_BYTES), bytes(CHAIN_BYTES), bytes(CHAIN_BYTES))


class Volume:
    """A volume founded by "anna"; members are known by name.

    Attributes:
        state: the fold.
        now_ns: the time of entries that say no other.
    """

    def __init__(self, quorum: Quorum = Quorum.ONE, lifetime_s: int = 3600) -> None:
        self.state = Membership()
        self.now_ns = START_NS
        self.secrets: dict[str, MemberSecret] = {}
        self.log: list[SignedEntry] = []
        self.submit("anna", self.found(quorum, lifetime_s))

    # --- who ----------------------------------------------------------------------------------

    def secret(self, name: str) -> MemberSecret:
        if name not in self.secrets:
            self.secrets[name] = secret(name)
        return self.secrets[name]

    def id(self, name: str) -> MemberId:
        return self.secret(name).member

    def card(self, name: str) -> Card:
        return self.secret(name).card(name)

    def names(self) -> set[str]:
        return {member.card.name for member in self.state.members.values()}

    # --- acts ---------------------------------------------------------------------------------

    def found(self, quorum: Quorum = Quorum.ONE, lifetime_s: int = 3600) -> Found:
        grants = (shaped_grant(self.id("anna"), Role.OWNER),)
        return Found(
            "books", bytes(16), policy(quorum, lifetime_s), self.card("anna"), bytes(COMMITMENT_BYTES), grants
        )

    def join(self, name: str, role: Role) -> Join:
        return Join(self.card(name), role, "")

    def accept(self, name: str, role: Role) -> Accept:
        return Accept(self.id(name), role, shaped_grant(self.id(name), role))

    def rotation(self, *, without: str | None = None) -> Rotation:
        gone = None if without is None else self.id(without)
        left = [(member, held.role) for member, held in self.state.members.items() if member != gone]
        return shaped_rotation(left or [(self.id("nobody"), Role.OWNER)])

    def kick(self, name: str) -> Kick:
        return Kick(self.id(name), self.rotation(without=name))

    def rotate(self) -> Rotate:
        return Rotate(self.rotation())

    # --- entries ------------------------------------------------------------------------------

    def entry(self, author: str, act: Act | None, **changes: object) -> SignedEntry:
        """What `author` would write next; an act, or a transaction (whose ciphertext nobody opens here)."""
        key = self.secret(author)
        tail = self.state.tail(key.member)
        entry = Entry(
            NO_VOLUME if isinstance(act, Found) else self.state.volume,
            self.state.epoch,
            key.member,
            tail.sequence,
            tail.previous,
            0,
            EMPTY_ROOT,
            self.now_ns,
            act,
            b"" if act is not None else b"sealed",
            b"statement" if statement_bytes_max(act) else b"",
        )
        changed = dataclasses.replace(entry, **changes)  # type: ignore[arg-type]
        return open_entry(sign_entry(key.identity, changed))

    def give(self, signed: SignedEntry) -> None:
        self.state.admit(signed, self.state.size)
        self.log.append(signed)

    def submit(self, author: str, act: Act | None, **changes: object) -> SignedEntry:
        signed = self.entry(author, act, **changes)
        self.give(signed)
        return signed

    def write(self, author: str, **changes: object) -> SignedEntry:
        return self.submit(author, None, **changes)

    def add(self, *names: str, role: Role, by: tuple[str, ...] = ("anna",)) -> None:
        """Joined and accepted by votes of `by`."""
        for name in names:
            self.submit(name, self.join(name, role))
            for owner in by:
                self.submit(owner, self.accept(name, role))

    def leave(self, name: str) -> None:
        self.submit(name, Leave())

    def change(self, author: str, quorum: Quorum, lifetime_s: int = 3600) -> None:
        self.submit(author, ChangePolicy(policy(quorum, lifetime_s)))
