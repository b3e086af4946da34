"""What another member has seen of a log, held against what this one sees: without asking him, or with a file.

The log service is asked too, if it can be reached; but what two members have in their hands is enough to see
that it showed them different logs of one size, and to prove it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muniment.crypto.checkpoints import bare_checkpoint, merge_cosignatures, open_checkpoint
from muniment.engine.follower import Follower
from muniment.engine.volume import Volume
from muniment.errors import (
    LogForked,
    MalformedRecord,
    MunimentError,
    PeerError,
    UnavailableError,
    VolumeUnknown,
)
from muniment.spec.checkpoint import Checkpoint, origin_of, witness_of


@dataclass(frozen=True, slots=True)
class Compared:
    """Nothing contradicts anything.

    Attributes:
        agree: how many of the other's checkpoints are of the log as it is here.
        beyond: how many are of a larger one; kept, and compared when the log gets there.
        former: how many another service signed, which had the log before; they are not compared.
        largest: entries of the largest that he has seen.
        size: entries that are here.
        unasked: why the log service could not be asked; None: it was.
    """

    agree: int
    beyond: int
    former: int
    largest: int
    size: int
    unasked: MunimentError | None


async def compare(volume: Volume, notes: Sequence[bytes], former_log_keys: Sequence[bytes] = ()) -> Compared:
    """Compare a volume's log with the checkpoints that another member has seen.

    Args:
        volume: followed as far as may be.
        notes: from anybody.
        former_log_keys: of services that had the log before.
    Returns: when all was compared, and what is beyond is kept.
    Raises: LogForked: he was shown another log, with evidence if there can be some; the service is refused
        from then on.  MalformedRecord: one is not a checkpoint of this log, and then none was looked at.
    """
    follower = volume.follower
    opened = await volume.run(lambda: [_opened(follower, note, former_log_keys) for note in notes])
    unasked, forked = await _follow(volume)
    ours = await volume.run(
        lambda: [_clean(follower, note, one) for note, one in zip(notes, opened, strict=True) if one]
    )
    await volume.exchange(ours)
    if unasked is None and forked is None:
        unasked, forked = await _follow(volume)  # now it has to be the log that he has seen too
    if forked is not None:
        raise forked
    sizes = [one.size for one in opened if one]
    size = follower.frontier.size
    beyond = sum(one > size for one in sizes)
    former = len(opened) - len(sizes)
    return Compared(len(sizes) - beyond, beyond, former, max(sizes, default=0), size, unasked)


async def _follow(volume: Volume) -> tuple[MunimentError | None, LogForked | None]:
    """Why it could not be followed; a fork without evidence may get some by what the other has seen."""
    try:
        await volume.sync()
    except LogForked as error:
        if volume.follower.refused:
            raise
        return None, error
    except (UnavailableError, PeerError, VolumeUnknown) as error:
        return error, None
    return None, None


def _opened(follower: Follower, note: bytes, former_log_keys: Sequence[bytes]) -> Checkpoint | None:
    """What a note says; None if it is of a service that had the log before."""
    try:
        return follower.open_note(note)
    except MalformedRecord:
        for key in former_log_keys:
            try:
                open_checkpoint(note, key, origin=origin_of(follower.volume))
            except MalformedRecord:
                continue
            return None
        raise


def _clean(follower: Follower, note: bytes, checkpoint: Checkpoint) -> bytes:
    """The note as it may be kept: cosignatures count where it is known who the members are at its size."""
    bare = bare_checkpoint(note, follower.log_key)
    if checkpoint.size != follower.frontier.size:
        return bare
    members = follower.membership.members
    return merge_cosignatures(bare, note, {witness_of(member): bytes(member) for member in members})
