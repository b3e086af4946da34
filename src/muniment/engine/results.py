"""What operations report: while they run (`Progress`) and when they are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from muniment.engine.new_shares import NewShares
from muniment.ids import NodeId
from muniment.spec.cap import FileReadCap, ReadCap


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation is.

    Attributes:
        done_bytes: plaintext stored happily, or written to the target.
        total_bytes: of the whole, or None where nobody knows (a pipe).
    """

    done_bytes: int
    total_bytes: int | None


ProgressCallback = Callable[[Progress], None]
"""Called on the loop after each chunk; must return quickly and not raise."""


@dataclass(slots=True)
class Stages:
    """Where the time went, in seconds.

    `read`, `seal`, `check`, `open` and `write` are busy seconds of threads; the others are added up over
    blobs, from the first request to the last answer that was waited for.  Stages overlap, so their sum is
    more than the time that passed.
    """

    read_s: float = 0.0
    seal_s: float = 0.0
    reserve_s: float = 0.0
    send_s: float = 0.0
    fetch_s: float = 0.0
    check_s: float = 0.0
    open_s: float = 0.0
    write_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be stored or restored.

    Attributes:
        path: as text, undecodable bytes escaped.
        reason: why, in the system's words.
    """

    path: str
    reason: str


@dataclass(slots=True)
class UploadTally:
    """What an upload has come to so far; shared by all blobs of one operation.

    Attributes:
        placed: distinct nodes of the weakest blob; None before the first.
        blobs: stored, manifests included.
        new_bytes: share records sent.
        present_bytes: share records that nodes had already.
        missing: shares without a node when their blob was done; late ones may still arrive.
        fresh: shares sent, to be given up if nothing will refer to them.
    """

    placed: int | None = None
    blobs: int = 0
    new_bytes: int = 0
    present_bytes: int = 0
    missing: int = 0
    stages: Stages = field(default_factory=Stages)
    fresh: NewShares = field(default_factory=NewShares)


@dataclass(frozen=True, slots=True)
class PutResult:
    """A file or tree that is stored.

    Attributes:
        cap: reads it.
        size_bytes: plaintext of all files in it.
        placed: distinct nodes with distinct shares of the weakest blob; 0 for a literal, which needs none.
        new_bytes: share records sent to nodes.
        present_bytes: share records nodes had already.
        missing: shares that had no node when their blob was done (refused everywhere, or late and finished in
            the background).
        blobs: manifests included.
        files: regular files (1 for a single file).
        skipped: what of a tree could not be read.
        stages: where the time went.
    """

    cap: ReadCap
    size_bytes: int
    placed: int
    new_bytes: int
    present_bytes: int
    missing: int
    blobs: int
    files: int
    skipped: tuple[Skipped, ...]
    stages: Stages


@dataclass(frozen=True, slots=True)
class FilePut:
    """One file of `Grid.put_many`: its capability, or why it has none.

    Attributes:
        path: as given.
        cap: reads it; None if it was not stored.
        size_bytes: as read.
        error: why it was not stored.
    """

    path: str
    cap: FileReadCap | None
    size_bytes: int
    error: Exception | None = None


@dataclass(slots=True)
class DownloadTally:
    """What a download has come to so far.

    Attributes:
        liars: for each node that served false shares, how many.
        blobs: opened, manifests included.
        shares: checked good and used.
        share_bytes: received, used or not.
        decoded: blobs that had to be decoded because a data share could not be had in time.
        cached: blobs that were in the cache on this machine.
    """

    liars: Counter[NodeId] = field(default_factory=Counter)
    blobs: int = 0
    shares: int = 0
    share_bytes: int = 0
    decoded: int = 0
    cached: int = 0
    stages: Stages = field(default_factory=Stages)


@dataclass(frozen=True, slots=True)
class GetResult:
    """A file or tree that was read.

    Attributes:
        size_bytes: written to the target.
        files: regular files (1 for a single file).
        liars: for each node that served false shares, how many; all were replaced by good ones.
        blobs: opened, manifests included.
        shares: checked good and used.
        share_bytes: received, used or not.
        decoded: blobs that needed a parity share.
        skipped: what of a tree could not be restored.
        stages: where the time went.
    """

    size_bytes: int
    files: int
    liars: dict[NodeId, int]
    blobs: int
    shares: int
    share_bytes: int
    decoded: int
    skipped: tuple[Skipped, ...]
    stages: Stages


def put_result(
    cap: ReadCap,
    size_bytes: int,
    tally: UploadTally,
    *,
    files: int = 1,
    skipped: tuple[Skipped, ...] = (),
) -> PutResult:
    """What an upload has come to."""
    return PutResult(
        cap=cap,
        size_bytes=size_bytes,
        placed=tally.placed or 0,
        new_bytes=tally.new_bytes,
        present_bytes=tally.present_bytes,
        missing=tally.missing,
        blobs=tally.blobs,
        files=files,
        skipped=skipped,
        stages=tally.stages,
    )


def get_result(
    size_bytes: int, tally: DownloadTally, *, files: int = 1, skipped: tuple[Skipped, ...] = ()
) -> GetResult:
    """What a download has come to."""
    return GetResult(
        size_bytes=size_bytes,
        files=files,
        liars=dict(tally.liars),
        blobs=tally.blobs,
        shares=tally.shares,
        share_bytes=tally.share_bytes,
        decoded=tally.decoded,
        skipped=skipped,
        stages=tally.stages,
    )
