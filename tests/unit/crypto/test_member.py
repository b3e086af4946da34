"""Members' secrets on three levels, and messages under keys that were not made from what they encrypt."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from muniment.crypto.cipher import DoesNotOpen
from muniment.crypto.hashing import derive
from muniment.crypto.member import MemberSecret, ReadSecret, VerifySecret
from muniment.crypto.messages import open_message, open_once, seal_message, seal_once
from muniment.crypto.wrapping import wrap
from muniment.errors import MalformedRecord
from muniment.spec import tags

ANNA = MemberSecret(bytes(range(32)))
BOB = MemberSecret(bytes(range(1, 33)))


def counted() -> Callable[[int], bytes]:
    """Bytes that are never the same twice."""
    numbers = itertools.count()
    return lambda size: next(numbers).to_bytes(size, "big")


def test_each_level_derives_the_one_below() -> None:
    assert ANNA.read.seed == derive(tags.MEMBER_READ_SEED, ANNA.seed)
    assert ANNA.verify.seed == derive(tags.MEMBER_VERIFY_SEED, ANNA.read.seed)
    assert ANNA.read.verify.seed == ANNA.verify.seed
    assert ANNA.member == ANNA.read.member == ANNA.verify.member == ANNA.identity.public_key
    assert ReadSecret(ANNA.member, ANNA.read.seed).verify.seed == ANNA.verify.seed


def test_a_level_has_nothing_of_those_above() -> None:
    reader, auditor = (
        ReadSecret(ANNA.member, ANNA.read.seed),
        VerifySecret(ANNA.member, ANNA.verify.seed),
    )
    assert not {"identity", "read", "card"} & set(dir(reader))
    assert not {"identity", "read", "card", "verify"} & set(dir(auditor))
    card = ANNA.card("Anna")
    for_readers = wrap(card.read_key, b"secret", b"context")
    assert reader.wrap_key.unwrap(for_readers, b"context") == b"secret"
    with pytest.raises(MalformedRecord):
        auditor.wrap_key.unwrap(for_readers, b"context")


def test_a_card_is_the_public_side() -> None:
    card = ANNA.card("Anna")
    assert (card.member, card.name) == (ANNA.member, "Anna")
    assert card.read_key == ANNA.read.wrap_key.public_key
    assert card.verify_key == ANNA.verify.wrap_key.public_key
    assert (
        len({card.member, card.read_key, card.verify_key, ANNA.seed, ANNA.read.seed, ANNA.verify.seed}) == 6
    )
    with pytest.raises(MalformedRecord):
        ANNA.card("two\nlines")


@pytest.mark.parametrize("holder", [ANNA, ANNA.read, ANNA.verify], ids=["member", "read", "verify"])
def test_no_secret_is_printed(holder: MemberSecret | ReadSecret | VerifySecret) -> None:
    for seed in (ANNA.seed, ANNA.read.seed, ANNA.verify.seed):
        assert seed.hex() not in repr(holder)
        assert repr(seed) not in repr(holder)
        assert repr(seed)[2:-1] not in repr(holder)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(MalformedRecord):
        MemberSecret(bytes(31))
    for kind in (ReadSecret, VerifySecret):
        with pytest.raises(MalformedRecord):
            kind(ANNA.member, bytes(33))
        with pytest.raises(MalformedRecord):
            kind(type(ANNA.member)(b"short"), bytes(32))


def test_a_new_member_is_made_of_entropy_alone() -> None:
    assert MemberSecret.generate(lambda size: BOB.seed[:size]).member == BOB.member


def test_a_message_opens_with_key_and_binding_only() -> None:
    entropy, key = counted(), bytes(32)
    sealed = seal_message(key, b"books", b"of 2026", entropy)
    assert open_message(key, sealed, b"of 2026") == b"books"
    assert seal_message(key, b"books", b"of 2026", entropy) != sealed
    for wrong_key, data, bound in (
        (b"\1" * 32, sealed, b"of 2026"),
        (key, sealed, b"of 2025"),
        (key, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"of 2026"),
        (key, bytes([sealed[0] ^ 1]) + sealed[1:], b"of 2026"),
        (key, sealed[:27], b"of 2026"),
        (key, b"", b"of 2026"),
    ):
        with pytest.raises(DoesNotOpen):
            open_message(wrong_key, data, bound)


def test_a_single_message_opens_with_its_key_only() -> None:
    sealed = seal_once(bytes(32), b"key of the year before")
    assert open_once(bytes(32), sealed) == b"key of the year before"
    for key, data in ((b"\1" * 32, sealed), (bytes(32), sealed[1:]), (bytes(32), b"short")):
        with pytest.raises(DoesNotOpen):
            open_once(key, data)
