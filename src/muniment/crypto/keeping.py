"""The accounts under which a member keeps a volume: derived from the verify right, one for each volume.

So they can be rebuilt from a volume capability alone, and a member who was removed has no hold on those of
others (docs/keeping.md section 3).
"""

from __future__ import annotations

from muniment.crypto.hashing import derive
from muniment.crypto.identity import Identity
from muniment.crypto.member import VerifySecret
from muniment.ids import VolumeId
from muniment.spec.tags import ARCHIVE_ACCOUNT, ARCHIVE_SECRET, KEEPER_ACCOUNT


def keeper_account(secret: VerifySecret, volume: VolumeId) -> Identity:
    """Owns the leases on the shares of a volume's blobs; it signs requests to nodes and nothing else."""
    return Identity.from_seed(derive(KEEPER_ACCOUNT, secret.seed, volume))


def archive_account(secret: VerifySecret, volume: VolumeId) -> Identity:
    """Owns the tiles of the volume's log on the grid, and only those, so that its list is theirs."""
    return Identity.from_seed(derive(ARCHIVE_ACCOUNT, secret.seed, volume))


def archive_secret(secret: VerifySecret, volume: VolumeId) -> bytes:
    """Opens those tiles (docs/spec/archive.md section 2); whoever learns the account's key has not got it."""
    return derive(ARCHIVE_SECRET, secret.seed, volume)
