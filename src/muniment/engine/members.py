"""Acts of members: founding a volume, joining, voting, leaving (docs/spec/entry.md section 3)."""

from __future__ import annotations

from muniment.core.entries import Place
from muniment.core.keys import founding, grant, rotation
from muniment.core.membership import Membership
from muniment.crypto.entries import sign_entry
from muniment.crypto.member import MemberSecret
from muniment.engine.volume import ActPlan, Committed, Volume
from muniment.errors import InvalidRequest
from muniment.ids import MemberId, id_text
from muniment.merkle.log_tree import EMPTY_ROOT
from muniment.ports import Clock, Entropy
from muniment.spec.act import (
    Accept,
    Act,
    ChangePolicy,
    Join,
    Kick,
    Leave,
    Role,
    Rotate,
    VolumePolicy,
)
from muniment.spec.checkpoint import Checkpoint
from muniment.spec.entry import NO_ENTRY, NO_VOLUME, Entry


def founding_entry(
    founder: MemberSecret,
    name: str,
    own_name: str,
    policy: VolumePolicy,
    clock: Clock,
    entropy: Entropy,
) -> bytes:
    """The signed first entry of a new volume.

    Args:
        name: of the volume.
        own_name: of the founder, on his card.
    """
    act, _ = founding(name, policy, founder.card(own_name), entropy)
    time_ns = int(clock.now_s() * 1e9)
    entry = Entry(NO_VOLUME, 0, founder.member, 0, NO_ENTRY, 0, EMPTY_ROOT, time_ns, act)
    return sign_entry(founder.identity, entry)


def join_entry(
    membership: Membership,
    checkpoint: Checkpoint,
    secret: MemberSecret,
    own_name: str,
    role: Role,
    note: str,
    clock: Clock,
) -> bytes:
    """The signed wish to join of one who does not follow the log.

    Args:
        membership: at the end of the log that `checkpoint` is of, by its clear part.
        own_name: on his card.
    """
    place = Place.next(
        membership,
        secret.member,
        seen_size=checkpoint.size,
        seen_root=checkpoint.root,
        now_ns=int(clock.now_s() * 1e9),
    )
    return sign_entry(secret.identity, place.entry(Join(secret.card(own_name), role, note)))


class Members:
    """A member's acts in one volume.

    Args:
        volume: follows its log; synced by the caller.
        entropy: for keys.
    """

    def __init__(self, volume: Volume, entropy: Entropy) -> None:
        self._volume = volume
        self._entropy = entropy

    async def join(self, secret: MemberSecret, name: str, role: Role, note: str = "") -> Committed:
        """Ask for membership.  Raises: EntryRefused: he is a member, or waits already."""
        return await self._volume.act(lambda _: Join(secret.card(name), role, note))

    async def accept(self, member: MemberId, role: Role | None = None) -> Committed:
        """Vote for a join, for the role asked for unless another is named.

        Raises: InvalidRequest: nobody such waits; EntryRefused: no owner, or voted already.
        """

        def plan(state: Membership) -> Act:
            waiting = state.joins().get(member)
            if waiting is None:
                raise InvalidRequest(reason=f"{id_text(member)[:12]} does not wait for membership")
            chosen = role or waiting.role
            keys = self._volume.newest_keys()
            return Accept(member, chosen, grant(state.volume, keys, waiting.card, chosen))

        return await self._volume.act(plan)

    async def kick(self, member: MemberId) -> Committed:
        """Vote for a removal.  Raises: EntryRefused: no owner, no such member, or voted already."""

        def plan(state: Membership) -> Act:
            fresh, _ = rotation(state, self._volume.keys_to_rotate(), self._entropy, without=member)
            return Kick(member, fresh)

        return await self._volume.act(plan)

    async def leave(self) -> Committed:
        """End one's own membership.  Raises: EntryRefused: the last owner while there are others."""
        return await self._volume.act(_always(Leave()))

    async def rotate(self) -> Committed:
        """Begin a new epoch.  Raises: EntryRefused: no owner."""

        def plan(state: Membership) -> Act:
            fresh, _ = rotation(state, self._volume.keys_to_rotate(), self._entropy)
            return Rotate(fresh)

        return await self._volume.act(plan)

    async def change_policy(self, policy: VolumePolicy) -> Committed:
        """Vote for a policy.  Raises: EntryRefused: no owner, or voted already."""
        return await self._volume.act(_always(ChangePolicy(policy)))


def _always(act: Act) -> ActPlan:
    return lambda _: act
