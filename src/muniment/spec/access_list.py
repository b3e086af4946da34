"""POSIX access lists as Linux keeps them in two attributes (docs/spec/attributes.md section 1).

Who has a right is decided by the kernel, or whoever else serves the tree.  Here is what keeps a list, the
mode of its file and the lists of what is made in a folder in step.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from muniment.errors import MalformedRecord

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
"""Of a folder: what is made in it begins with this."""

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_NOBODY: Final = 0xFFFF_FFFF


class Who(enum.IntEnum):
    """Whose rights an entry tells, in the order in which entries stand."""

    OWNER = 0x01
    USER = 0x02
    OWNING_GROUP = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHERS = 0x20


_NAMED: Final = (Who.USER, Who.GROUP)


class AccessEntry(NamedTuple):
    """Rights: 4 read, 2 write, 1 execute.

    Attributes:
        id: of a user or group; all bits set for the others.
    """

    who: Who
    rights: int
    id: int = _NOBODY


@dataclass(frozen=True, slots=True)
class AccessList:
    """See the module."""

    entries: tuple[AccessEntry, ...]

    @classmethod
    def load(cls, value: bytes) -> Self:
        """Read an attribute.  Raises: MalformedRecord: it is no list that Linux would take."""
        body = value[_HEADER.size :]
        if len(value) < _HEADER.size or _HEADER.unpack_from(value) != (_VERSION,) or len(body) % _ENTRY.size:
            raise _malformed("not a list")
        try:
            entries = tuple(
                AccessEntry(Who(tag), rights, id_) for tag, rights, id_ in _ENTRY.iter_unpack(body)
            )
        except ValueError as error:
            raise _malformed("rights of nobody that there is") from error
        order = [one.who for one in entries]
        for who in (Who.OWNER, Who.OWNING_GROUP, Who.OTHERS):
            if order.count(who) != 1:
                raise _malformed("rights that a mode would have are missing")
        has_names = any(who in order for who in _NAMED)
        if order != sorted(order) or order.count(Who.MASK) not in ((1,) if has_names else (0, 1)):
            raise _malformed("entries out of order, or without a mask")
        if any(one.rights > 7 or (one.who in _NAMED and one.id == _NOBODY) for one in entries):
            raise _malformed("rights that there are none of, or of nobody")
        return cls(entries)

    def dump(self) -> bytes:
        """As an attribute."""
        entries = (_ENTRY.pack(one.who, one.rights, one.id) for one in self.entries)
        return _HEADER.pack(_VERSION) + b"".join(entries)

    @property
    def is_mode(self) -> bool:
        """Whether a mode says the same."""
        return len(self.entries) == len(_CLASSES)

    @property
    def permissions(self) -> int:
        """What a mode shows of it: of the group's rights, the mask if there is one."""
        rights = {one.who: one.rights for one in self.entries}
        group = rights.get(Who.MASK, rights[Who.OWNING_GROUP])
        return rights[Who.OWNER] << 6 | group << 3 | rights[Who.OTHERS]

    def with_permissions(self, mode: int) -> AccessList:
        """What `chmod` makes of it."""
        group = Who.OWNING_GROUP if all(one.who is not Who.MASK for one in self.entries) else Who.MASK
        rights = {Who.OWNER: mode >> 6 & 7, group: mode >> 3 & 7, Who.OTHERS: mode & 7}
        return AccessList(tuple(one._replace(rights=rights.get(one.who, one.rights)) for one in self.entries))


_CLASSES: Final = (Who.OWNER, Who.OWNING_GROUP, Who.OTHERS)


def beginning(
    above: Mapping[bytes, bytes], mode: int, umask: int, *, is_folder: bool
) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
    """Mode and attributes with which something is made: by the folder's default list, else by the umask.

    Args:
        above: the attributes of the folder it is made in; a default list that does not load is none.
        mode: as its maker wants it.
    """
    try:
        default = AccessList.load(above[DEFAULT])
    except (KeyError, MalformedRecord):
        return mode & ~umask, ()
    access = default.with_permissions(default.permissions & mode)
    lists = [] if access.is_mode else [(ACCESS, access.dump())]
    if is_folder:
        lists.append((DEFAULT, above[DEFAULT]))
    return mode & ~0o777 | access.permissions, tuple(lists)


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format="access list", reason=reason)
