"""Wrapped secrets: they open for one key in one context, and are what RFC 9180 says."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from muniment.crypto.hashing import derive
from muniment.crypto.wrapping import OVERHEAD_BYTES, SECRET_BYTES_MAX, WrapKey, wrap
from muniment.errors import MalformedRecord
from muniment.spec.tags import WRAP_KEY

SEED = bytes(range(32))
KEY = WrapKey(SEED)
OTHER = WrapKey(bytes(range(1, 33)))
CONTEXT = b"muniment v1 grant\nto whom it may concern"
SECRET = bytes(range(64, 96))
WRAPPED = wrap(KEY.public_key, SECRET, CONTEXT)
VECTORS = Path(__file__).parents[2] / "vectors" / "log_v1.json"


# --- RFC 9180, written down as it stands there, for this one suite ----------------------------------


def labelled(suite: bytes, label: bytes, key: bytes) -> bytes:
    return b"HPKE-v1" + suite + label + key


def extract(salt: bytes, key: bytes) -> bytes:
    return hmac.new(salt or bytes(32), key, hashlib.sha256).digest()


def expand(key: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
    info = length.to_bytes(2, "big") + labelled(suite, label, info)
    return hmac.new(key, info + b"\1", hashlib.sha256).digest()[:length]


def open_by_rfc_9180(private: bytes, wrapped: bytes, info: bytes) -> bytes:
    secret_key = X25519PrivateKey.from_private_bytes(private)
    sent, sealed = wrapped[:32], wrapped[32:]
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    agreed = secret_key.exchange(X25519PublicKey.from_public_bytes(sent))
    prk = extract(b"", labelled(kem, b"eae_prk", agreed))
    shared = expand(prk, kem, b"shared_secret", sent + secret_key.public_key().public_bytes_raw(), 32)
    schedule = b"\0" + b"".join(
        extract(b"", labelled(suite, label, value))
        for label, value in ((b"psk_id_hash", b""), (b"info_hash", info))
    )
    secret = extract(shared, labelled(suite, b"secret", b""))
    key = expand(secret, suite, b"key", schedule, 32)
    return AESGCM(key).decrypt(expand(secret, suite, b"base_nonce", schedule, 12), sealed, b"")


@given(st.binary(min_size=1, max_size=100), st.binary(max_size=300))
def test_what_is_wrapped_is_hpke_of_the_derived_key(secret: bytes, context: bytes) -> None:
    wrapped = wrap(KEY.public_key, secret, context)
    assert len(wrapped) == len(secret) + OVERHEAD_BYTES
    assert KEY.unwrap(wrapped, context) == secret
    assert open_by_rfc_9180(derive(WRAP_KEY, SEED), wrapped, context) == secret


def test_no_two_wrappings_are_alike() -> None:
    assert wrap(KEY.public_key, SECRET, CONTEXT) != WRAPPED


# --- one key, one context, unchanged -----------------------------------------------------------------


def test_another_key_or_context_opens_nothing() -> None:
    for key, context in ((OTHER, CONTEXT), (KEY, CONTEXT + b"."), (KEY, CONTEXT[1:]), (KEY, b"")):
        with pytest.raises(MalformedRecord, match="wrapped secret"):
            key.unwrap(WRAPPED, context)


@pytest.mark.parametrize("bit", range(0, 8 * len(WRAPPED), 3))
def test_any_changed_bit_is_refused(bit: int) -> None:
    wrong = bytearray(WRAPPED)
    wrong[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MalformedRecord, match="wrapped secret"):
        KEY.unwrap(bytes(wrong), CONTEXT)


def test_the_encapsulated_key_has_one_form() -> None:
    """Its highest bit counts for nothing in X25519 and is bound all the same: HPKE hashes what was sent."""
    with pytest.raises(MalformedRecord, match="wrapped secret"):
        KEY.unwrap(WRAPPED[:31] + bytes((WRAPPED[31] ^ 0x80,)) + WRAPPED[32:], CONTEXT)


@pytest.mark.parametrize("cut", range(len(WRAPPED)))
def test_a_shortened_one_is_refused(cut: int) -> None:
    for wrong in (WRAPPED[:cut], WRAPPED + bytes(cut + 1)):
        with pytest.raises(MalformedRecord, match="wrapped secret"):
            KEY.unwrap(wrong, CONTEXT)


@given(st.binary(max_size=200))
def test_no_bytes_make_unwrapping_fail_otherwise(data: bytes) -> None:
    with pytest.raises(MalformedRecord, match="wrapped secret"):
        KEY.unwrap(data, CONTEXT)


LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 19 - 1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@pytest.mark.parametrize(
    "key", [b"", bytes(31), bytes(33), *LOW_ORDER], ids=lambda key: key.hex()[:8] or "none"
)
def test_nothing_is_wrapped_to_a_key_that_everybody_agrees_with(key: bytes) -> None:
    with pytest.raises(MalformedRecord, match="X25519"):
        wrap(key, SECRET, CONTEXT)
    with pytest.raises(MalformedRecord, match="wrapped secret"):
        KEY.unwrap(key + WRAPPED[32:], CONTEXT)


def test_only_secrets_within_limits_are_wrapped() -> None:
    longest = bytes(SECRET_BYTES_MAX)
    assert KEY.unwrap(wrap(KEY.public_key, longest, CONTEXT), CONTEXT) == longest
    for secret in (b"", longest + b"\0"):
        with pytest.raises(MalformedRecord, match="secret of"):
            wrap(KEY.public_key, secret, CONTEXT)


def test_a_wrapping_key_hides_its_secret() -> None:
    for secret in (SEED, derive(WRAP_KEY, SEED)):
        assert secret.hex() not in repr(KEY)
        assert repr(secret) not in repr(KEY)
    assert WrapKey(SEED).public_key == KEY.public_key != OTHER.public_key
    for seed in (b"", bytes(31), bytes(33)):
        with pytest.raises(MalformedRecord, match="seed"):
            WrapKey(seed)


def test_a_frozen_secret_opens() -> None:
    vector = json.loads(VECTORS.read_text())["wrapped"]
    key = WrapKey(bytes.fromhex(vector["seed"]))
    assert key.public_key.hex() == vector["public key"]
    opened = key.unwrap(bytes.fromhex(vector["wrapped"]), bytes.fromhex(vector["context"]))
    assert opened.hex() == vector["secret"]
