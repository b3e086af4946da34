"""The signed envelope: what was signed comes back, and nothing else is an entry."""

from __future__ import annotations

import dataclasses

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thoroughness import times
from tests.unit.spec.entry_strategies import JUNK, damaged, entries

from muniment.crypto.entries import SignedEntry, entry_hash, open_entry, sign_entry, volume_id
from muniment.crypto.hashing import derive
from muniment.crypto.identity import Identity
from muniment.errors import IntegrityError, InvalidRequest, MalformedRecord, UnknownVersion
from muniment.ids import EntryHash, MemberId, VolumeId
from muniment.merkle.log_tree import EMPTY_ROOT, leaf_hash
from muniment.spec import entry as spec
from muniment.spec import tags
from muniment.spec.act import Leave
from muniment.spec.canonical import dump
from muniment.spec.entry import ENTRY_BYTES_MAX, NO_ENTRY, Entry

AUTHOR = Identity(bytes(range(32)))
OTHER = Identity(bytes(range(1, 33)))


def entry(**changes: object) -> Entry:
    base = Entry(
        VolumeId(b"v" * 32),
        3,
        MemberId(AUTHOR.public_key),
        7,
        EntryHash(b"p" * 32),
        40,
        b"r" * 32,
        10**18,
        Leave(),
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


SIGNED = sign_entry(AUTHOR, entry())
TRANSACTION = entry(act=None, sealed=b"sealed", blobs=b"blobs")


@given(entries())
def test_an_entry_survives_its_payload(made: Entry) -> None:
    payload = spec.encode_payload(made)
    assert spec.decode_payload(payload) == made
    assert spec.encode_payload(spec.decode_payload(payload)) == payload


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65535, 65536, 1 << 20])
def test_the_signed_form_is_the_canonical_list_of_its_parts_whatever_their_size(size: int) -> None:
    payload, signature = bytes(size), bytes(64)
    signed = spec.join_signed(payload, signature)
    assert signed == dump([payload, signature])
    assert spec.split_signed(signed) == (payload, signature)


@pytest.mark.parametrize("other", [b"", b"\x82", b"\x82\x40", dump([b"p", b"s"]), dump([b"p", bytes(65)])])
def test_what_is_no_payload_with_a_signature_is_refused(other: bytes) -> None:
    wider = b"\x82\x58\x01p\x58\x40" + bytes(64)  # a head longer than it need be
    for signed in (other, wider, dump([b"p", bytes(64)]) + b"\0", dump([b"p", bytes(64), b""])):
        with pytest.raises(MalformedRecord):
            spec.split_signed(signed)


@pytest.mark.parametrize("made", [entry(), TRANSACTION], ids=["act", "transaction"])
def test_an_entry_comes_back_as_it_was_signed(made: Entry) -> None:
    signed = sign_entry(AUTHOR, made)
    assert open_entry(signed) == SignedEntry(made, entry_hash(signed), signed)
    payload, signature = spec.split_signed(signed)
    assert spec.join_signed(payload, signature) == signed
    assert len(signature) == 64


def test_an_entry_is_named_by_its_leaf_in_the_tree_and_the_first_names_the_volume() -> None:
    assert open_entry(SIGNED).hash == entry_hash(SIGNED) == leaf_hash(SIGNED)
    assert volume_id(SIGNED) == derive(tags.VOLUME_ID, SIGNED)


@pytest.mark.parametrize("at", range(len(SIGNED)))
def test_any_flipped_bit_is_refused(at: int) -> None:
    for bit in range(8):
        changed = SIGNED[:at] + bytes([SIGNED[at] ^ 1 << bit]) + SIGNED[at + 1 :]
        with pytest.raises(IntegrityError):
            open_entry(changed)


def test_a_cut_or_continued_entry_is_refused() -> None:
    for wrong in (
        *(SIGNED[:cut] for cut in range(len(SIGNED))),
        *(SIGNED + bytes([more]) for more in range(256)),
        SIGNED + SIGNED,
    ):
        with pytest.raises(MalformedRecord):
            open_entry(wrong)


def test_an_entry_arrives_byte_by_byte_as_nothing_until_it_is_whole() -> None:
    arrived = b""
    for byte in SIGNED[:-1]:
        arrived += bytes([byte])
        with pytest.raises(MalformedRecord):
            spec.split_signed(arrived)
    assert open_entry(arrived + SIGNED[-1:]).entry == entry()


def test_a_newer_entry_is_named_as_such() -> None:
    payload = spec.encode_payload(entry())
    assert payload[1] == spec.VERSION
    for version in (0, 2, 23):
        with pytest.raises(UnknownVersion):
            spec.decode_payload(payload[:1] + bytes([version]) + payload[2:])
    newer = dump([2, "all different"])
    with pytest.raises(UnknownVersion):
        open_entry(spec.join_signed(newer, AUTHOR.sign(tags.ENTRY_SIGNATURE + newer)))


def test_another_encoding_of_the_same_values_is_refused() -> None:
    payload, signature = spec.split_signed(SIGNED)
    assert payload[1:2] == b"\x01"
    longer = payload[:1] + b"\x18\x01" + payload[2:]
    truth = payload[:1] + b"\xf5" + payload[2:]
    for other in (longer, truth):
        with pytest.raises(MalformedRecord):
            open_entry(spec.join_signed(other, AUTHOR.sign(tags.ENTRY_SIGNATURE + other)))
    indefinite = b"\x9f" + cbor2.dumps(payload) + cbor2.dumps(signature) + b"\xff"
    with pytest.raises(MalformedRecord):
        open_entry(indefinite)


def test_only_the_author_signs_and_only_as_an_entry() -> None:
    with pytest.raises(InvalidRequest):
        sign_entry(OTHER, entry())
    payload = spec.encode_payload(entry())
    for signature in (OTHER.sign(tags.ENTRY_SIGNATURE + payload), AUTHOR.sign(payload), bytes(64)):
        with pytest.raises(MalformedRecord):
            open_entry(spec.join_signed(payload, signature))
    with pytest.raises(MalformedRecord):
        open_entry(spec.join_signed(payload, AUTHOR.sign(tags.RECORD_SIGNATURE + payload)))
    with pytest.raises(MalformedRecord):
        open_entry(spec.join_signed(payload, bytes(63)))


def test_an_entry_has_a_largest_size() -> None:
    room = ENTRY_BYTES_MAX - len(sign_entry(AUTHOR, entry(act=None, sealed=bytes(1 << 20)))) + (1 << 20)
    largest = sign_entry(AUTHOR, entry(act=None, sealed=bytes(room)))
    assert len(largest) == ENTRY_BYTES_MAX
    assert open_entry(largest).signed == largest
    with pytest.raises(InvalidRequest):
        sign_entry(AUTHOR, entry(act=None, sealed=bytes(room + 1)))
    with pytest.raises(MalformedRecord):
        open_entry(largest + b"\0")


@pytest.mark.parametrize(
    "changes",
    [
        {"volume": VolumeId(b"short")},
        {"volume": spec.NO_VOLUME},
        {"author": MemberId(bytes(33))},
        {"seen_root": b""},
        {"previous": EntryHash(b"")},
        {"previous": NO_ENTRY},
        {"sequence": 0},
        {"sequence": 1 << 53},
        {"sequence": -1},
        {"epoch": 1 << 53},
        {"seen_size": -1},
        {"time_ns": -1},
        {"time_ns": 1 << 63},
        {"act": None},
        {"sealed": b"sealed"},
        {"blobs": b"blobs"},
        {"act": None, "blobs": b"blobs"},
    ],
    ids=repr,
)
def test_an_entry_outside_its_limits_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedRecord):
        entry(**changes)


def test_what_is_sealed_is_bound_to_all_the_rest() -> None:
    bound, bound_blobs = TRANSACTION.bound(), TRANSACTION.bound_blobs()
    for name, value in (
        ("volume", b"w" * 32),
        ("epoch", 4),
        ("author", OTHER.public_key),
        ("sequence", 8),
        ("previous", b"q" * 32),
        ("seen_size", 41),
        ("seen_root", EMPTY_ROOT),
        ("time_ns", 10**18 + 1),
    ):
        other = dataclasses.replace(TRANSACTION, **{name: value})  # type: ignore[arg-type]
        assert other.bound() != bound
        assert other.bound_blobs() != bound_blobs
    other = dataclasses.replace(TRANSACTION, blobs=b"other")
    assert other.bound() != bound
    assert other.bound_blobs() == bound_blobs
    assert dataclasses.replace(TRANSACTION, sealed=b"other").bound() == bound


def test_no_ciphertext_is_printed() -> None:
    shown = repr(open_entry(sign_entry(AUTHOR, entry(act=None, sealed=b"ciphertext", blobs=b"ciphertext"))))
    assert "ciphertext" not in shown


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    for read in (open_entry, spec.decode_payload, spec.split_signed):
        with pytest.raises(IntegrityError):
            read(data)


@given(JUNK)
def test_any_signed_value_is_refused_in_one_way(value: object) -> None:
    payload = dump(value)
    with pytest.raises(IntegrityError):
        open_entry(spec.join_signed(payload, AUTHOR.sign(tags.ENTRY_SIGNATURE + payload)))


def _packed(made: Entry) -> list[object]:
    value = cbor2.loads(spec.encode_payload(made))
    assert isinstance(value, list)
    return value


@settings(max_examples=times(100))
@given(damaged(entries().map(_packed)))
def test_a_damaged_entry_is_an_entry_or_refused(value: object) -> None:
    payload = dump(value)
    try:
        made = spec.decode_payload(payload)
    except IntegrityError:
        return
    assert spec.encode_payload(made) == payload


def test_an_entry_of_many_values_is_refused_before_it_is_decoded() -> None:
    """A log service decodes what strangers send: four mebibytes of empty lists would take seconds each."""
    payload = b"\x9a" + (4 << 20).to_bytes(4, "big") + b"\x80" * 4_000_000
    with pytest.raises(MalformedRecord, match="more than 8192 values"):
        spec.decode_payload(payload)
