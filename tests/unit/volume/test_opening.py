"""Many entries opened at once: all in order, and each that does not open in its place."""

from __future__ import annotations

import pytest
from tests.unit.volume.support import member

from muniment.crypto.entries import SignedEntry, open_entry, sign_entry
from muniment.engine.opening import open_entries
from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import EntryHash, VolumeId
from muniment.spec.canonical import dump, load
from muniment.spec.entry import Entry, join_signed, split_signed

ANNA = member("anna")


def entry(number: int) -> bytes:
    """A proper one: what it says does not matter here."""
    place = (VolumeId(b"v" * 32), 0, ANNA.member, number + 1, EntryHash(b"p" * 32), 0, bytes(32), number)
    return sign_entry(ANNA.identity, Entry(*place, act=None, sealed=b"sealed"))


def of_later_version(signed: bytes) -> bytes:
    payload, signature = split_signed(signed)
    fields = load(payload, format="entry")
    assert isinstance(fields, list)
    return join_signed(dump([2, *fields[1:]]), signature)


def flipped(signed: bytes) -> bytes:
    return signed[:-1] + bytes((signed[-1] ^ 1,))


@pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
def test_entries_are_opened_in_order(count: int) -> None:
    signed = [entry(number) for number in range(count)]
    assert open_entries(signed) == [open_entry(one) for one in signed]


@pytest.mark.parametrize("count", [3, 200])
def test_what_does_not_open_stands_in_its_place_as_the_error(count: int) -> None:
    signed = [entry(number) for number in range(count)]
    signed[1], signed[-1] = flipped(signed[1]), of_later_version(signed[-1])
    opened = open_entries(signed)
    assert isinstance(opened[1], MalformedRecord)
    assert isinstance(opened[-1], UnknownVersion)
    rest = [one for at, one in enumerate(opened) if at not in (1, count - 1)]
    assert all(isinstance(one, SignedEntry) for one in rest)
    assert [one.signed for one in rest if isinstance(one, SignedEntry)] == [signed[0], *signed[2:-1]]
