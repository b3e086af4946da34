"""Writing and reading the file of what could not be saved (docs/spec/unsaved.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from muniment.core.keys import EpochKeys
from muniment.crypto.cipher import DoesNotOpen
from muniment.crypto.messages import open_message, seal_message
from muniment.durable_file import failed, write_whole
from muniment.errors import MalformedRecord
from muniment.spec.unsaved import (
    HEAD_BYTES,
    LENGTH_BYTES,
    UnsavedRecord,
    decode_head,
    decode_length,
    decode_record,
    encode_head,
    encode_length,
    encode_record,
)


def write_unsaved(path: Path, records: Iterable[UnsavedRecord], keys: EpochKeys) -> None:
    """Durable on return, for the user only.  Blocking.

    Raises: DiskFull, StoreFailed: there is no such file then; NotCapable.
    """
    write_whole(path, _frames(records, keys), mode=0o600)


def _frames(records: Iterable[UnsavedRecord], keys: EpochKeys) -> Iterator[bytes]:
    head, key = encode_head(keys.epoch), keys.unsaved_key()
    yield head
    for number, record in enumerate(chain(records, (None,))):
        sealed = seal_message(key, encode_record(record), _bound(head, number), os.urandom)
        yield encode_length(len(sealed))
        yield sealed


def read_unsaved(path: Path, keys_of: Callable[[int], EpochKeys]) -> list[UnsavedRecord]:
    """All records, without the end.  Blocking.

    Args:
        keys_of: an epoch.
    Raises: MalformedRecord: it is damaged, or not of this volume; UnknownVersion; NotCapable; StoreFailed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            return list(_records(file, head, keys_of(decode_head(head)).unsaved_key()))
    except OSError as error:
        raise failed(path, error) from error


def _records(file: BinaryIO, head: bytes, key: bytes) -> Iterator[UnsavedRecord]:
    number = 0
    while True:
        sealed = file.read(decode_length(file.read(LENGTH_BYTES)))
        try:
            record = decode_record(open_message(key, sealed, _bound(head, number)))
        except DoesNotOpen as error:
            raise MalformedRecord(format="unsaved file", reason=str(error)) from error
        if record is None:
            return
        yield record
        number += 1


def _bound(head: bytes, number: int) -> bytes:
    return head + number.to_bytes(8, "big")
