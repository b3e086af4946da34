"""Rules and holds by paths: how long versions are kept, and what nobody may prune."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from muniment.core.entries import open_statement
from muniment.core.membership import Held, Rule
from muniment.core.tree_state import TreeReading
from muniment.crypto.entries import known_entry
from muniment.engine.volume import Committed, Volume
from muniment.engine.volume_tree import find, walk
from muniment.errors import MalformedRecord, NotCapable
from muniment.spec.act import Hold, Retain
from muniment.spec.operation import Kind
from muniment.spec.statement import decode_reason, encode_reason


@dataclass(frozen=True, slots=True)
class Ruled:
    """A path with a rule or hold of its own.

    Attributes:
        rule: None: as what is above says.
        hold: None: none of its own.
        reason: of the hold; empty if it cannot be read here.
    """

    path: bytes
    rule: Rule | None
    hold: Held | None
    reason: str = ""


async def retain(volume: Volume, path: bytes, keep_s: int | None) -> Committed:
    """Say how long versions at and below a path are kept.

    Raises: PathUnknown; EntryRefused: no owner, or it is so already.
    """
    inode = await volume.run(lambda: find(volume.view.reading(), path, follow=False))
    return await volume.act(lambda _: Retain(inode.inode, keep_s))


async def hold(volume: Volume, path: bytes, reason: str, *, on: bool) -> Committed:
    """Lay a hold on a path, or lift it.  Raises: as `retain`; MalformedRecord: the reason is not one line."""
    inode = await volume.run(lambda: find(volume.view.reading(), path, follow=False))
    statement = encode_reason(reason)
    return await volume.declare(lambda _: (Hold(inode.inode, on), statement))


def ruled_above(volume: Volume, path: bytes) -> list[Ruled]:
    """The rules and holds of a path and of the folders that it is in, from the root on.

    Raises: PathUnknown.
    """
    state, parts = volume.view.reading(), [part for part in path.split(b"/") if part]
    paths = [b"/".join(parts[:count]) for count in range(len(parts) + 1)]
    return [one for above in paths for one in _own(volume, above, find(state, above, follow=False).inode)]


def ruled_below(volume: Volume, path: bytes) -> list[Ruled]:
    """The rules and holds of what is below a path.  Cost: O(names), unless there are none."""
    if not volume.membership.rules and not volume.membership.holds:
        return []
    return [one for below, inode in _below(volume.view.reading(), path) for one in _own(volume, below, inode)]


def _below(state: TreeReading, path: bytes) -> Iterator[tuple[bytes, int]]:
    top = find(state, path, follow=False)
    if top.kind is Kind.FOLDER:
        for one in walk(state, top):
            yield (path + b"/" + one.path if path else one.path), one.inode.inode


def _own(volume: Volume, path: bytes, inode: int) -> list[Ruled]:
    rule, held = volume.membership.rules.get(inode), volume.membership.holds.get(inode)
    if rule is None and held is None:
        return []
    return [Ruled(path, rule, held, "" if held is None else _reason(volume, held))]


def _reason(volume: Volume, held: Held) -> str:
    replica = volume.follower.replica
    if held.index < replica.start:
        return ""
    (signed,) = replica.read(held.index, held.index + 1, bytes_max=1)
    try:
        return decode_reason(open_statement(known_entry(signed).entry, volume.follower.ring))
    except (MalformedRecord, NotCapable):
        return ""
