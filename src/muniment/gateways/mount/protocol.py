"""What goes over /dev/fuse: numbers, layouts, and the one place where a request's bytes are taken apart.

Source: the kernel's include/uapi/linux/fuse.h, version 7.31 (Linux 5.4) to 7.38; names are those there,
without `FUSE_`.  Numbers are in the machine's own byte order.  Lengths are checked before anything is read,
and what does not fit is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from struct import Struct
from typing import Any, Final, NamedTuple

from muniment.errors import InvalidRequest

MAJOR: Final = 7
MINOR: Final = 38
MINOR_MIN: Final = 31
WRITE_BYTES_MAX: Final = 1 << 20
"""Of one request's data; a kernel allows 256 pages unless its administrator says otherwise."""
PAGES_MAX: Final = WRITE_BYTES_MAX // 4096
REQUEST_BYTES_MAX: Final = WRITE_BYTES_MAX + 4096
"""A kernel reads nothing out to a smaller buffer than a header and `max_write` need."""


class Opcode(enum.IntEnum):
    """enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    SYNCFS = 50
    TMPFILE = 51


class InitFlag(enum.IntFlag):
    """What both sides can do (fuse_init_in, fuse_init_out)."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29


class SetAttribute(enum.IntFlag):
    """FATTR_*: what a SETATTR is about."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCK_OWNER = 1 << 9
    KILL_SUIDGID = 1 << 11


NOTIFY_INVAL_INODE: Final = 2
NOTIFY_INVAL_ENTRY: Final = 3
OPEN_KEEP_CACHE: Final = 1 << 1
OPEN_KILL_SUIDGID: Final = 1 << 0
WRITE_KILL_SUIDGID: Final = 1 << 2
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
LOCK_FLOCK: Final = 1 << 0
SETXATTR_ACL_KILL_SGID: Final = 1 << 0
RENAME_NOREPLACE: Final = 1 << 0
RENAME_EXCHANGE: Final = 1 << 1

IN_HEADER: Final = Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER: Final = Struct("=IiQ")  # len error unique
INIT_IN: Final = Struct("=IIII")  # major minor max_readahead flags; more follows from 7.36 on
INIT_OUT: Final = Struct("=IIIIHHIIHHI28x")  # major ... flags max_background congestion max_write gran pages
ENTRY: Final = Struct("=QQQQII QQQqqqIIIIIIIIII")  # fuse_entry_out
ATTRIBUTES: Final = Struct("=QII QQQqqqIIIIIIIIII")  # fuse_attr_out
GETATTR: Final = Struct("=IIQ")
SETATTR: Final = Struct("=I4xQQQqqqIIII4xII4x")
FORGET: Final = Struct("=Q")
BATCH_FORGET: Final = Struct("=II")
FORGET_ONE: Final = Struct("=QQ")
MKNOD: Final = Struct("=III4x")  # mode rdev umask
MKDIR: Final = Struct("=II")  # mode umask
RENAME: Final = Struct("=Q")
RENAME2: Final = Struct("=QI4x")
LINK: Final = Struct("=Q")
OPEN: Final = Struct("=II")  # flags open_flags
CREATE: Final = Struct("=IIII")  # flags mode umask open_flags
OPEN_OUT: Final = Struct("=QI4x")
RELEASE: Final = Struct("=QIIQ")  # fh flags release_flags lock_owner
FLUSH: Final = Struct("=Q8xQ")  # fh lock_owner
READ: Final = Struct("=QQIIQI4x")  # fh offset size read_flags lock_owner flags
WRITE: Final = Struct("=QQIIQI4x")  # fh offset size write_flags lock_owner flags
WRITE_OUT: Final = Struct("=I4x")
STATFS_OUT: Final = Struct("=QQQQQIII28x")  # blocks bfree bavail files ffree bsize namelen frsize
FSYNC: Final = Struct("=QI4x")
SETXATTR: Final = Struct("=II")  # size flags
SETXATTR_EXT: Final = Struct("=III4x")  # size flags setxattr_flags
GETXATTR: Final = Struct("=I4x")
GETXATTR_OUT: Final = GETXATTR
LOCK: Final = Struct("=QQQQIII4x")  # fh owner start end type pid lk_flags
LOCK_OUT: Final = Struct("=QQII")
INTERRUPT: Final = Struct("=Q")
FALLOCATE: Final = Struct("=QQQI4x")  # fh offset length mode
LSEEK: Final = Struct("=QQI4x")  # fh offset whence
LSEEK_OUT: Final = Struct("=Q")
DIRENT: Final = Struct("=QQII")  # ino off namelen type; the name follows, padded to 8 bytes
INVAL_INODE: Final = Struct("=Qqq")
INVAL_ENTRY: Final = Struct("=QII")

Answer = tuple[bytes | bytearray | memoryview, ...]
"""What goes back behind the header, in pieces."""


class Request(NamedTuple):
    """One request of the kernel.

    Attributes:
        unique: by which it is answered.
        node: the inode it is about.
        pid: of the thread that waits for it.
        body: what stands behind the header; where it was read, so it is overwritten unless it is `kept`.
    """

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    body: memoryview

    def kept(self) -> Request:
        """The same, with a body of its own."""
        return Request(*self[:6], memoryview(bytes(self.body)))

    def fields(self, layout: Struct) -> tuple[Any, ...]:
        """The struct that it begins with.  Raises: InvalidRequest: it is too short."""
        if len(self.body) < layout.size:
            raise _malformed("it is too short", self.opcode)
        return layout.unpack_from(self.body)

    def names(self, layout: Struct | None, count: int) -> list[bytes]:
        """So many names behind that struct, each of which ends with a NUL.  Raises: InvalidRequest."""
        start = 0 if layout is None else layout.size
        names = bytes(self.body[start:]).split(b"\0")
        if len(names) <= count or any(names[count:]):
            raise _malformed(f"it has not {count} names", self.opcode)
        return names[:count]

    def data(self, start: int, size: int) -> memoryview:
        """Bytes of its body.  Raises: InvalidRequest: it has less."""
        if len(self.body) < start + size:
            raise _malformed("its data is too short", self.opcode)
        return self.body[start : start + size]


AtOnce = Callable[[Request], Answer]
InTask = Callable[[Request], Coroutine[Any, Any, Answer]]
"""What answers a request; it raises MunimentErrors."""


def request_of(received: memoryview) -> Request:
    """What one read of the device has brought.  Raises: InvalidRequest."""
    if len(received) < IN_HEADER.size:
        raise _malformed("it has no whole header", 0)
    length, opcode, unique, node, uid, gid, pid, extensions, _ = IN_HEADER.unpack_from(received)
    stop = length - 8 * extensions
    if length != len(received) or stop < IN_HEADER.size:
        raise _malformed("its length is wrong", opcode)
    return Request(opcode, unique, node, uid, gid, pid, received[IN_HEADER.size : stop])


def header(unique: int, error: int, size: int) -> bytes:
    """What stands before an answer.

    Args:
        error: an errno, positive; 0: none.
        size: bytes that follow.
    """
    return OUT_HEADER.pack(OUT_HEADER.size + size, -error, unique)


def notification(code: int, *pieces: bytes) -> bytes:
    """What tells the kernel something that it has not asked for."""
    body = b"".join(pieces)
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), code, 0) + body


def _malformed(reason: str, opcode: int) -> InvalidRequest:
    return InvalidRequest(reason=f"a request of the kernel (opcode {opcode}) makes no sense: {reason}")
