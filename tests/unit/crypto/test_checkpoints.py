"""Checkpoints and cosignatures: what was signed comes back, anything else is refused in one way."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.crypto.checkpoints import (
    cosign,
    key_id,
    merge_cosignatures,
    open_checkpoint,
    open_cosignatures,
    open_note,
    sign_checkpoint,
    sign_note,
)
from muniment.crypto.identity import Identity
from muniment.errors import InvalidRequest, MalformedRecord
from muniment.ids import MemberId, VolumeId
from muniment.spec.checkpoint import (
    COSIGNATURE_V1,
    ED25519,
    NOTE_BYTES_MAX,
    NOTE_SIGNATURES_MAX,
    TIME_S_MAX,
    Checkpoint,
    Note,
    NoteSignature,
    cosigned_message,
    decode_checkpoint,
    decode_cosignature,
    decode_note,
    encode_checkpoint,
    encode_cosignature,
    encode_note,
    origin_of,
    volume_of,
    witness_of,
)
from muniment.spec.limits import LOG_SIZE_MAX

LOG = Identity(bytes(range(32)))
WITNESSES = [Identity(bytes([9] * 31 + [i])) for i in range(3)]
NAMES = [witness_of(MemberId(w.public_key)) for w in WITNESSES]
KEYS = {name: witness.public_key for name, witness in zip(NAMES, WITNESSES, strict=True)}
VOLUME = VolumeId(bytes(range(100, 132)))
CHECKPOINT = Checkpoint(origin_of(VOLUME), 4473, bytes(range(32)))
NOTE = sign_checkpoint(LOG, CHECKPOINT)
NOW_S = 1_800_000_000

names = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="+"), min_size=1, max_size=60)


def cosigned(*, time_s: int = NOW_S) -> bytes:
    note = NOTE
    for name, witness in zip(NAMES, WITNESSES, strict=True):
        note = cosign(witness, name, note, time_s=time_s)
    return note


# --- checkpoints -----------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    assert open_checkpoint(NOTE, LOG.public_key) == CHECKPOINT
    assert open_checkpoint(NOTE, LOG.public_key, origin=origin_of(VOLUME)) == CHECKPOINT
    assert volume_of(CHECKPOINT.origin) == VOLUME


def test_a_checkpoint_is_text_for_people_and_tools() -> None:
    origin, size, root, empty, signature = NOTE.decode().split("\n")[:5]
    assert origin == origin_of(VOLUME)
    assert (size, root, empty) == ("4473", base64.b64encode(CHECKPOINT.root).decode(), "")
    assert signature.startswith(f"\u2014 {origin} ")


@given(names, st.integers(0, LOG_SIZE_MAX), st.binary(min_size=32, max_size=32), st.lists(names, max_size=3))
def test_every_checkpoint_comes_back(origin: str, size: int, root: bytes, more: list[str]) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(more))
    assert decode_checkpoint(encode_checkpoint(checkpoint)) == checkpoint
    assert open_checkpoint(sign_checkpoint(LOG, checkpoint), LOG.public_key) == checkpoint


@pytest.mark.parametrize("bit", range(0, 8 * len(NOTE), 5))
def test_any_changed_bit_of_a_checkpoint_is_refused(bit: int) -> None:
    wrong = bytearray(NOTE)
    wrong[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MalformedRecord):
        open_checkpoint(bytes(wrong), LOG.public_key)


@pytest.mark.parametrize("cut", range(len(NOTE)))
def test_a_shortened_checkpoint_is_refused(cut: int) -> None:
    with pytest.raises(MalformedRecord):
        open_checkpoint(NOTE[:cut], LOG.public_key)


@pytest.mark.parametrize("more", [b"\n", b"x", b"\n\n", NOTE, b"\0", b"\xff", "\u2014 \n".encode()])
def test_bytes_around_a_checkpoint_are_refused(more: bytes) -> None:
    for wrong in (NOTE + more, more + NOTE):
        with pytest.raises(MalformedRecord):
            open_checkpoint(wrong, LOG.public_key)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_make_the_decoders_fail_otherwise(data: bytes) -> None:
    with pytest.raises(MalformedRecord):
        open_checkpoint(data, LOG.public_key)
    with pytest.raises(MalformedRecord):
        open_checkpoint(encode_checkpoint(CHECKPOINT) + b"\n" + data, LOG.public_key)
    with pytest.raises(MalformedRecord):
        open_cosignatures(data, KEYS)


def test_another_key_or_origin_is_refused() -> None:
    with pytest.raises(MalformedRecord, match="expected key"):
        open_checkpoint(NOTE, WITNESSES[0].public_key)
    with pytest.raises(MalformedRecord, match="another log"):
        open_checkpoint(NOTE, LOG.public_key, origin=origin_of(VolumeId(bytes(32))))
    for key in (b"", LOG.public_key[:-1]):
        with pytest.raises(MalformedRecord):
            open_checkpoint(NOTE, key)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("no origin", {"origin": ""}),
        ("an origin of two lines", {"origin": "a\nb"}),
        ("a control character", {"origin": "a\tb"}),
        ("a long origin", {"origin": "o" * 256}),
        ("an origin that is not Unicode", {"origin": "\ud800"}),
        ("a negative size", {"size": -1}),
        ("too many entries", {"size": LOG_SIZE_MAX + 1}),
        ("a short root", {"root": bytes(31)}),
        ("an empty extension", {"extensions": ("",)}),
        ("an extension of two lines", {"extensions": ("a\nb",)}),
    ],
)
def test_what_is_out_of_limits_is_no_checkpoint(what: str, changes: dict[str, object]) -> None:
    fields = {"origin": "log", "size": 1, "root": bytes(32), **changes}
    with pytest.raises(MalformedRecord):
        Checkpoint(**fields)  # type: ignore[arg-type]


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "log\n1\n",
        f"log\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"log\n01\n{ROOT}\n",
        f"log\n+1\n{ROOT}\n",
        f"log\n-1\n{ROOT}\n",
        f"log\n1 \n{ROOT}\n",
        f"log\n\n{ROOT}\n",
        f"log\n\u0661\n{ROOT}\n",
        f"log\n1_0\n{ROOT}\n",
        f"log\n{LOG_SIZE_MAX + 1}\n{ROOT}\n",
        f"log\n{'9' * 5000}\n{ROOT}\n",
        f"log\n1\n{ROOT[:-1]}\n",
        f"log\n1\n{ROOT[:-2]}B=\n",
        f"log\n1\n{ROOT} \n",
        f"log\n1\n{ROOT[:-4]}\n",
        f"log\n1\n{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}\n",
        f"log\n1\n{ROOT}\n\n",
        f"log\r\n1\n{ROOT}\n",
        "log\n1\n" + ROOT + "\n" + "x\n" * NOTE_BYTES_MAX,
    ],
)
def test_texts_that_only_look_like_a_checkpoint_are_refused(text: str) -> None:
    with pytest.raises(MalformedRecord):
        decode_checkpoint(text.encode())


def test_bytes_that_are_no_text_are_no_checkpoint() -> None:
    with pytest.raises(MalformedRecord, match="UTF-8"):
        decode_checkpoint(f"log\n1\n{ROOT}\n".encode() + b"\xff\n")


@pytest.mark.parametrize("origin", ["", "muniment.log/", "muniment.log/" + "A" * 52, "example.com/log"])
def test_only_origins_of_our_logs_name_a_volume(origin: str) -> None:
    with pytest.raises(MalformedRecord):
        volume_of(origin)


def test_an_origin_that_cannot_name_a_key_cannot_sign() -> None:
    for origin in ("go.sum database tree", "a+b", "a\u00a0b", "a\u2028b"):
        with pytest.raises(MalformedRecord):
            sign_checkpoint(LOG, Checkpoint(origin, 0, bytes(32)))


# --- notes -----------------------------------------------------------------------------------------


def line(name: str, blob: bytes) -> str:
    return f"\u2014 {name} {base64.b64encode(blob).decode()}\n"


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "\n",
        line("log", bytes(68))[:-1],
        line("log", bytes(4)),
        line("log", b""),
        line("", bytes(68)),
        line("l og", bytes(68)),
        line("l+og", bytes(68)),
        line("l\u00a0og", bytes(68)),
        line("l\u2028og", bytes(68)),
        line("l" * 256, bytes(68)),
        line("log", bytes(68)).replace("\u2014", "-"),
        line("log", bytes(68)).replace(" ", "  "),
        line("log", bytes(68)).replace("=", ""),
        line("log", bytes(68)) + "\n",
        line("log", bytes(68)) + "more\n",
        line("log", bytes(68)) * (NOTE_SIGNATURES_MAX + 1),
    ],
)
def test_lines_that_are_no_signatures_spoil_a_note(tail: str) -> None:
    with pytest.raises(MalformedRecord):
        decode_note(f"text\n\n{tail}".encode())


@pytest.mark.parametrize("text", [b"", b"text", b"te\0xt\n", b"te\rxt\n", b"\xff\n"])
def test_texts_that_no_note_has_are_not_signed(text: bytes) -> None:
    with pytest.raises(MalformedRecord):
        sign_note(LOG, "log", text)


def test_a_note_has_room_for_64_signatures_and_8_kib() -> None:
    many = tuple(NoteSignature(f"w{i}", bytes(4), bytes(64)) for i in range(NOTE_SIGNATURES_MAX))
    assert decode_note(encode_note(Note(b"text\n", many))).signatures == many
    with pytest.raises(MalformedRecord, match="signatures"):
        encode_note(Note(b"text\n", (*many, NoteSignature("x", bytes(4), bytes(64)))))
    with pytest.raises(MalformedRecord, match="signatures"):
        encode_note(Note(b"text\n", ()))
    with pytest.raises(MalformedRecord, match="bytes"):
        sign_note(LOG, "log", b"x" * NOTE_BYTES_MAX + b"\n")


@given(names, st.lists(st.just("") | names, min_size=1, max_size=5))
def test_a_text_may_have_empty_lines(name: str, lines: list[str]) -> None:
    text = ("\n".join(lines) + "\n").encode()
    assert open_note(sign_note(LOG, name, text), name, LOG.public_key) == text


def test_signatures_of_others_are_passed_over_and_bad_ones_of_the_key_are_not() -> None:
    origin = CHECKPOINT.origin
    mine = key_id(origin, ED25519, LOG.public_key)
    for name, identifier in ((origin, bytes(4)), ("other", mine)):
        note = decode_note(NOTE).adding(NoteSignature(name, identifier, b"?"))
        assert open_checkpoint(encode_note(note), LOG.public_key) == CHECKPOINT
    for signature in (b"?", bytes(64), LOG.sign(b"else"), LOG.sign(encode_checkpoint(CHECKPOINT)) + b"?"):
        spoilt = NOTE + line(origin, mine + signature).encode()
        with pytest.raises(MalformedRecord, match="verify"):
            open_checkpoint(spoilt, LOG.public_key)


# --- cosignatures ----------------------------------------------------------------------------------


def test_cosignatures_of_known_witnesses_come_back_with_their_times() -> None:
    note = cosigned()
    assert open_checkpoint(note, LOG.public_key) == CHECKPOINT
    assert open_cosignatures(note, KEYS) == dict.fromkeys(NAMES, NOW_S)
    assert open_cosignatures(note, {NAMES[1]: KEYS[NAMES[1]]}) == {NAMES[1]: NOW_S}
    assert open_cosignatures(NOTE, KEYS) == {}
    assert open_cosignatures(note, {}) == {}


def test_a_cosignature_is_renewed_and_not_doubled() -> None:
    note = cosign(WITNESSES[0], NAMES[0], cosigned(), time_s=NOW_S + 9)
    assert open_cosignatures(note, KEYS) == {NAMES[0]: NOW_S + 9, NAMES[1]: NOW_S, NAMES[2]: NOW_S}
    assert len(decode_note(note).signatures) == 4


def test_of_several_cosignatures_of_one_witness_the_latest_counts() -> None:
    fields = []
    for time_s in (NOW_S, NOW_S + 5, NOW_S + 3):
        added = decode_note(cosign(WITNESSES[0], NAMES[0], NOTE, time_s=time_s)).signatures[1]
        fields.append(line(added.name, added.key_id + added.signature))
    assert open_cosignatures(NOTE + "".join(fields).encode(), KEYS) == {NAMES[0]: NOW_S + 5}


@pytest.mark.parametrize("bit", range(0, 8 * 76, 7))
def test_any_changed_bit_of_a_cosignature_loses_or_spoils_it(bit: int) -> None:
    added = decode_note(cosign(WITNESSES[0], NAMES[0], NOTE, time_s=NOW_S)).signatures[1]
    blob = bytearray(added.key_id + added.signature)
    blob[bit // 8] ^= 1 << bit % 8
    note = NOTE + line(added.name, bytes(blob)).encode()
    if bit < 32:
        assert open_cosignatures(note, KEYS) == {}
    else:
        with pytest.raises(MalformedRecord):
            open_cosignatures(note, KEYS)


def test_a_cosignature_is_on_one_text_only() -> None:
    added = decode_note(cosign(WITNESSES[0], NAMES[0], NOTE, time_s=NOW_S)).signatures[1]
    larger = decode_note(sign_checkpoint(LOG, Checkpoint(CHECKPOINT.origin, 4474, CHECKPOINT.root)))
    with pytest.raises(MalformedRecord, match="verify"):
        open_cosignatures(encode_note(larger.adding(added)), KEYS)


def test_neither_kind_of_signature_passes_for_the_other() -> None:
    """The log's key as a witness, and a witness's as the log: types, and so key ids, differ."""
    origin = CHECKPOINT.origin
    assert open_cosignatures(NOTE, {origin: LOG.public_key}) == {}
    note = Note(encode_checkpoint(CHECKPOINT), (NoteSignature("x", bytes(4), b"?"),))
    only_cosigned = cosign(LOG, origin, encode_note(note), time_s=NOW_S)
    with pytest.raises(MalformedRecord, match="expected key"):
        open_checkpoint(only_cosigned, LOG.public_key)
    signed = LOG.sign(cosigned_message(note.text, NOW_S))
    as_log = NoteSignature(origin, key_id(origin, ED25519, LOG.public_key), signed)
    with pytest.raises(MalformedRecord, match="verify"):
        open_checkpoint(encode_note(note.adding(as_log)), LOG.public_key)


def test_one_key_is_not_two_witnesses() -> None:
    """A cosignature does not commit to its name, so anybody could make a second one of it."""
    added = decode_note(cosign(WITNESSES[0], NAMES[0], NOTE, time_s=NOW_S)).signatures[1]
    copied = NoteSignature("w2", key_id("w2", COSIGNATURE_V1, WITNESSES[0].public_key), added.signature)
    note = encode_note(decode_note(NOTE).adding(added, copied))
    assert open_cosignatures(note, {"w2": WITNESSES[0].public_key}) == {"w2": NOW_S}
    with pytest.raises(InvalidRequest, match="same key"):
        open_cosignatures(note, {NAMES[0]: WITNESSES[0].public_key, "w2": WITNESSES[0].public_key})


@pytest.mark.parametrize("time_s", [0, 1, TIME_S_MAX])
def test_times_within_limits_are_kept(time_s: int) -> None:
    assert open_cosignatures(cosigned(time_s=time_s), KEYS) == dict.fromkeys(NAMES, time_s)


def test_times_out_of_limits_are_refused() -> None:
    for time_s in (-1, TIME_S_MAX + 1):
        with pytest.raises(MalformedRecord):
            cosigned(time_s=time_s)
    for field in (b"", bytes(71), bytes(73), b"\x80" + bytes(71)):
        with pytest.raises(MalformedRecord):
            decode_cosignature(field)
    with pytest.raises(MalformedRecord):
        encode_cosignature(0, bytes(63))


def test_only_verified_cosignatures_of_known_witnesses_are_taken_over() -> None:
    known = {NAMES[0]: KEYS[NAMES[0]], NAMES[1]: KEYS[NAMES[1]]}
    mine = cosign(WITNESSES[0], NAMES[0], NOTE, time_s=NOW_S)
    theirs = decode_note(cosigned(time_s=NOW_S + 1))
    false_log = NoteSignature(
        CHECKPOINT.origin, key_id(CHECKPOINT.origin, ED25519, LOG.public_key), bytes(64)
    )
    merged = merge_cosignatures(mine, encode_note(theirs.adding(false_log)), known)
    assert open_checkpoint(merged, LOG.public_key) == CHECKPOINT
    assert open_cosignatures(merged, KEYS) == dict.fromkeys(known, NOW_S + 1)
    assert merge_cosignatures(merged, mine, known) == merged
    spoilt = NoteSignature(
        NAMES[1], key_id(NAMES[1], COSIGNATURE_V1, KEYS[NAMES[1]]), encode_cosignature(1, bytes(64))
    )
    with pytest.raises(MalformedRecord, match="verify"):
        merge_cosignatures(mine, encode_note(theirs.adding(spoilt)), known)
    other = sign_checkpoint(LOG, Checkpoint(CHECKPOINT.origin, 1, bytes(32)))
    with pytest.raises(InvalidRequest, match="another checkpoint"):
        merge_cosignatures(mine, other, known)
