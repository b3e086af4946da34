"""Requests in, answers out: the mount's calls over a file system with a real volume behind it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator

import pytest
from tests.unit.fs.support import Mounted, place
from tests.unit.mount.wire import request

from muniment.errors import MunimentError
from muniment.fs.errnos import errno_of
from muniment.gateways.mount import protocol
from muniment.gateways.mount.operations import WANTED, MountOperations
from muniment.gateways.mount.protocol import InitFlag, Opcode, SetAttribute
from muniment.spec.operation import Kind

NODE, SIZE, MODE, LINKS, UID = 6, 7, 15, 16, 17
"""Fields of a taken apart ENTRY."""


class Caller:
    """The kernel's side of the calls.

    Attributes:
        mounted: what is called.
        calls: its shell.
    """

    def __init__(self, mounted: Mounted, agreed: InitFlag) -> None:
        self.mounted = mounted
        self.calls = MountOperations(mounted.files, 1.5)
        self.calls.agree(agreed)

    async def __call__(self, opcode: int, body: bytes = b"", *, node: int = 1) -> bytes:
        asked = request(opcode, body, node=node)
        if opcode in self.calls.at_once:
            return b"".join(self.calls.at_once[opcode](asked))
        return b"".join(await self.calls.in_task[opcode](asked))

    async def refused(self, opcode: int, body: bytes = b"", *, node: int = 1) -> int:
        """The number with which a call is refused."""
        with pytest.raises(MunimentError) as told:
            await self(opcode, body, node=node)
        return errno_of(told.value)

    async def created(self, name: bytes, mode: int = 0o100644, umask: int = 0) -> tuple[int, int]:
        """Number and handle of a new file."""
        head = protocol.CREATE.pack(os.O_RDWR, mode, umask, 0)
        answer = await self(Opcode.CREATE, head + name + b"\0")
        handle, flags = protocol.OPEN_OUT.unpack(answer[128:])
        assert flags == protocol.OPEN_KEEP_CACHE
        return entry(answer[:128])[NODE], handle

    async def write(self, node: int, handle: int, data: bytes, offset: int = 0) -> int:
        head = protocol.WRITE.pack(handle, offset, len(data), 0, 0, 0)
        (written,) = protocol.WRITE_OUT.unpack(await self(Opcode.WRITE, head + data, node=node))
        return int(written)


def entry(answer: bytes) -> tuple[int, ...]:
    return protocol.ENTRY.unpack(answer)


@contextlib.asynccontextmanager
async def caller(agreed: InitFlag = WANTED) -> AsyncIterator[Caller]:
    async with place() as made:
        yield Caller(await made.mount(), agreed)


async def test_a_file_is_made_written_read_and_found() -> None:
    async with caller() as call:
        node, handle = await call.created(b"file", 0o100640)
        assert await call.write(node, handle, b"content", 3) == 7
        read = protocol.READ.pack(handle, 1, 100, 0, 0, 0)
        assert await call(Opcode.READ, read, node=node) == b"\0\0content"
        found = entry(await call(Opcode.LOOKUP, b"file\0"))
        assert (found[NODE], found[SIZE], found[MODE]) == (node, 10, stat.S_IFREG | 0o640)
        assert found[UID : UID + 2] == (1000, 100)
        assert found[:6] == (node, 0, 1, 1, 500_000_000, 500_000_000)
        attributes = protocol.ATTRIBUTES.unpack(await call(Opcode.GETATTR, bytes(16), node=node))
        assert attributes[3:] == found[6:]
        await call(Opcode.FLUSH, protocol.FLUSH.pack(handle, 0), node=node)
        await call(Opcode.RELEASE, protocol.RELEASE.pack(handle, 0, 0, 0), node=node)
        assert await call.refused(Opcode.READ, read, node=node) == errno.EBADF
        assert await call.refused(Opcode.LOOKUP, b"x" * 256 + b"\0") == errno.ENAMETOOLONG
        assert await call.refused(Opcode.LOOKUP, b"other\0", node=node) == errno.ENOTDIR


async def test_a_name_that_is_not_there_is_kept_as_long_as_one_that_is() -> None:
    async with caller() as call:
        nothing = entry(await call(Opcode.LOOKUP, b"other\0"))
        assert nothing[:6] == (0, 0, 1, 0, 500_000_000, 0)
        await call.created(b"other")
        assert entry(await call(Opcode.LOOKUP, b"other\0"))[0] != 0


async def test_a_file_begins_without_a_name_and_gets_one() -> None:
    async with caller() as call:
        head = protocol.CREATE.pack(os.O_RDWR, 0o100666, 0o022, 0)
        answer = await call(Opcode.TMPFILE, head + b"/\0")
        found, (handle, _) = entry(answer[:128]), protocol.OPEN_OUT.unpack(answer[128:])
        assert (found[MODE], found[LINKS]) == (0o100644, 0)
        node = found[NODE]
        await call.write(node, handle, b"content")
        await call(Opcode.LINK, protocol.LINK.pack(node) + b"name\0")
        assert entry(await call(Opcode.LOOKUP, b"name\0"))[LINKS] == 1
        await call(Opcode.FLUSH, protocol.FLUSH.pack(handle, 0), node=node)
        assert await call.mounted.read(node) == b"content"


async def test_the_umask_counts() -> None:
    async with caller() as call:
        node, _ = await call.created(b"file", 0o100666, 0o027)
        mode = protocol.ATTRIBUTES.unpack(await call(Opcode.GETATTR, bytes(16), node=node))[12]
        assert mode == 0o100640
        made = entry(await call(Opcode.MKDIR, protocol.MKDIR.pack(0o777, 0o077) + b"folder\0"))
        assert made[MODE] == stat.S_IFDIR | 0o700
        made = entry(await call(Opcode.MKNOD, protocol.MKNOD.pack(0o010666, 0, 0o022) + b"pipe\0"))
        assert made[MODE] == stat.S_IFIFO | 0o644


async def test_names_move_as_they_are_asked_to() -> None:
    async with caller() as call:
        one, _ = await call.created(b"one")
        two, _ = await call.created(b"two")

        def rename(flags: int, old: bytes, new: bytes) -> bytes:
            return protocol.RENAME2.pack(1, flags) + old + b"\0" + new + b"\0"

        refused = await call.refused(Opcode.RENAME2, rename(protocol.RENAME_NOREPLACE, b"one", b"two"))
        assert refused == errno.EEXIST
        assert await call.refused(Opcode.RENAME2, rename(4, b"one", b"three")) == errno.EINVAL
        await call(Opcode.RENAME2, rename(protocol.RENAME_EXCHANGE, b"one", b"two"))
        assert entry(await call(Opcode.LOOKUP, b"one\0"))[NODE] == two
        await call(Opcode.RENAME, protocol.RENAME.pack(1) + b"one\0two\0")
        assert entry(await call(Opcode.LOOKUP, b"two\0"))[NODE] == two
        assert entry(await call(Opcode.LOOKUP, b"one\0"))[0] == 0
        linked = entry(await call(Opcode.LINK, protocol.LINK.pack(two) + b"again\0"))
        assert linked[NODE] == two
        await call(Opcode.UNLINK, b"again\0")
        made = entry(await call(Opcode.SYMLINK, b"link\0to/there\0"))
        assert await call(Opcode.READLINK, node=made[NODE]) == b"to/there"
        assert one != two


async def test_a_folder_is_listed_in_parts_each_of_which_fits() -> None:
    async with caller() as call:
        names = [b"%03d" % number + b"x" * number for number in range(60)]
        for name in names:
            await call.mounted.make(name)
        await call.mounted.make(b"zfolder", kind=Kind.FOLDER)
        for opcode, skipped in ((Opcode.READDIR, 0), (Opcode.READDIRPLUS, 128)):
            (handle, _) = protocol.OPEN_OUT.unpack(await call(Opcode.OPENDIR, bytes(8)))
            found, start, room = [], 0, 1000
            while part := await call(opcode, protocol.READ.pack(handle, start, room, 0, 0, 0)):
                assert len(part) <= room
                while part:
                    node, start, length, kind = protocol.DIRENT.unpack_from(part, skipped)
                    name = part[skipped + 24 : skipped + 24 + length]
                    if skipped and name not in (b".", b".."):
                        assert entry(part[:128])[NODE] == node
                    found.append((name, kind))
                    part = part[skipped + 24 + -(-length // 8) * 8 :]
            files = [(name, stat.S_IFREG >> 12) for name in names]
            folder = stat.S_IFDIR >> 12
            assert found == [(b".", folder), (b"..", folder), *files, (b"zfolder", folder)]
            await call(Opcode.RELEASEDIR, protocol.RELEASE.pack(handle, 0, 0, 0))


async def test_what_the_kernel_was_told_is_known_until_it_forgets_it() -> None:
    async with caller() as call:
        node, handle = await call.created(b"file")
        await call(Opcode.LOOKUP, b"file\0")
        await call(Opcode.RELEASE, protocol.RELEASE.pack(handle, 0, 0, 0), node=node)
        known = call.mounted.files._handles.numbers
        await call(Opcode.FORGET, protocol.FORGET.pack(1), node=node)
        assert node in known()
        many = protocol.BATCH_FORGET.pack(1, 0) + protocol.FORGET_ONE.pack(node, 1)
        await call(Opcode.BATCH_FORGET, many, node=0)
        assert node not in known()
        short = protocol.BATCH_FORGET.pack(2, 0) + protocol.FORGET_ONE.pack(node, 1)
        assert await call.refused(Opcode.BATCH_FORGET, short, node=0) == errno.EINVAL


async def test_the_kernel_is_told_of_what_it_knows_and_nothing_else_is_remembered() -> None:
    async with place() as made:
        call, other = Caller(await made.mount(), WANTED), await made.mount()
        known, _ = await call.created(b"known")
        await call.mounted.files.sync_all()
        for name in (b"known", b"new"):
            handle, row = await other.files.create(1, name, 0o644, 0, 0, os.O_RDWR)
            await other.files.write(handle, 0, b"text")
            await other.files.fsync(handle)
            other.files.release(handle)
        await call.mounted.names()
        for changed in call.mounted.invalidated:
            call.calls.invalidate(changed)
        new = entry(await call(Opcode.LOOKUP, b"new\0"))[NODE]
        assert new == other.files._numbers.in_volume(row.inode)
        for node, keep in ((known, 0), (new, protocol.OPEN_KEEP_CACHE)):
            answer = await call(Opcode.OPEN, protocol.OPEN.pack(os.O_RDONLY, 0), node=node)
            assert protocol.OPEN_OUT.unpack(answer)[1] == keep


async def test_attributes_change_as_far_as_they_are_asked_to() -> None:
    async with caller() as call:
        node, _ = await call.created(b"file")

        async def set_(
            valid: int, *, size: int = 0, mode: int = 0, mtime: tuple[int, int] = (0, 0)
        ) -> list[int]:
            body = protocol.SETATTR.pack(valid, 0, size, 0, 0, mtime[0], 0, 0, mtime[1], 0, mode, 7, 8)
            return list(protocol.ATTRIBUTES.unpack(await call(Opcode.SETATTR, body, node=node)))

        got = await set_(SetAttribute.MODE | SetAttribute.SIZE, size=70, mode=0o104711)
        assert (got[4], got[12], got[14], got[15]) == (70, 0o104711, 1000, 100)
        got = await set_(SetAttribute.UID | SetAttribute.GID)
        assert (got[4], got[14], got[15]) == (70, 7, 8)
        got = await set_(SetAttribute.MTIME, mtime=(-5, 123))
        assert (got[7], got[10]) == (-5, 123)
        got = await set_(SetAttribute.MTIME, mtime=(1 << 60, 123))  # which no volume can have
        assert (got[7], got[10]) == divmod((1 << 63) - 1, 10**9)
        got = await set_(SetAttribute.MTIME, mtime=(-(1 << 60), 123))
        assert (got[7], got[10]) == divmod(-(1 << 63), 10**9)
        got = await set_(SetAttribute.MTIME | SetAttribute.MTIME_NOW, mtime=(-5, 123))
        assert got[7] > 1_600_000_000


def setting(name: bytes, value: bytes, flags: int = 0) -> bytes:
    return protocol.SETXATTR_EXT.pack(len(value), flags, 0) + name + b"\0" + value


async def test_extended_attributes_have_room_or_not() -> None:
    async with caller() as call:
        node, _ = await call.created(b"file")
        assert await call(Opcode.SETXATTR, setting(b"user.a", b"val\0ue", os.XATTR_CREATE), node=node) == b""
        await call(Opcode.SETXATTR, setting(b"user.b", b""), node=node)
        again = setting(b"user.a", b"new", os.XATTR_CREATE)
        assert await call.refused(Opcode.SETXATTR, again, node=node) == errno.EEXIST
        missing = setting(b"user.c", b"new", os.XATTR_REPLACE)
        assert await call.refused(Opcode.SETXATTR, missing, node=node) == errno.ENODATA
        assert await call.refused(Opcode.SETXATTR, setting(b"user.c", b"", 4), node=node) == errno.EINVAL

        async def get(room: int) -> bytes:
            return await call(Opcode.GETXATTR, protocol.GETXATTR.pack(room) + b"user.a\0", node=node)

        assert await get(0) == protocol.GETXATTR_OUT.pack(6)
        assert await get(6) == b"val\0ue"
        short = protocol.GETXATTR.pack(5) + b"user.a\0"
        assert await call.refused(Opcode.GETXATTR, short, node=node) == errno.ERANGE
        listed = await call(Opcode.LISTXATTR, protocol.GETXATTR.pack(100), node=node)
        assert sorted(listed.split(b"\0")) == [b"", b"user.a", b"user.b"]
        await call(Opcode.REMOVEXATTR, b"user.a\0", node=node)
        assert await call.refused(Opcode.REMOVEXATTR, b"user.a\0", node=node) == errno.ENODATA


async def test_a_kernel_without_the_longer_layout_sets_attributes_too() -> None:
    async with caller(WANTED & ~InitFlag.SETXATTR_EXT) as call:
        body = protocol.SETXATTR.pack(5, 0) + b"user.a\0value"
        await call(Opcode.SETXATTR, body)
        assert await call(Opcode.GETXATTR, protocol.GETXATTR.pack(9) + b"user.a\0") == b"value"


async def test_room_and_holes_are_made_and_found() -> None:
    async with caller() as call:
        node, handle = await call.created(b"file")
        await call.write(node, handle, b"x" * 300)
        punch = protocol.FALLOCATE.pack(handle, 100, 100, 0x03)
        await call(Opcode.FALLOCATE, punch, node=node)
        for offset, whence, found in (
            (0, os.SEEK_HOLE, 100),
            (100, os.SEEK_DATA, 200),
            (250, os.SEEK_HOLE, 300),
        ):
            body = protocol.LSEEK.pack(handle, offset, whence)
            assert await call(Opcode.LSEEK, body, node=node) == protocol.LSEEK_OUT.pack(found)
        body = protocol.LSEEK.pack(handle, 300, os.SEEK_DATA)
        assert await call.refused(Opcode.LSEEK, body, node=node) == errno.ENXIO


def locking(owner: int, kind: int, start: int = 0, end: int = (1 << 63) - 1, flags: int = 0) -> bytes:
    return protocol.LOCK.pack(5, owner, start, end, kind, 40 + owner, flags)


async def test_locks_keep_others_out_until_they_are_given_up_or_the_file_is_closed() -> None:
    async with caller() as call:
        node, handle = await call.created(b"file")
        whole = protocol.LOCK_FLOCK
        await call(Opcode.SETLK, locking(1, fcntl.F_WRLCK, 10, 19), node=node)
        await call(Opcode.SETLK, locking(3, fcntl.F_RDLCK, flags=whole), node=node)
        found = protocol.LOCK_OUT.unpack(await call(Opcode.GETLK, locking(2, fcntl.F_RDLCK), node=node))
        assert found == (10, 19, fcntl.F_WRLCK, 41)
        assert await call.refused(Opcode.SETLK, locking(2, fcntl.F_RDLCK), node=node) == errno.EAGAIN
        assert (
            await call.refused(Opcode.SETLK, locking(4, fcntl.F_WRLCK, flags=whole), node=node)
            == errno.EAGAIN
        )
        await call(Opcode.SETLK, locking(1, fcntl.F_UNLCK, 10, 14), node=node)
        await call(Opcode.SETLK, locking(2, fcntl.F_RDLCK, 0, 14), node=node)
        await call(Opcode.FLUSH, protocol.FLUSH.pack(handle, 1), node=node)
        found = protocol.LOCK_OUT.unpack(await call(Opcode.GETLK, locking(2, fcntl.F_WRLCK), node=node))
        assert found[2] == fcntl.F_UNLCK
        last = protocol.RELEASE.pack(handle, 0, protocol.RELEASE_FLOCK_UNLOCK, 3)
        await call(Opcode.RELEASE, last, node=node)
        await call(Opcode.SETLK, locking(4, fcntl.F_WRLCK, flags=whole), node=node)
        assert await call.refused(Opcode.SETLK, locking(2, 77), node=node) == errno.EINVAL


async def test_room_is_told_in_blocks() -> None:
    async with caller() as call:
        whole, free, available, *_, block, names, fragment = protocol.STATFS_OUT.unpack(
            await call(Opcode.STATFS)
        )
        assert whole >= free == available
        assert (block, names, fragment) == (4096, 255, 4096)


class SetId:
    """A file or folder of mode s.

    Attributes:
        node: its number.
    """

    def __init__(self, call: Caller, node: int) -> None:
        self._call, self.node = call, node

    async def left_after(self, opcode: int, body: bytes, *, node: int | None = None) -> int:
        """Its mode after one call."""
        await self._call.mounted.files.set_attributes(self.node, mode=0o6755)
        await self._call(opcode, body, node=self.node if node is None else node)
        answer = await self._call(Opcode.GETATTR, bytes(16), node=self.node)
        return stat.S_IMODE(protocol.ATTRIBUTES.unpack(answer)[12])


def setting_owner(valid: int) -> bytes:
    return protocol.SETATTR.pack(valid, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 8)


async def test_bits_s_are_taken_where_the_kernel_says_so() -> None:
    async with caller() as call:
        node, handle = await call.created(b"file")
        file = SetId(call, node)
        truncate = os.O_WRONLY | os.O_TRUNC
        for kill, left in ((0, 0o6755), (1, 0o755)):
            write = protocol.WRITE.pack(handle, 0, 1, kill * protocol.WRITE_KILL_SUIDGID, 0, 0) + b"x"
            assert await file.left_after(Opcode.WRITE, write) == left
            flags = kill * protocol.OPEN_KILL_SUIDGID
            assert await file.left_after(Opcode.OPEN, protocol.OPEN.pack(truncate, flags)) == left
            create = protocol.CREATE.pack(truncate, 0, 0, flags) + b"file\0"
            assert await file.left_after(Opcode.CREATE, create, node=1) == left
            owner = setting_owner(SetAttribute.UID | kill * SetAttribute.KILL_SUIDGID)
            assert await file.left_after(Opcode.SETATTR, owner) == left
        for nothing in (0, SetAttribute.FH | SetAttribute.LOCK_OWNER):
            assert await file.left_after(Opcode.SETATTR, setting_owner(nothing)) == 0o755
        made = await call(Opcode.MKDIR, protocol.MKDIR.pack(0o777, 0) + b"folder\0")
        folder = SetId(call, entry(made)[NODE])
        assert await folder.left_after(Opcode.SETATTR, setting_owner(0)) == 0o6755


async def test_a_kernel_that_does_not_say_so_leaves_only_those_who_truncate() -> None:
    async with caller(WANTED & ~InitFlag.HANDLE_KILLPRIV_V2) as call:
        node, _ = await call.created(b"file")
        truncate = protocol.OPEN.pack(os.O_WRONLY | os.O_TRUNC, 0)
        assert await SetId(call, node).left_after(Opcode.OPEN, truncate) == 0o755  # callers here are not root
