"""Writes view_snapshot_v1.json: the clear part of the log of entry_v1.json, a state, and its operation.

Run by hand, once for a new version (`python tests/vectors/make_view_snapshot.py`); released files stay.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muniment.core.clear_part import clear_part, dump_clear
from muniment.core.membership import Membership
from muniment.core.state_hash import EMPTY, row_of_extent, row_of_inode, row_of_name
from muniment.core.tree_state import ROOT_INODE, Inode, Name, StoredExtent
from muniment.crypto.entries import open_entry
from muniment.ids import BlobId
from muniment.merkle.log_tree import Frontier
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.operation import Extent, Kind, ViewSnapshot
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.transaction import Transaction, encode_transaction
from muniment.spec.view_row import next_inode_row, snapshot_row, xattr_row
from muniment.spec.view_snapshot import encode_view

FILE = Path(__file__).with_name("view_snapshot_v1.json")
LOG = FILE.with_name("entry_v1.json")
REF = BlobRef(
    BlobName(BlobId(b"\x07" * 32), BlobShape(CodecId.RS, 4, 6, 5016)), b"\x08" * 32, 5000, Compression.ZSTD
)


def _inode(number: int, kind: Kind, size: int, links: int, entries: int, parent: int) -> Inode:
    times = (-1, 1_800_000_000 * 10**9, 1_800_000_001 * 10**9)
    return Inode(number, kind, 0o640, 1000, 100, *times, size, links, entries, (1 << 64) - 1, 3, parent)


ROWS = (
    row_of_inode(ROOT_INODE),
    row_of_inode(_inode(2, Kind.FOLDER, 0, 2, 1, 1)),
    row_of_inode(_inode(3, Kind.FILE, 5003, 1, 0, 0)),
    row_of_name(Name(1, b"folder", 2, Kind.FOLDER)),
    row_of_name(Name(2, b"\xff", 3, Kind.FILE)),
    row_of_extent(3, StoredExtent(0, 5000, REF)),
    row_of_extent(3, StoredExtent(5000, 3, b"abc")),
    xattr_row(3, b"user.note", b""),
    snapshot_row(b"before", 2),
    next_inode_row(4),
)


def make(log: list[bytes]) -> dict[str, Any]:
    """Everything, from the signed entries of a log."""
    membership, frontier, nodes = Membership(), Frontier(), dict[tuple[int, int], bytes]()
    for at, signed in enumerate(log):
        entry = open_entry(signed)
        membership.admit(entry, at)
        frontier, completed = frontier.append(entry.hash)
        nodes |= {(node.level, node.index): node.hash for node in completed}
    part = clear_part(membership, frontier, lambda level, index: nodes[level, index], lambda at: log[at])
    stream = b"".join(encode_view(part.head, ROWS))
    digest = EMPTY.changed((), ROWS).digest()
    inline = stream[-100:]
    start = len(stream) - len(inline)
    content = (Extent(0, start, 0, 0), Extent(start, len(inline), inline))
    operation = ViewSnapshot(len(log), digest, content)
    plain, names = encode_transaction(Transaction((operation,), (REF,), "for newcomers"))
    return {
        "clear": dump_clear(part).hex(),
        "stream": stream.hex(),
        "state_hash": digest.hex(),
        "transaction": plain.hex(),
        "names": names.hex(),
    }


def main() -> None:
    log = [bytes.fromhex(entry["signed"]) for entry in json.loads(LOG.read_text())["log"]]
    FILE.write_text(json.dumps(make(log), indent=1) + "\n")


if __name__ == "__main__":
    main()
