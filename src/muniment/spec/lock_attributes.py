"""Attributes in which mounts keep their locks (docs/spec/attributes.md section 2).

All attributes that begin with `OWN` are the file system's own: they change no time, and no program sees them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from muniment.errors import MalformedRecord
from muniment.spec.canonical import dump, load

OWN: Final = b"muniment."
MARK: Final = b"muniment.locks"
"""Is there as long as a state is: two who make the first one at the same time meet here."""

STATE: Final = b"muniment.locks."
"""Behind it a number that no other state has."""

MOUNT_BYTES: Final = 16
NONCE_BYTES: Final = 16
STOP_MAX: Final = 1 << 63
_VERSION: Final = 1
_FORMAT: Final = "locks"
_LEASE: Final = re.compile(rb"muniment\.lease\.([0-9a-f]{32})\.(0|[1-9][0-9]{0,17})")


class Claim(NamedTuple):
    """What a mount has locked of a file, for whichever of its programs.

    Attributes:
        whole: by `flock`; else by `fcntl`.
        exclusive: for writing; else for reading.
        start, stop: of the range.
    """

    whole: bool
    exclusive: bool
    start: int
    stop: int

    def conflicts(self, other: Claim) -> bool:
        """Whether two mounts cannot have both."""
        overlap = self.start < other.stop and other.start < self.stop
        return self.whole == other.whole and (self.exclusive or other.exclusive) and overlap


Claims = tuple[Claim, ...]


def without_own(attributes: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Those that are not the file system's own: what copies, restores and differences are about."""
    return {name: value for name, value in attributes.items() if not name.startswith(OWN)}


def lease_name(mount: bytes, count: int) -> bytes:
    """The attribute of the root by which a mount is alive, renewed so many times."""
    return b"muniment.lease.%s.%d" % (mount.hex().encode(), count)


def lease_of(name: bytes) -> tuple[bytes, int] | None:
    """Mount and count; None: it is no lease."""
    found = _LEASE.fullmatch(name)
    return None if found is None else (bytes.fromhex(found[1].decode()), int(found[2]))


def pack_claims(claims: Mapping[bytes, Claims]) -> bytes:
    """A file's locks by mount, as the value of its state."""
    rows = [
        [mount, [[int(one.whole), int(one.exclusive), one.start, one.stop] for one in held]]
        for mount, held in sorted(claims.items())
    ]
    return dump([_VERSION, rows])


def unpack_claims(value: bytes) -> dict[bytes, Claims]:
    """Read what `pack_claims` made.  Raises: MalformedRecord."""
    match load(value, format=_FORMAT):
        case [1, list(rows)]:
            found = dict(map(_record, rows))
            if len(found) == len(rows):
                return found
    raise _malformed()


def _record(row: object) -> tuple[bytes, Claims]:
    match row:
        case [bytes(mount), list(held)] if len(mount) == MOUNT_BYTES:
            return mount, tuple(map(_claim, held))
    raise _malformed()


def _claim(row: object) -> Claim:
    match row:
        case [int(whole), int(exclusive), int(start), int(stop)]:
            if {whole, exclusive} <= {0, 1} and 0 <= start < stop <= STOP_MAX:
                return Claim(bool(whole), bool(exclusive), start, stop)
    raise _malformed()


def _malformed() -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason="fields do not fit")
