"""Challenges: which shares are proven in a round, and with which leaf (docs/keeping.md section 4).

Everything follows from a seed that nobody knew before the checkpoint it comes from, and that everybody can
compute from then on: a node cannot prepare for a challenge, and a keeper cannot choose an easy one.

Source: sampling as in G. Ateniese et al., "Provable data possession at untrusted stores" (2007): a node that
lost a part p of its leaves passes c independent challenges with probability (1 - p)^c.  The proof is the leaf
and its path instead of a homomorphic tag, so it needs no key and no state, and there is no end to them.
"""

from __future__ import annotations

from muniment.crypto.hashing import derive
from muniment.ids import BlobId, MemberId, ShareKey, VolumeId
from muniment.spec.tags import CHALLENGE, CHALLENGE_BLOB, CHALLENGE_LEAF

_DRAW_BYTES = 8


def challenge_seed(volume: VolumeId, root: bytes, round_number: int, auditor: MemberId) -> bytes:
    """The 32 bytes from which all challenges of one round are drawn.

    Args:
        root: of the checkpoint that the round is bound to, 32 bytes.
        round_number: counts the rounds under that checkpoint, from 0.
        auditor: whose round it is.
    """
    return derive(CHALLENGE, volume, root, round_number.to_bytes(8, "big"), auditor)


def is_sampled(seed: bytes, blob: BlobId, one_in: int) -> bool:
    """Whether a blob belongs to the round's sample of one in so many; at 1 all do.  Cost: one hash."""
    return one_in <= 1 or _drawn(CHALLENGE_BLOB, seed, blob, below=one_in) == 0


def challenged_leaf(seed: bytes, share: ShareKey, leaf_count: int, draw: int = 0) -> int:
    """The leaf of this share that is to be proven, uniform in 0 to leaf_count - 1.

    Args:
        draw: counts the leaves asked for of one share in one round.
    """
    number = share.number.to_bytes(2, "big") + draw.to_bytes(4, "big")
    return _drawn(CHALLENGE_LEAF, seed, share.blob + number, below=leaf_count)


def detection(lost: float, challenges: int) -> float:
    """How likely so many challenges find a node that lost this part of its leaves."""
    return 1.0 - (1.0 - lost) ** challenges


def _drawn(context: str, seed: bytes, what: bytes, *, below: int) -> int:
    """A number from 0 to below - 1, all equally likely: a draw that would favour small ones is repeated."""
    span = 1 << (8 * _DRAW_BYTES)
    fair = span - span % below
    attempt = 0
    while True:
        hashed = derive(context, seed, what, attempt.to_bytes(4, "big"))
        number = int.from_bytes(hashed[:_DRAW_BYTES], "big")
        if number < fair:
            return number % below
        attempt += 1
