"""A volume as a user has it: what is remembered of it, what is held of it, and it in use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.crypto.member import MemberSecret, ReadSecret, VerifySecret
from muniment.engine.members import Members
from muniment.engine.volume import Volume
from muniment.ids import VolumeId
from muniment.spec.volume_cap import Right

LOCAL: Final = "local"
"""Instead of a log service's address: this machine orders the log itself."""

Holding = MemberSecret | ReadSecret | VerifySecret
"""What a user holds of a volume."""


@dataclass(frozen=True, slots=True)
class KnownVolume:
    """A volume that a home remembers.

    Attributes:
        volume: which one.
        name: the user's own for it.
        log: address of the log service, or LOCAL.
        log_key: Ed25519 key that signs its checkpoints.
        folder: with its files.
        former_log_keys: of services that had the log before.
    """

    volume: VolumeId
    name: str
    log: str
    log_key: bytes
    folder: Path
    former_log_keys: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """A volume in use.

    Attributes:
        known: what the home remembers of it.
        held: the user's secret for it.
        volume: follows the log; synced once.
        members: acts of membership.
    """

    known: KnownVolume
    held: Holding
    volume: Volume
    members: Members


def verify_secret_of(held: Holding) -> VerifySecret:
    """The verify right of whatever is held."""
    match held:
        case MemberSecret() | ReadSecret():
            return held.verify
        case VerifySecret():
            return held


def right_of(held: Holding) -> Right:
    """What a secret grants."""
    match held:
        case MemberSecret():
            return Right.WRITE
        case ReadSecret():
            return Right.READ
        case VerifySecret():
            return Right.VERIFY
