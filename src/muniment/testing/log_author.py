"""A member who founds a volume and writes to its log: real signatures and keys, transactions of any bytes.

For tests of what looks at the clear part of a log only.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Self

from muniment.crypto.entries import entry_hash, sign_entry, volume_id
from muniment.crypto.hashing import derive
from muniment.crypto.member import MemberSecret
from muniment.engine.members import founding_entry
from muniment.ids import EntryHash, VolumeId
from muniment.merkle.log_tree import EMPTY_ROOT
from muniment.node.clock import SystemClock
from muniment.spec.act import Quorum, VolumePolicy
from muniment.spec.entry import NO_ENTRY, Entry

POLICY = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "4/6", 5, 1 << 22)
_CONTEXT = "muniment tests log author"


@dataclass
class LogAuthor:
    """One author of one volume.

    Attributes:
        secret: of the member.
        volume: whose log it is.
        founding: the signed first entry.
    """

    secret: MemberSecret
    volume: VolumeId
    founding: bytes
    _sequence: int = 1
    _previous: EntryHash = field(default=NO_ENTRY, repr=False)

    @classmethod
    def founder(cls, seed: int, policy: VolumePolicy = POLICY) -> Self:
        """The same for the same seed, but for the time in the first entry and the wrapped keys."""
        secret = MemberSecret(derive(_CONTEXT, b"%d" % seed))
        entropy = random.Random(seed).randbytes
        founding = founding_entry(secret, "books", f"author {seed}", policy, SystemClock(), entropy)
        return cls(secret, volume_id(founding), founding, 1, entry_hash(founding))

    def transaction(self, sealed: bytes, *, previous: EntryHash | None = None) -> bytes:
        """The author's next signed entry, unless another previous one is named, which cannot follow."""
        entry = Entry(
            self.volume,
            0,
            self.secret.member,
            self._sequence,
            previous or self._previous,
            0,
            EMPTY_ROOT,
            time.time_ns(),
            None,
            sealed,
        )
        signed = sign_entry(self.secret.identity, entry)
        if previous is None:
            self._sequence, self._previous = self._sequence + 1, entry_hash(signed)
        return signed
