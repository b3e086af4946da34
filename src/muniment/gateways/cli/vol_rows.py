"""Names of a volume as commands show them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

from muniment.core.tree_state import Inode, TreeReading
from muniment.engine.file_facts import FORMATS
from muniment.engine.volume_tree import link_target
from muniment.gateways.cli.vol_paths import path_text
from muniment.spec.operation import Kind


@dataclass(frozen=True, slots=True)
class Row:
    """One name that is shown.

    Attributes:
        path: from the root of the volume.
        label: what of it is printed.
        target: of a symbolic link.
    """

    path: bytes
    label: bytes
    inode: Inode
    target: bytes = b""


def facts(row: Row) -> dict[str, Any]:
    """A name as part of a document."""
    inode = row.inode
    document = {
        "path": "/" + os.fsdecode(row.path),
        "kind": inode.kind.name.lower(),
        "mode": f"{inode.mode:04o}",
        "size_bytes": inode.size,
        "mtime_s": inode.mtime_ns / 1e9,
        "version": inode.version,
    }
    return document | {"target": os.fsdecode(row.target)} if inode.kind is Kind.SYMLINK else document


def mode_text(inode: Inode) -> str:
    """`drwxr-xr-x`."""
    return stat.filemode(FORMATS[inode.kind] | inode.mode)


def row_of(state: TreeReading, path: bytes, label: bytes, inode: Inode) -> Row:
    """What is shown of an inode under a path."""
    return Row(path, label, inode, link_target(state, inode) if inode.kind is Kind.SYMLINK else b"")


def joined(above: bytes, name: bytes) -> bytes:
    """Two paths as one; either may be empty."""
    return above + b"/" + name if above and name else above or name


def label_text(row: Row, label: bytes | None = None) -> str:
    """A name, and where it points to."""
    return path_text(row.label if label is None else label) + (
        f" -> {path_text(row.target)}" if row.target else ""
    )
