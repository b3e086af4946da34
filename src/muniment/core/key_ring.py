"""The keys a member has: those granted to him and, by the chain or what mends it, all before.

    granted in epoch p -> keys p -> chain -> keys p - 1 -> ...
                                 -> mended by somebody -> keys of an epoch further back

No way is trusted: every key that comes out of one is checked against the log's commitment to its epoch.
Source: docs/spec/entry.md section 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from muniment.core.keys import EpochKeys, open_chain, open_grant, open_mended
from muniment.core.membership import EpochStart, Membership, Mended
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.errors import MalformedRecord, NotCapable
from muniment.spec.act import Grant
from muniment.spec.entry import NO_VOLUME

_CHAIN: Final = None
"""In place of a `Mended`: the link to the epoch before that every rotation has."""

_Way = Mended | None


class KeyRing:
    """The keys of all epochs that a member can open: those granted to him and, by the chain, all before.

    Follows a `Membership`: call `follow` after acts were admitted (it is cheap when nothing is new).  What
    was opened stays, so a member who is removed keeps what he had, and gets nothing more.

    Args:
        secret: of the member; with a VerifySecret the ring has verify keys only.
    """

    def __init__(self, secret: ReadSecret | VerifySecret) -> None:
        self._secret = secret
        self._keys: dict[int, EpochKeys] = {}
        self._starts: tuple[EpochStart, ...] = ()
        self._granted: tuple[Grant, ...] = ()
        self._volume = NO_VOLUME
        self._mended: tuple[Mended, ...] = ()
        self._ways: dict[int, list[_Way]] = {}
        self._tried: set[tuple[int, _Way]] = set()
        self._refusal: MalformedRecord | None = None

    def __repr__(self) -> str:
        return f"<KeyRing of {self._secret!r}, epochs {sorted(self._keys)}>"

    def copy(self) -> KeyRing:
        """An independent copy: to follow entries of which some may be refused."""
        other = KeyRing(self._secret)
        other.__dict__.update(self.__dict__)
        other._keys, other._tried = dict(self._keys), set(self._tried)
        return other

    @property
    def newest(self) -> EpochKeys | None:
        """Of the latest epoch that was granted and opened; None if none was."""
        return self._keys[max(self._keys)] if self._keys else None

    @property
    def refusal(self) -> MalformedRecord | None:
        """Why keys of the present epoch are missing that were granted: they were granted wrongly."""
        return self._refusal

    def follow(self, membership: Membership) -> None:
        """Take what the present state grants to the member.  Never raises: see `refusal`."""
        granted = membership.grants_of(self._secret.member)
        if membership.mended is not self._mended:
            self._mended, self._ways = membership.mended, {}
        if len(self._starts) == membership.epoch + 1 and granted is self._granted:
            return
        self._starts, self._granted, self._refusal = membership.epochs, granted, None
        self._volume, self._ways = membership.volume, {}
        if not granted:
            return
        epoch, member = membership.epoch, membership.members[self._secret.member]
        reads = isinstance(self._secret, ReadSecret) and member.role.reads
        # What was granted in the founding entry, before the volume had a name, says so.
        volume = NO_VOLUME if epoch == member.since == 0 else membership.volume
        for one in granted:
            try:
                keys = open_grant(volume, epoch, self._starts[epoch].commitment, one, self._secret)
            except NotCapable:
                continue
            except MalformedRecord as error:
                self._refusal = error
                continue
            self._hold(keys)
            if keys.read is not None or not reads:
                self._refusal = None
                return

    def keys(self, epoch: int) -> EpochKeys:
        """Of this epoch.

        Raises: NotCapable: neither it nor a later one was granted to the member, or somebody who rotated the
            keys broke the chain in between, and nobody has mended it yet.
        Cost: one step for each later epoch, the first time.
        """
        if epoch not in self._keys:
            for newer in range(max(self._keys, default=0), epoch, -1):
                self._go_back(newer)
                if epoch in self._keys:
                    break
            else:
                raise self._not_capable(epoch)
        return self._keys[epoch]

    def broken(self) -> Iterator[EpochKeys]:
        """Keys that are here, and that one who is granted the present epoch's would not reach.

        All of them are within reach when those that are given are mended; none are given to one who has not
        both keys of the present epoch himself.
        Cost: one step for each epoch and each that was mended.
        """
        present = len(self._starts) - 1
        newest = self._keys.get(present)
        if newest is None or newest.read is None:
            return
        reads, verifies = {present}, {present}
        for epoch in range(present, -1, -1):
            try:
                keys = self.keys(epoch)
            except NotCapable:
                continue
            if keys.read is None:
                continue
            if epoch not in reads or epoch not in verifies:
                yield keys
                reads.add(epoch)
                verifies.add(epoch)
            for way in self._ways_from(epoch):
                older = epoch - 1 if way is _CHAIN else way.epoch
                if older not in reads and self._opens(keys, way):
                    reads.add(older)
                if older not in verifies and self._opens(EpochKeys(epoch, keys.verify), way):
                    verifies.add(older)

    def _go_back(self, newer: int) -> None:
        """Take the keys of earlier epochs that those of this one open."""
        if newer not in self._keys:
            return
        for way in self._ways_from(newer):
            older = newer - 1 if way is _CHAIN else way.epoch
            if older in self._keys or (newer, way) in self._tried:
                continue
            self._tried.add((newer, way))
            keys = self._opens(self._keys[newer], way)
            if keys is not None:
                self._keys[older] = keys

    def _opens(self, newer: EpochKeys, way: _Way) -> EpochKeys | None:
        try:
            if way is _CHAIN:
                before = self._starts[newer.epoch - 1].commitment
                return open_chain(newer, self._starts[newer.epoch], before)
            return open_mended(self._volume, newer, way, self._starts[way.epoch].commitment)
        except MalformedRecord:
            return None

    def _ways_from(self, newer: int) -> list[_Way]:
        if not self._ways:
            ways: defaultdict[int, list[_Way]] = defaultdict(list)
            for epoch in range(1, len(self._starts)):
                ways[epoch].append(_CHAIN)
            for mended in self._mended:
                ways[mended.under].append(mended)
            self._ways = dict(ways)
        return self._ways.get(newer, [])

    def _not_capable(self, epoch: int) -> NotCapable:
        given = f"epoch {max(self._keys)}" if self._keys else "non-member"
        return NotCapable(needed=f"epoch {epoch}", given=given)

    def _hold(self, keys: EpochKeys) -> None:
        held = self._keys.get(keys.epoch)
        if held is not None and held.read is not None:
            return
        if keys.read is not None:
            # An auditor has become a reader: the chain has the read keys of what he could only verify.
            self._keys = {epoch: old for epoch, old in self._keys.items() if old.read is not None}
            self._tried.clear()
        self._keys[keys.epoch] = keys
