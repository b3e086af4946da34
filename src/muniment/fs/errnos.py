"""Errors as POSIX names them: the one table, for every gateway that speaks in errno."""

from __future__ import annotations

import enum
import errno
from typing import Final

from muniment import errors
from muniment.core.fold import Why
from muniment.errors import FileRefused, MunimentError, OperationRejected


class Because(enum.StrEnum):
    """Why a file system refuses what no fold was asked about; the `why` of FileRefused."""

    NAME_TOO_LONG = "name-too-long"
    BAD_NAME = "bad-name"
    NO_SUCH_HANDLE = "no-such-handle"
    READ_ONLY = "read-only"
    TOO_LARGE = "too-large"
    NOT_SUPPORTED = "not-supported"
    NOT_ALLOWED = "not-allowed"
    VALUE_TOO_LARGE = "value-too-large"
    BEHIND_THE_END = "behind-the-end"
    SMALL_BUFFER = "small-buffer"
    IS_A_LINK = "is-a-link"
    BAD_RANGE = "bad-range"
    BAD_VALUE = "bad-value"
    NO_SPACE = "no-space"
    LOCKED = "locked"
    DEADLOCK = "deadlock"
    TOO_MANY_LOCKS = "too-many-locks"
    LOCK_LOST = "lock-lost"


_REFUSED: Final[dict[str, int]] = {
    Why.NOT_FOUND: errno.ENOENT,
    Why.NOT_A_FOLDER: errno.ENOTDIR,
    Why.NOT_A_FILE: errno.EINVAL,
    Why.IS_A_FOLDER: errno.EISDIR,
    Why.EXISTS: errno.EEXIST,
    Why.CHANGED: errno.ESTALE,
    Why.NOT_EMPTY: errno.ENOTEMPTY,
    Why.INTO_ITSELF: errno.EINVAL,
    Why.TOO_DEEP: errno.ELOOP,
    Why.NO_SUCH_ATTRIBUTE: errno.ENODATA,
    Because.NAME_TOO_LONG: errno.ENAMETOOLONG,
    Because.BAD_NAME: errno.EINVAL,
    Because.NO_SUCH_HANDLE: errno.EBADF,
    Because.READ_ONLY: errno.EROFS,
    Because.TOO_LARGE: errno.EFBIG,
    Because.NOT_SUPPORTED: errno.EOPNOTSUPP,
    Because.NOT_ALLOWED: errno.EPERM,
    Because.VALUE_TOO_LARGE: errno.E2BIG,
    Because.BEHIND_THE_END: errno.ENXIO,
    Because.SMALL_BUFFER: errno.ERANGE,
    Because.IS_A_LINK: errno.ELOOP,
    Because.BAD_RANGE: errno.EINVAL,
    Because.BAD_VALUE: errno.EINVAL,
    Because.NO_SPACE: errno.ENOSPC,
    Because.LOCKED: errno.EAGAIN,
    Because.DEADLOCK: errno.EDEADLK,
    Because.TOO_MANY_LOCKS: errno.ENOLCK,
    Because.LOCK_LOST: errno.EIO,
}

_LEAVES: Final[dict[type[MunimentError], int]] = {
    errors.PathUnknown: errno.ENOENT,
    errors.InvalidRequest: errno.EINVAL,
    errors.RangeOutOfBounds: errno.EINVAL,
    errors.NotCapable: errno.EROFS,
    errors.NotMember: errno.EROFS,
    errors.RoleForbids: errno.EROFS,
    errors.ContentPruned: errno.ENODATA,
    errors.NotHappy: errno.ENOSPC,
    errors.GridFull: errno.ENOSPC,
    errors.DiskFull: errno.ENOSPC,
    errors.CapacityFull: errno.ENOSPC,
    errors.QuotaFull: errno.EDQUOT,
    errors.DeadlineExceeded: errno.ETIMEDOUT,
}
"""What is not here is EIO: data that does not verify, or cannot be had now."""


def errno_of(error: MunimentError) -> int:
    """The number for an error of any kind."""
    if isinstance(error, OperationRejected | FileRefused):
        return _REFUSED.get(error.why, errno.EIO)
    return next((number for kind, number in _LEAVES.items() if isinstance(error, kind)), errno.EIO)
