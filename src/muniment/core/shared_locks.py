"""Locks across mounts: which operations change who has what, so that of two who try at once one is rejected.

A state's name is never used twice, and a transaction takes away by their names the state and the leases from
which it was planned: if anybody was faster, the fold finds one of them gone, rejects all of it, and it is
planned anew on what is there then.  Source: docs/spec/attributes.md section 2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from muniment.core.tree_state import TreeReading
from muniment.errors import MalformedRecord
from muniment.spec.lock_attributes import (
    MARK,
    STATE,
    Claim,
    Claims,
    lease_name,
    lease_of,
    pack_claims,
    unpack_claims,
)
from muniment.spec.operation import ROOT, Operation, RemoveXattr, SetXattr, XattrMode


class Held(Exception):
    """Another mount that is alive has what is wanted."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim)
        self.claim = claim


class LeaseGone(Exception):
    """Others have taken this mount for dead, and may have what it had locked."""


class NothingToDo(Exception):
    """It is so already."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mount wants to have from now on.

    Attributes:
        mount: it.
        is_alive: it has a lease, as far as it knows.
        stays: it has locks then, and so needs a lease.
        inode: of the volume, whose locks change; 0: none do.
        claims: all that it has locked of that then.
        expired: names of leases that ran out.
        nonce: never used before.
    """

    mount: bytes
    is_alive: bool
    stays: bool
    inode: int
    claims: Claims
    expired: Collection[bytes]
    nonce: bytes


def leases(state: TreeReading) -> dict[bytes, tuple[bytes, int]]:
    """Name and count of each mount's lease."""
    found = {}
    for name in state.xattrs(ROOT):
        lease = lease_of(name)
        if lease is not None:
            found[lease[0]] = name, lease[1]
    return found


def claims_on(attributes: Mapping[bytes, bytes], mounts: Collection[bytes]) -> dict[bytes, Claims]:
    """What these mounts have locked of a file; a state that cannot be read is none."""
    found: dict[bytes, Claims] = {}
    for name, value in attributes.items():
        if name.startswith(STATE):
            try:
                found |= unpack_claims(value)
            except MalformedRecord:
                continue
    return {mount: held for mount, held in found.items() if mount in mounts}


def in_the_way(wanted: Claims, others: Iterable[Claims]) -> Claim | None:
    """One of the others' that conflicts with one of these."""
    pairs = ((mine, theirs) for held in others for theirs in held for mine in wanted)
    return next((theirs for mine, theirs in pairs if mine.conflicts(theirs)), None)


def plan(state: TreeReading, wanted: Wanted) -> list[Operation]:
    """What makes it so; each plan is a transaction of its own, or part of one.

    Raises: Held; LeaseGone; NothingToDo.
    """
    alive = leases(state)
    mine = alive.pop(wanted.mount, None)
    if mine is None and wanted.is_alive:
        raise LeaseGone
    gone = [name for name, _ in alive.values() if name in wanted.expired]
    operations: list[Operation] = [RemoveXattr(ROOT, name) for name in gone]
    if wanted.inode and state.inode(wanted.inode) is not None:
        mounts = {mount for mount, (name, _) in alive.items() if name not in wanted.expired}
        operations += _locks(state.xattrs(wanted.inode), mounts, wanted)
    if mine is not None:
        operations.append(RemoveXattr(ROOT, mine[0]))
    if wanted.stays:
        count = 0 if mine is None else mine[1] + 1
        operations.append(SetXattr(ROOT, lease_name(wanted.mount, count), b"", XattrMode.NEW))
    if not operations:
        raise NothingToDo
    return operations


def _locks(attributes: Mapping[bytes, bytes], mounts: Collection[bytes], wanted: Wanted) -> list[Operation]:
    claims, inode = claims_on(attributes, mounts), wanted.inode
    blocker = in_the_way(wanted.claims, claims.values())
    if blocker is not None:
        raise Held(blocker)
    if wanted.claims:
        claims[wanted.mount] = wanted.claims
    operations: list[Operation] = [RemoveXattr(inode, name) for name in attributes if name.startswith(STATE)]
    if claims:
        if MARK not in attributes:
            operations.append(SetXattr(inode, MARK, b"", XattrMode.NEW))
        name = STATE + wanted.nonce.hex().encode()
        operations.append(SetXattr(inode, name, pack_claims(claims), XattrMode.NEW))
    elif MARK in attributes:
        operations.append(RemoveXattr(inode, MARK))
    return operations
