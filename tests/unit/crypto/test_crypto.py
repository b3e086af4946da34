"""Identities, signed records and account tokens."""

from __future__ import annotations

import dataclasses

import cbor2
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.crypto.cipher import TAG_BYTES, DoesNotOpen, decrypt_into, encrypt_into
from muniment.crypto.identity import Identity, verify_signature
from muniment.crypto.records import open_record, record_from_text, record_text, sign_record
from muniment.crypto.tokens import issue_token, open_token
from muniment.errors import ClockSkewed, IntegrityError, MalformedRecord, TokenRejected, UnknownVersion
from muniment.ids import id_text
from muniment.spec import record as spec
from muniment.spec.record import NodeRecord

NODE = Identity(bytes(range(32)))
ACCOUNT = Identity(bytes(range(1, 33)))
NOW_S = 1_800_000_000


def record(**changes: object) -> NodeRecord:
    base = NodeRecord(
        NODE.node, NODE.public_key, ("127.0.0.1:34001",), "house", 10**12, 0, (1,), NOW_S, NOW_S + 3600
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was_signed() -> None:
    signed = sign_record(NODE, record())
    assert open_record(signed, now_s=NOW_S) == record()
    assert record_from_text(record_text(signed)) == signed


def test_only_a_record_that_says_what_version_1_cannot_is_of_version_2() -> None:
    plain, draining = spec.encode_payload(record()), spec.encode_payload(record(draining=True))
    assert (plain[1], draining[1]) == (1, 2)
    assert spec.decode_payload(plain) == record()
    assert spec.decode_payload(draining) == record(draining=True)
    assert open_record(sign_record(NODE, record(draining=True)), now_s=NOW_S).draining


@pytest.mark.parametrize("last", [0, 2, 3, -1, b"", "1", []])
def test_a_record_of_version_2_has_one_encoding(last: object) -> None:
    *fields, flags = cbor2.loads(spec.encode_payload(record(draining=True)))
    assert flags == 1
    with pytest.raises(MalformedRecord):
        spec.decode_payload(cbor2.dumps([*fields, last], canonical=True))
    with pytest.raises(MalformedRecord):
        spec.decode_payload(cbor2.dumps(fields, canonical=True))


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize("at", range(0, 200, 3))
def test_any_changed_byte_of_a_record_is_refused(at: int, draining: bool) -> None:
    signed = bytearray(sign_record(NODE, record(draining=draining)))
    signed[at % len(signed)] ^= 1 << (at % 8)
    with pytest.raises(IntegrityError):
        open_record(bytes(signed), now_s=NOW_S)


@pytest.mark.parametrize("cut", [0, 1, 10, 100])
def test_a_shortened_or_lengthened_record_is_refused(cut: int) -> None:
    signed = sign_record(NODE, record())
    for wrong in (signed[:cut], signed + bytes(cut + 1)):
        with pytest.raises(MalformedRecord):
            open_record(wrong, now_s=NOW_S)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_record_decoder_fail_otherwise(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        open_record(data, now_s=NOW_S)


def test_a_record_is_refused_from_its_expiry_on() -> None:
    signed = sign_record(NODE, record())
    open_record(signed, now_s=NOW_S + 3599)
    with pytest.raises(MalformedRecord, match="expired"):
        open_record(signed, now_s=NOW_S + 3600)


def test_a_record_for_another_nodes_id_is_refused() -> None:
    with pytest.raises(MalformedRecord, match="NodeId"):
        open_record(sign_record(NODE, record(node=ACCOUNT.node)), now_s=NOW_S)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "here",
        "here:",
        ":1",
        "here:0",
        "here:65536",
        "here:1x",
        "a b:1",
        "::1:5",
        "a:1\n",
        "\u0661:1",
        "a:\u0661",
    ],
)
def test_a_record_whose_address_nobody_can_connect_to_is_refused(address: str) -> None:
    with pytest.raises(MalformedRecord, match="host:port"):
        open_record(sign_record(NODE, record(addresses=("127.0.0.1:1", address))), now_s=NOW_S)


@pytest.mark.parametrize("address", ["node-1.example.org:34001", "[::1]:65535", "10.0.0.1:1", "my_host:80"])
def test_a_record_may_name_hosts_in_every_usual_way(address: str) -> None:
    known = record(addresses=(address,))
    assert open_record(sign_record(NODE, known), now_s=NOW_S) == known


def test_a_newer_record_is_named_as_such() -> None:
    payload = spec.encode_payload(record())
    assert payload[1] == 1
    newer = payload[:1] + bytes((spec.VERSION + 1,)) + payload[2:]
    with pytest.raises(UnknownVersion):
        spec.decode_payload(newer)


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": ()},
        {"addresses": ("x:1",) * 9},
        {"addresses": ("x" * 256,)},
        {"zone": "z" * 65},
        {"capacity_bytes": -1},
        {"issued_s": 1 << 41},
        {"public_key": b"short"},
        {"protocols": tuple(range(9))},
    ],
)
def test_a_record_outside_its_limits_is_refused_though_signed(changes: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        open_record(sign_record(NODE, record(**changes)), now_s=NOW_S)


@pytest.mark.parametrize("text", ["", "=", "a", "é", "ab==", "A" * 9000])
def test_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(MalformedRecord):
        open_record(record_from_text(text), now_s=NOW_S)


def test_an_identity_hides_its_seed() -> None:
    assert NODE.seed.hex() not in repr(NODE)
    assert repr(NODE.seed) not in repr(NODE)
    assert Identity.from_seed(NODE.seed).public_key == NODE.public_key
    with pytest.raises(MalformedRecord):
        Identity(b"short")


def test_signatures_verify_under_their_key_only() -> None:
    signature = NODE.sign(b"message")
    verify_signature(NODE.public_key, signature, b"message")
    for key, text in ((ACCOUNT.public_key, b"message"), (NODE.public_key, b"massage"), (b"", b"message")):
        with pytest.raises(MalformedRecord):
            verify_signature(key, signature, text)


def test_a_token_opens_at_its_node_for_its_time() -> None:
    token = issue_token(ACCOUNT, NODE.node, now_s=NOW_S)
    assert open_token(token, NODE.node, now_s=NOW_S + 1) == (ACCOUNT.account, NOW_S + 300)


def test_a_token_for_another_node_is_refused() -> None:
    token = issue_token(ACCOUNT, ACCOUNT.node, now_s=NOW_S)
    with pytest.raises(TokenRejected, match="another node"):
        open_token(token, NODE.node, now_s=NOW_S)


def test_an_expired_token_and_a_wrong_clock_are_told_apart() -> None:
    token = issue_token(ACCOUNT, NODE.node, now_s=NOW_S)
    with pytest.raises(TokenRejected, match="expired"):
        open_token(token, NODE.node, now_s=NOW_S + 310)
    for wrong_s in (NOW_S + 3600, NOW_S - 3600):
        with pytest.raises(ClockSkewed):
            open_token(token, NODE.node, now_s=wrong_s)


def _forged(key: object, algorithm: str, **claims: object) -> str:
    body = {"iss": id_text(ACCOUNT.account), "aud": id_text(NODE.node), "iat": NOW_S, "exp": NOW_S + 60}
    return jwt.encode({**body, **claims}, key, algorithm=algorithm)  # type: ignore[arg-type]


def test_forged_tokens_are_refused() -> None:
    other_key = _forged(NODE.private_key, "EdDSA")
    no_algorithm = _forged(None, "none")
    symmetric = _forged(b"k" * 32, "HS256")
    long_lived = _forged(ACCOUNT.private_key, "EdDSA", exp=NOW_S + 100_000)
    backwards = _forged(ACCOUNT.private_key, "EdDSA", exp=NOW_S - 1)
    text_times = _forged(ACCOUNT.private_key, "EdDSA", exp=NOW_S + 60.5)
    for token in (
        other_key,
        no_algorithm,
        symmetric,
        long_lived,
        backwards,
        text_times,
        "",
        "a.b.c",
        "x" * 2000,
    ):
        with pytest.raises(TokenRejected):
            open_token(token, NODE.node, now_s=NOW_S)


def test_a_ciphertext_opens_with_its_key_and_unchanged_only() -> None:
    key, plain = bytes(32), b"books of 2026"
    sealed = bytearray(len(plain) + TAG_BYTES)
    encrypt_into(key, plain, sealed)
    out = bytearray(len(plain))
    decrypt_into(key, bytes(sealed), out)
    assert out == plain
    for wrong_key, data in ((b"\1" * 32, bytes(sealed)), (key, bytes(sealed[:-1]) + b"\0"), (key, b"short")):
        with pytest.raises(DoesNotOpen):
            decrypt_into(wrong_key, data, bytearray(max(0, len(data) - TAG_BYTES)))
