"""What `ObjectStore` needs to know of obstore: opening, error translation, and flushing of local folders."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Final

from muniment.durable_file import failed, flush
from muniment.errors import ConfigInvalid, DiskFull, LocalError, StoreFailed

if TYPE_CHECKING:
    from obstore.store import ObjectStore as ObstoreStore

_RETRIES: Final = 3
_RETRY_S: Final = 30
"""Of each request; a node's clients have deadlines of their own and other nodes to ask."""

_SECRET: Final = re.compile(r"\?\S*|(?<=://)[^/\s]*@")
"""Signatures in a URL's query, passwords before its host: error texts cross the wire."""

_REASON_CHARS: Final = 300


def load_obstore() -> ModuleType:
    """The obstore module.  Raises: ConfigInvalid: not installed."""
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise ConfigInvalid(
            where="store", reason="object stores need the package obstore; type: pip install obstore"
        ) from error
    return obstore


def open_url(url: str) -> ObstoreStore:
    """Open what a URL names.  Raises: ConfigInvalid."""
    obstore = load_obstore()
    scheme = url.partition("://")[0]
    if scheme == "memory":
        raise ConfigInvalid(
            where="store", reason="a node's shares must outlive its process; use posix or a URL"
        )
    try:
        if scheme == "file":
            options: dict[str, object] = {"mkdir": True}
        else:
            options = {
                "retry_config": {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)}
            }
        opened: ObstoreStore = obstore.store.from_url(url, **options)
        return opened
    except (obstore.exceptions.BaseError, OSError, ValueError) as error:
        raise ConfigInvalid(where="store", reason=f"{shown(url)}: {_reason(error)}") from error


def shown(text: str) -> str:
    """A URL or message without what could be a secret in it."""
    return _SECRET.sub("", text)


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn obstore's errors and the system's into DiskFull or StoreFailed."""
    try:
        yield
    except (load_obstore().exceptions.BaseError, OSError, ValueError) as error:
        raise _failure(where, error) from error


def _failure(where: str, error: Exception) -> LocalError:
    if isinstance(error, OSError) and error.errno is not None:
        return failed(where, error)
    # obstore gives the system's errors as text only.
    if f"(os error {errno.ENOSPC})" in str(error) or f"(os error {errno.EDQUOT})" in str(error):
        return DiskFull(where=where)
    return StoreFailed(where=where, reason=_reason(error))


def _reason(error: Exception) -> str:
    """The first line, which says it all; the rest is Rust's rendering of the same."""
    return shown(str(error).partition("\n")[0])[:_REASON_CHARS]


def flush_local(store: ObstoreStore, path: str) -> None:
    """Make an object durable, or its removal, where the store is a local folder; others do that themselves.

    Raises: OSError.
    """
    local = load_obstore().store.LocalStore
    if not isinstance(store, local) or store.prefix is None:
        return
    file = store.prefix / path
    for place in (file, *file.parents):
        with contextlib.suppress(FileNotFoundError):
            flush(place)
        if place == store.prefix:
            return
