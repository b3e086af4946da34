"""Who can open what: real keys, really wrapped, in real logs."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import zstandard
from tests.unit.membership.support import START_NS, secret

from muniment.core.entries import Place, open_names, open_transaction, seal_transaction
from muniment.core.key_ring import KeyRing
from muniment.core.keys import EpochKeys, founding, grant, open_chain, open_grant, rotation
from muniment.core.membership import EpochStart, Membership
from muniment.crypto.entries import SignedEntry, open_entry, sign_entry
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.crypto.messages import seal_message
from muniment.errors import InternalError, InvalidRequest, MalformedRecord, NotCapable
from muniment.ids import BlobId, MemberId
from muniment.spec.act import (
    Accept,
    Act,
    Card,
    Grant,
    Join,
    Kick,
    Leave,
    Quorum,
    Role,
    Rotate,
    VolumePolicy,
)
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.entry import NO_ENTRY, NO_VOLUME
from muniment.spec.operation import Extent, Kind, Make, Snapshot
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.transaction import PLAIN_BYTES_MAX, Transaction

POLICY = VolumePolicy(Quorum.ONE, 3600, "4/6", 5, 1 << 22)
LOW_ORDER = bytes(32)
"""An X25519 point with which everybody agrees on the same secret; nothing can be wrapped to it."""


def entropy_from(start: int = 1) -> itertools.count[int]:
    return itertools.count(start)


class Books:
    """A volume with real keys; everybody is known by name and has a ring that follows the log.

    Attributes:
        state: the fold.
        log: its entries.
        rings: of those who ever joined.
    """

    def __init__(self) -> None:
        self.state = Membership()
        self.log: list[SignedEntry] = []
        self.rings: dict[str, KeyRing] = {}
        self._counter = entropy_from()
        act, _ = founding("books", POLICY, secret("anna").card("anna"), self.entropy)
        self.watch("anna")
        self.submit("anna", act)

    def entropy(self, size: int) -> bytes:
        """Never the same twice, and never like a hash."""
        return next(self._counter).to_bytes(size, "big") if size else b""

    def watch(self, name: str) -> KeyRing:
        self.rings[name] = KeyRing(secret(name).read)
        self.rings[name].follow(self.state)
        return self.rings[name]

    def place(self, name: str) -> Place:
        return Place.next(self.state, secret(name).member, seen_size=0, seen_root=bytes(32), now_ns=START_NS)

    def give(self, name: str, place: Place, act: Act) -> None:
        self.admit(open_entry(sign_entry(secret(name).identity, place.entry(act))))

    def admit(self, signed: SignedEntry) -> None:
        self.state.admit(signed, self.state.size)
        self.log.append(signed)
        for ring in self.rings.values():
            ring.follow(self.state)

    def submit(self, name: str, act: Act) -> None:
        self.give(name, self.place(name), act)

    def keys(self, name: str) -> EpochKeys:
        keys = self.rings[name].newest
        assert keys is not None
        return keys

    def write(self, name: str, message: str) -> SignedEntry:
        sealed = seal_transaction(self.place(name), change(message), self.keys(name), self.entropy)
        signed = open_entry(sign_entry(secret(name).identity, sealed))
        self.admit(signed)
        return signed

    def add(self, name: str, role: Role, *, card: Card | None = None) -> None:
        card = card or secret(name).card(name)
        self.submit(name, Join(card, role, ""))
        self.submit(
            "anna", Accept(card.member, role, grant(self.state.volume, self.keys("anna"), card, role))
        )
        self.watch(name)

    def kick(self, name: str) -> None:
        gone = secret(name).member
        made, _ = rotation(self.state, self.keys("anna"), self.entropy, without=gone)
        self.submit("anna", Kick(gone, made))

    def rotate(self, name: str = "anna") -> None:
        made, _ = rotation(self.state, self.keys(name), self.entropy)
        self.submit(name, Rotate(made))


def blob(seed: int) -> BlobRef:
    shape = BlobShape(CodecId.RS, 4, 6, 1016)
    return BlobRef(
        BlobName(BlobId(bytes([seed]) * 32), shape), bytes([seed + 1]) * 32, 1000, Compression.NONE
    )


def change(message: str) -> Transaction:
    content = (Extent(0, 1000, 1), Extent(1000, 5, b"books"))
    make = Make(1, b"f", Kind.FILE, 0o644, content=content, size=1005)
    return Transaction((make, Snapshot(b"s")), (blob(1), blob(3)), message)


def refused(books: Books, name: str) -> bool:
    return books.rings[name].refusal is not None


def verify_ring(books: Books, name: str) -> KeyRing:
    ring = KeyRing(secret(name).verify)
    ring.follow(books.state)
    return ring


# --- keys and grants --------------------------------------------------------------------------------


def test_keys_of_an_epoch_belong_together() -> None:
    keys = EpochKeys.of_read(3, b"r" * 32)
    assert EpochKeys(3, keys.verify).commitment == keys.commitment
    derived = {keys.verify, keys.commitment, keys.convergence_secret(), keys.read_key()}
    anna, ben = secret("anna").member, secret("ben").member
    derived |= {
        keys.transaction_key(anna),
        keys.transaction_key(ben),
        keys.names_key(anna),
        keys.names_key(ben),
    }
    assert len(derived) == 8
    for wrong in ({"verify": b"v" * 32}, {"read": b"R" * 32}, {"read": b"short"}, {"verify": b""}):
        with pytest.raises(MalformedRecord):
            dataclasses.replace(keys, **wrong)  # type: ignore[arg-type]


def test_who_only_verifies_derives_no_read_key() -> None:
    keys = EpochKeys(3, EpochKeys.of_read(3, b"r" * 32).verify)
    for derive in (keys.convergence_secret, keys.read_key, lambda: keys.transaction_key(MemberId(bytes(32)))):
        with pytest.raises(NotCapable):
            derive()
    assert len(keys.names_key(MemberId(bytes(32)))) == 32


def test_no_key_is_printed() -> None:
    keys = EpochKeys.of_read(3, b"r" * 32)
    books = Books()
    shown = repr(keys) + repr(books.rings["anna"]) + repr(books.keys("anna"))
    for key in (keys.read_key(), keys.verify, books.keys("anna").read_key(), books.keys("anna").verify):
        assert key.hex() not in shown
        assert repr(key)[2:-1] not in shown


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("level", ["read", "verify"])
def test_a_grant_opens_as_far_as_role_and_holder_go(role: Role, level: str) -> None:
    keys, mia = EpochKeys.of_read(3, b"r" * 32), secret("mia")
    volume = Books().state.volume
    granted = grant(volume, keys, mia.card("mia"), role)
    holder: ReadSecret | VerifySecret = mia.read if level == "read" else mia.verify
    if not role.verifies:
        with pytest.raises(NotCapable):
            open_grant(volume, 3, keys.commitment, granted, holder)
        return
    opened = open_grant(volume, 3, keys.commitment, granted, holder)
    assert opened.verify == keys.verify
    assert opened.read == (keys.read if role.reads and level == "read" else None)


def test_a_grant_opens_for_its_member_volume_and_epoch_only() -> None:
    keys, mia, ben = EpochKeys.of_read(3, b"r" * 32), secret("mia"), secret("ben")
    volume = Books().state.volume
    granted = grant(volume, keys, mia.card("mia"), Role.READER)
    for wrong in (
        (NO_VOLUME, 3, keys.commitment, granted, mia.read),
        (volume, 4, keys.commitment, granted, mia.read),
        (volume, 3, bytes(32), granted, mia.read),
        (volume, 3, keys.commitment, granted, ben.read),
        (volume, 3, keys.commitment, dataclasses.replace(granted, member=ben.member), mia.read),
        (volume, 3, keys.commitment, dataclasses.replace(granted, read=granted.verify), mia.read),
    ):
        with pytest.raises(MalformedRecord):
            open_grant(*wrong)


def test_an_auditor_cannot_grant_what_he_does_not_have() -> None:
    keys = EpochKeys(3, EpochKeys.of_read(3, b"r" * 32).verify)
    with pytest.raises(NotCapable):
        grant(NO_VOLUME, keys, secret("mia").card("mia"), Role.READER)
    assert grant(NO_VOLUME, keys, secret("mia").card("mia"), Role.AUDITOR).verify


def test_the_chain_opens_backwards_only() -> None:
    old = EpochKeys.of_read(0, b"o" * 32)
    books = Books()
    made, new = rotation(books.state, books.keys("anna"), books.entropy)
    start = EpochStart(1, made.commitment, made.chain_read, made.chain_verify)
    zero = books.state.epoch_start(0).commitment
    assert open_chain(new, start, zero) == books.keys("anna")
    assert open_chain(EpochKeys(1, new.verify), start, zero) == EpochKeys(0, books.keys("anna").verify)
    for wrong in (
        (old, start, zero),
        (new, start, old.commitment),
        (new, dataclasses.replace(start, chain_read=start.chain_verify), zero),
        (EpochKeys(1, new.verify), dataclasses.replace(start, chain_verify=start.chain_read), zero),
    ):
        with pytest.raises(MalformedRecord):
            open_chain(*wrong)


# --- rings ------------------------------------------------------------------------------------------


def test_a_newcomer_opens_all_that_came_before() -> None:
    books = Books()
    first = books.write("anna", "first")
    for _ in range(5):
        books.rotate()
    books.add("mia", Role.READER)
    assert open_transaction(first.entry, books.rings["mia"]) == change("first")
    # With nothing but the state and the secret, as on a new machine.
    fresh = KeyRing(secret("mia").read)
    fresh.follow(books.state)
    assert [fresh.keys(epoch) for epoch in range(6)] == [
        books.rings["anna"].keys(epoch) for epoch in range(6)
    ]


def test_a_removed_member_opens_nothing_that_came_after() -> None:
    books = Books()
    books.add("mia", Role.WRITER)
    before = books.write("anna", "before")
    books.kick("mia")
    after = [books.write("anna", "after"), books.write("anna", "later")]
    books.rotate()
    after.append(books.write("anna", "much later"))
    mia = books.rings["mia"]
    assert open_transaction(before.entry, mia).message == "before"
    for signed in after:
        for ring in (mia, verify_ring(books, "mia")):
            with pytest.raises(NotCapable):
                open_transaction(signed.entry, ring)
            with pytest.raises(NotCapable):
                open_names(signed.entry, ring)
    # Not with anything the log tells of later epochs either: every grant and chain, tried with all she has.
    had = [mia.keys(0)]
    for epoch in (1, 2):
        start = books.state.epoch_start(epoch)
        for keys in had:
            stronger = EpochKeys.of_read(epoch, keys.read_key())
            assert stronger.commitment != start.commitment
            with pytest.raises(MalformedRecord):
                open_chain(stronger, start, books.state.epoch_start(epoch - 1).commitment)
    for signed in books.log:
        act = signed.entry.act
        if not isinstance(act, Rotate | Kick):
            continue
        rotated = act.rotation
        for granted in rotated.grants:
            for holder in (secret("mia").read, secret("mia").verify):
                with pytest.raises(MalformedRecord):
                    open_grant(
                        books.state.volume, signed.entry.epoch + 1, rotated.commitment, granted, holder
                    )


def test_a_member_who_left_opens_nothing_that_came_after() -> None:
    books = Books()
    books.add("mia", Role.WRITER)
    books.submit("mia", Leave())
    books.rotate()
    with pytest.raises(NotCapable):
        open_transaction(books.write("anna", "after").entry, books.rings["mia"])


def test_the_convergence_secret_changes_with_the_epoch() -> None:
    books = Books()
    before = books.keys("anna").convergence_secret()
    books.rotate()
    assert books.keys("anna").convergence_secret() != before


def test_an_auditor_opens_names_and_no_content() -> None:
    books = Books()
    first = books.write("anna", "first")
    books.rotate()
    books.add("otto", Role.AUDITOR)
    second = books.write("anna", "second")
    for ring in (books.rings["otto"], verify_ring(books, "otto"), verify_ring(books, "anna")):
        for signed in (first, second):
            assert open_names(signed.entry, ring) == (blob(1).name, blob(3).name)
            with pytest.raises(NotCapable):
                open_transaction(signed.entry, ring)
        assert ring.refusal is None


def test_a_witness_has_no_keys() -> None:
    books = Books()
    books.add("wim", Role.WITNESS)
    assert books.rings["wim"].newest is None
    assert books.rings["wim"].refusal is None
    with pytest.raises(NotCapable):
        books.rings["wim"].keys(0)


def test_an_auditor_who_became_a_reader_reads_what_he_could_only_verify() -> None:
    books = Books()
    first = books.write("anna", "first")
    books.add("otto", Role.AUDITOR)
    books.rotate()
    ring = books.rings["otto"]
    assert open_names(first.entry, ring)
    card = secret("otto").card("otto")
    books.submit("otto", Join(card, Role.READER, ""))
    granted = grant(books.state.volume, books.keys("anna"), card, Role.READER)
    books.submit("anna", Accept(card.member, Role.READER, granted))
    assert open_transaction(first.entry, ring).message == "first"


def test_a_stranger_has_no_keys() -> None:
    books = Books()
    books.submit("zoe", Join(secret("zoe").card("zoe"), Role.WRITER, "please"))
    assert books.watch("zoe").newest is None
    with pytest.raises(NotCapable):
        open_transaction(books.write("anna", "secret").entry, books.rings["zoe"])


def test_wrong_grants_are_noticed_and_made_up_for_by_the_next_epoch() -> None:
    books = Books()
    books.add("mia", Role.READER)
    made, _ = rotation(books.state, books.keys("anna"), books.entropy)
    _, others = rotation(books.state, books.keys("anna"), books.entropy)
    mia = secret("mia").member
    for_mia = grant(books.state.volume, others, secret("mia").card("mia"), Role.READER)
    grants = tuple(for_mia if one.member == mia else one for one in made.grants)
    books.submit("anna", Rotate(dataclasses.replace(made, grants=grants)))
    hidden = books.write("anna", "hidden")
    assert [refused(books, name) for name in ("anna", "mia")] == [False, True]
    with pytest.raises(NotCapable):
        open_transaction(hidden.entry, books.rings["mia"])
    books.rotate()
    assert not refused(books, "mia")
    assert open_transaction(hidden.entry, books.rings["mia"]).message == "hidden"


def test_one_of_several_accepting_owners_may_have_wrapped_nonsense() -> None:
    books = Books()
    card = secret("mia").card("mia")
    right = grant(books.state.volume, books.keys("anna"), card, Role.READER)
    wrong = Grant(card.member, b"n" * 80, b"n" * 80)
    books.submit("mia", Join(card, Role.READER, ""))
    books.submit("anna", Accept(card.member, Role.READER, right))
    books.state._grants[card.member] = (wrong, right)  # as two votes would leave it
    ring = books.watch("mia")
    assert ring.newest == books.keys("anna")
    assert ring.refusal is None


def test_a_broken_chain_is_as_good_as_no_key() -> None:
    books = Books()
    first = books.write("anna", "first")
    made, _ = rotation(books.state, books.keys("anna"), books.entropy)
    books.submit("anna", Rotate(dataclasses.replace(made, chain_read=b"c" * 48)))
    books.add("mia", Role.READER)
    with pytest.raises(NotCapable):
        open_transaction(first.entry, books.rings["mia"])
    assert open_transaction(first.entry, books.rings["anna"]).message == "first"


def test_a_card_of_which_nothing_can_be_made_does_not_stop_a_rotation() -> None:
    books = Books()
    bad = dataclasses.replace(secret("eve").card("eve"), read_key=LOW_ORDER)
    with pytest.raises(MalformedRecord):
        grant(books.state.volume, books.keys("anna"), bad, Role.READER)
    books.submit("eve", Join(bad, Role.READER, ""))
    books.submit("anna", Accept(bad.member, Role.READER, Grant(bad.member, bytes(80), bytes(80))))
    books.watch("eve")
    books.rotate()
    assert books.state.epoch == 1
    assert books.rings["eve"].newest is None


def test_a_rotation_chains_the_present_epoch() -> None:
    books = Books()
    with pytest.raises(InternalError):
        rotation(books.state, EpochKeys.of_read(1, b"r" * 32), books.entropy)
    with pytest.raises(NotCapable):
        rotation(books.state, EpochKeys(0, books.keys("anna").verify), books.entropy)


def test_a_founder_who_left_and_came_back_in_the_same_epoch_has_its_keys() -> None:
    books = Books()
    books.add("ben", Role.OWNER)
    books.submit("anna", Leave())
    card = secret("anna").card("anna")
    books.submit("anna", Join(card, Role.READER, ""))
    granted = grant(books.state.volume, books.keys("ben"), card, Role.READER)
    books.submit("ben", Accept(card.member, Role.READER, granted))
    fresh = books.watch("anna")
    assert fresh.newest == books.keys("ben")


# --- transactions -----------------------------------------------------------------------------------


def test_a_transaction_comes_back_as_it_was_sealed() -> None:
    books = Books()
    for transaction in (
        change("why"),
        Transaction((Snapshot(b"s"),)),
        Transaction(tuple(Snapshot(b"%d" % number) for number in range(2000)), (), "long" * 100),
    ):
        sealed = seal_transaction(books.place("anna"), transaction, books.keys("anna"), books.entropy)
        assert open_transaction(sealed, books.rings["anna"]) == transaction
        assert open_names(sealed, books.rings["anna"]) == tuple(ref.name for ref in transaction.blobs)
        assert bool(sealed.blobs) == bool(transaction.blobs)
    assert len(sealed.sealed) < 12_000, "not compressed"


def test_neither_half_opens_in_another_envelope() -> None:
    books = Books()
    entry = books.write("anna", "why").entry
    other = books.write("anna", "other").entry
    ring = books.rings["anna"]
    books.add("ben", Role.WRITER)
    for changes in (
        {"sequence": entry.sequence + 1},
        {"time_ns": entry.time_ns + 1},
        {"seen_size": 1},
        {"seen_root": b"r" * 32},
        {"author": secret("ben").member},
        {"previous": b"p" * 32},
        {"blobs": other.blobs},
        {"blobs": b""},
        {"sealed": other.sealed},
        {"sealed": entry.sealed[:-1]},
        {"sealed": b"short"},
    ):
        changed = dataclasses.replace(entry, **changes)
        with pytest.raises(MalformedRecord):
            open_transaction(changed, ring)
        if not {"sealed", "blobs"} & set(changes):
            with pytest.raises(MalformedRecord):
                open_names(changed, ring)


def test_only_transactions_are_opened_and_only_in_their_epoch_sealed() -> None:
    books = Books()
    act = books.log[0].entry
    for opens in (open_transaction, open_names):
        with pytest.raises(InternalError):
            opens(act, books.rings["anna"])
    with pytest.raises(InternalError):
        seal_transaction(books.place("anna"), change(""), EpochKeys.of_read(1, b"r" * 32), books.entropy)


def test_a_transaction_that_is_too_large_is_the_callers_fault() -> None:
    books = Books()
    inline = tuple(Extent(at * 2048, 2048, bytes(2048)) for at in range(PLAIN_BYTES_MAX // 2048))
    large = Transaction((Make(1, b"f", Kind.FILE, 0o644, content=inline, size=PLAIN_BYTES_MAX),))
    with pytest.raises(InvalidRequest):
        seal_transaction(books.place("anna"), large, books.keys("anna"), books.entropy)


@pytest.mark.parametrize(
    "plain",
    [b"", b"\2", b"\0", b"\0rubbish", b"\1rubbish", b"\1(\xb5/\xfd\0", b"\0" + bytes(PLAIN_BYTES_MAX + 1)],
    ids=["nothing", "unknown", "stored nothing", "stored", "packed", "cut", "long"],
)
def test_hostile_plaintext_is_refused_in_one_way(plain: bytes) -> None:
    assert_refused(plain)


def test_compressed_bombs_and_trailers_are_refused() -> None:
    compress = zstandard.ZstdCompressor().compress
    good = compress(bytes(100))
    for packed in (
        compress(bytes(PLAIN_BYTES_MAX + 1)),
        good + b"trailer",
        good + good,
        compress(b""),
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100)),
        good[:-1],
    ):
        assert_refused(b"\1" + packed)


def assert_refused(plain: bytes) -> None:
    """Sealed by a member as it must be, but not a transaction."""
    books = Books()
    keys, place = books.keys("anna"), books.place("anna")
    entry = place.entry(None, b"\0")
    sealed = seal_message(keys.transaction_key(place.author), plain, entry.bound(), books.entropy)
    with pytest.raises(MalformedRecord):
        open_transaction(dataclasses.replace(entry, sealed=sealed), books.rings["anna"])


# --- places -----------------------------------------------------------------------------------------


def test_a_place_joins_on_to_the_log_and_to_what_is_under_way() -> None:
    books = Books()
    place = books.place("anna")
    assert (place.sequence, place.previous, place.epoch) == (1, books.log[0].hash, 0)
    first = open_entry(sign_entry(secret("anna").identity, place.entry(Leave())))
    assert place.after(first.hash) == dataclasses.replace(place, sequence=2, previous=first.hash)
    assert Place.next(
        Membership(), secret("anna").member, seen_size=0, seen_root=bytes(32), now_ns=START_NS
    ) == Place(NO_VOLUME, 0, secret("anna").member, 0, NO_ENTRY, 0, bytes(32), START_NS)


def test_an_author_whose_clock_is_behind_takes_the_time_of_the_log() -> None:
    books = Books()
    late = Place.next(
        books.state, secret("anna").member, seen_size=0, seen_root=bytes(32), now_ns=START_NS - 10**12
    )
    assert late.time_ns == START_NS
