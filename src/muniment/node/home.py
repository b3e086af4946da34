"""A client's folder: the key of its account, the grid it has joined, and the nodes it knew last.

account.key          Ed25519 seed as text, mode 0600; who has it, owns the account's shares and quota
roster-address       `mun:introducer:...`, or the path of a roster file
queue.sqlite         work that a keeper of this home has to do (`node.home_queue`)
known-nodes-*.json   cache of what each introducer answered last; may be deleted
cache/               blobs that mounts have read, still sealed (`caches.folder`); may be deleted
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import platformdirs

from muniment.crypto.identity import Identity
from muniment.durable_file import write_whole
from muniment.errors import ConfigInvalid, GridUnknown
from muniment.ids import NodeId, id_text
from muniment.node.folder import FolderLock, make_identity, read_identity
from muniment.spec.address import PeerKind, parse_address

ACCOUNT_FILE: Final = "account.key"
JOINED_FILE: Final = "roster-address"
CACHE_FOLDER: Final = "cache"
HOME_VARIABLE: Final = "MUNIMENT_HOME"
ROSTER_VARIABLE: Final = "MUNIMENT_GRID"


def default_home() -> Path:
    """The folder that MUNIMENT_HOME names, or the platform's place for a user's application data."""
    named = os.environ.get(HOME_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_data_dir("muniment", appauthor=False))


def account_identity(home: Path) -> Identity:
    """The account key of a home, made on first use.

    Raises: ConfigInvalid: the file is damaged or readable by others; DiskFull, StoreFailed.
    """
    path = home / ACCOUNT_FILE
    _make(home)
    if not path.exists():
        lock = FolderLock(home, wait=True)  # two first uses at once must not make two keys
        try:
            if not path.exists():
                make_identity(path, os.urandom)
        finally:
            lock.close()
    return read_identity(path)


def join_grid(home: Path, roster: str) -> str:
    """Remember a grid; returns what was remembered, a file's path made absolute.

    Raises: InvalidRequest: it looks like an address and is not an introducer's; ConfigInvalid: it is a path
        and there is no file; DiskFull, StoreFailed.
    """
    if roster.startswith("mun:"):
        where = str(parse_address(roster, PeerKind.INTRODUCER))
    else:
        path = Path(roster).absolute()
        if not path.is_file():
            raise ConfigInvalid(where=str(path), reason="there is no such roster file")
        where = str(path)
    _make(home)
    write_whole(home / JOINED_FILE, f"{where}\n".encode())
    return where


def chosen_roster(home: Path) -> str:
    """The roster that MUNIMENT_GRID names, else the one the home has joined.  Raises: GridUnknown: none."""
    return os.environ.get(ROSTER_VARIABLE) or joined_roster(home)


def known_nodes_file(home: Path, introducer: NodeId) -> Path:
    """Where the nodes that this introducer named last are kept: never to be taken for another grid's."""
    return home / f"known-nodes-{id_text(introducer)[:16]}.json"


def joined_roster(home: Path) -> str:
    """The roster that a home has joined.  Raises: GridUnknown: none."""
    try:
        where = (home / JOINED_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        where = ""
    if not where:
        raise GridUnknown(home=str(home))
    return where


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigInvalid(where=str(home), reason=error.strerror or str(error)) from error
