"""Key files: damage, a wrong passphrase and a hostile file are told apart, the last at no cost."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.crypto import key_file
from muniment.crypto.key_file import PASSPHRASE_CHARS_MAX, is_locked, lock_seed, unlock_seed
from muniment.errors import IntegrityError, InvalidRequest, MalformedRecord, PassphraseWrong, UnknownVersion
from muniment.spec.key_file import (
    KEY_FILE_BYTES_MAX,
    LANES_MAX,
    MEMORY_KIB_MAX,
    MEMORY_KIB_MIN,
    PASSES_MAX,
    KeyFileCost,
    LockedKey,
    OpenKey,
    decode_key_file,
    encode_key_file,
)

SEED = bytes(range(32))
PASSPHRASE = "correct horse battery staple"
CHEAP = KeyFileCost(MEMORY_KIB_MIN, 1, 1)
VECTORS = Path(__file__).parents[2] / "vectors" / "log_v1.json"


class Entropy:
    """Predictable, and never the same twice."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self, count: int) -> bytes:
        self.given += 1
        return bytes((self.given,)) * count


LOCKED = lock_seed(SEED, PASSPHRASE, entropy=Entropy(), cost=CHEAP)
OPEN = lock_seed(SEED, "", entropy=Entropy())


def sealed_again(first: str, body: bytes) -> bytes:
    """A file with a right checksum, whatever is in it."""
    checked = f"{first}\n{base64.b64encode(body).decode()}\n".encode()
    return checked + b"%08x\n" % zlib.crc32(checked)


def body_of(data: bytes) -> bytes:
    return base64.b64decode(data.split(b"\n")[1])


FIRST = LOCKED.decode().split("\n")[0]


def no_derivation(*_: object) -> bytes:
    raise AssertionError("something was derived")


# --- what a file is --------------------------------------------------------------------------------


def test_a_locked_seed_comes_back() -> None:
    assert unlock_seed(LOCKED, PASSPHRASE) == SEED
    assert is_locked(LOCKED)
    for form in (SEED, SEED.hex().encode(), base64.b64encode(SEED)[:40], PASSPHRASE.encode()):
        assert form not in LOCKED


def test_the_default_cost_is_what_rfc_9106_recommends() -> None:
    locked = lock_seed(SEED, PASSPHRASE, entropy=Entropy())
    found = decode_key_file(locked)
    assert isinstance(found, LockedKey)
    assert (found.cost.memory_kib, found.cost.passes, found.cost.lanes) == (64 * 1024, 3, 4)
    assert unlock_seed(locked, PASSPHRASE) == SEED


def test_without_a_passphrase_the_file_says_that_it_is_not_locked() -> None:
    assert OPEN.startswith(b"muniment key v1, NOT LOCKED")
    assert not is_locked(OPEN)
    assert unlock_seed(OPEN, "") == unlock_seed(OPEN, "needless") == SEED


def test_salt_and_nonce_are_new_in_each_file() -> None:
    entropy = Entropy()
    one, other = (lock_seed(SEED, PASSPHRASE, entropy=entropy, cost=CHEAP) for _ in range(2))
    assert body_of(one)[6:22] != body_of(other)[6:22]
    assert body_of(one)[22:34] != body_of(other)[22:34]
    assert body_of(one)[34:] != body_of(other)[34:]


def test_files_hide_their_seed_in_messages() -> None:
    assert "seed" not in repr(decode_key_file(OPEN))
    assert repr(OpenKey(SEED)) == "OpenKey()"


# --- the passphrase --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", ["", " ", PASSPHRASE + " ", PASSPHRASE.upper(), PASSPHRASE[:-1], "x" * 1024]
)
def test_a_wrong_passphrase_is_named_as_such(wrong: str) -> None:
    with pytest.raises(PassphraseWrong) as caught:
        unlock_seed(LOCKED, wrong, file="alice.key")
    assert str(caught.value) == "the passphrase does not open alice.key"
    assert SEED not in str(caught.value).encode()


def test_one_text_is_one_passphrase_however_it_is_composed() -> None:
    composed, decomposed = "s\u00e9same", "se\u0301same"
    assert unlock_seed(lock_seed(SEED, composed, entropy=Entropy(), cost=CHEAP), decomposed) == SEED


@pytest.mark.parametrize("passphrase", ["x" * (PASSPHRASE_CHARS_MAX + 1), "\ud800"])
def test_what_cannot_be_a_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        lock_seed(SEED, passphrase, entropy=Entropy(), cost=CHEAP)
    assert passphrase not in str(caught.value)
    with pytest.raises(InvalidRequest):
        unlock_seed(LOCKED, passphrase)


def test_the_longest_passphrase_opens() -> None:
    longest = "\u00e9" * PASSPHRASE_CHARS_MAX
    assert unlock_seed(lock_seed(SEED, longest, entropy=Entropy(), cost=CHEAP), longest) == SEED


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_only_seeds_are_locked(seed: bytes, passphrase: str) -> None:
    with pytest.raises(MalformedRecord, match="seed"):
        lock_seed(seed, passphrase, entropy=Entropy(), cost=CHEAP)


# --- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [LOCKED, OPEN], ids=["locked", "open"])
def test_any_damage_is_named_as_such_before_anything_is_derived(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Patched, because that nothing is derived is the point, and no port stands between.
    monkeypatch.setattr(key_file, "_derive", no_derivation)
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            unlock_seed(bytes(wrong), PASSPHRASE)
    for cut in range(len(data)):
        with pytest.raises(MalformedRecord):
            unlock_seed(data[:cut], PASSPHRASE)
    for more in (b"\n", b"x", b" ", data):
        for wrong_bytes in (data + more, more + data):
            with pytest.raises(MalformedRecord):
                unlock_seed(wrong_bytes, PASSPHRASE)
    with pytest.raises(MalformedRecord):
        unlock_seed(data.replace(b"\n", b"\r\n"), PASSPHRASE)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fail_otherwise(data: bytes) -> None:
    for wrong in (data, FIRST.encode() + b"\n" + data, sealed_again(FIRST, data)):
        with pytest.raises(IntegrityError):
            unlock_seed(wrong, "")


def test_what_is_too_long_is_not_read() -> None:
    with pytest.raises(MalformedRecord, match=f"{KEY_FILE_BYTES_MAX + 1} bytes"):
        unlock_seed(b"m" * (KEY_FILE_BYTES_MAX + 1), PASSPHRASE)


@pytest.mark.parametrize("state", ["locked", "locked by a passphrase, really", "", "open"])
def test_an_unknown_state_is_refused(state: str) -> None:
    for body in (body_of(LOCKED), SEED):
        with pytest.raises(MalformedRecord, match="neither"):
            unlock_seed(sealed_again(f"muniment key v1, {state}", body), PASSPHRASE)


def test_states_are_not_exchanged() -> None:
    """A locked body under the open header, and the other way round."""
    other = OPEN.decode().split("\n")[0]
    with pytest.raises(MalformedRecord, match="neither"):
        unlock_seed(sealed_again(other, body_of(LOCKED)), PASSPHRASE)
    with pytest.raises(MalformedRecord, match="neither"):
        unlock_seed(sealed_again(FIRST, SEED), PASSPHRASE)


def test_a_newer_file_is_named_as_such() -> None:
    with pytest.raises(UnknownVersion, match="version 2"):
        unlock_seed(sealed_again("muniment key v2, locked in another way", b"?"), PASSPHRASE)


def test_base64_has_one_form() -> None:
    header, encoded, _ = LOCKED.split(b"\n", 2)
    for other in (encoded.rstrip(b"="), encoded + b"=", b" " + encoded, encoded.replace(b"==", b"B=")):
        checked = header + b"\n" + other + b"\n"
        with pytest.raises(MalformedRecord, match="base64"):
            unlock_seed(checked + b"%08x\n" % zlib.crc32(checked), PASSPHRASE)


# --- hostile files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory_kib", "passes", "lanes"),
    [
        (MEMORY_KIB_MAX + 1, 1, 1),
        (0xFFFFFFFF, 1, 1),
        (MEMORY_KIB_MIN - 1, 1, 1),
        (0, 1, 1),
        (MEMORY_KIB_MIN, 0, 1),
        (MEMORY_KIB_MIN, PASSES_MAX + 1, 1),
        (MEMORY_KIB_MIN, 255, 255),
        (MEMORY_KIB_MIN, 1, 0),
        (MEMORY_KIB_MIN, 1, LANES_MAX + 1),
    ],
)
def test_a_file_that_asks_for_too_much_or_too_little_costs_nothing(
    memory_kib: int, passes: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_file, "_derive", no_derivation)  # as above
    body = memory_kib.to_bytes(4, "big") + bytes((passes, lanes)) + body_of(LOCKED)[6:]
    with pytest.raises(MalformedRecord, match="costs out of limits"):
        unlock_seed(sealed_again(FIRST, body), PASSPHRASE)
    with pytest.raises(MalformedRecord, match="costs out of limits"):
        KeyFileCost(memory_kib, passes, lanes)


@pytest.mark.parametrize("at", [3, 4, 5, 6, 21, 22, 33, 34, 65, 66, 81])
def test_a_forged_body_with_a_right_checksum_does_not_open(at: int) -> None:
    """Costs, salt, nonce, seed and tag are all bound by the cipher."""
    body = bytearray(body_of(LOCKED))
    body[at] ^= 3
    with pytest.raises(PassphraseWrong):
        unlock_seed(sealed_again(FIRST, bytes(body)), PASSPHRASE)


# --- frozen ----------------------------------------------------------------------------------------


def test_frozen_key_files_open_and_are_still_written_the_same() -> None:
    for vector in json.loads(VECTORS.read_text())["key files"]:
        text, seed = vector["text"].encode(), bytes.fromhex(vector["seed"])
        assert unlock_seed(text, vector["passphrase"]) == seed
        assert encode_key_file(decode_key_file(text)) == text
        cost = KeyFileCost(*vector["cost"])
        assert lock_seed(seed, vector["passphrase"], entropy=Entropy(), cost=cost) == text
