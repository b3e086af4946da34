"""Writes entry_v1.json: one small log of version 1 with every act and every operation, and all its keys.

Run by hand, once for a new version (`python tests/vectors/make_entry.py`): released files never change.
Wrapped keys differ each time they are made, so the file keeps those it was made with, and `make` takes them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from muniment.core.entries import Place, seal_transaction
from muniment.core.keys import EpochKeys, founding, grant, rotation
from muniment.core.membership import Membership
from muniment.crypto.entries import open_entry, sign_entry
from muniment.crypto.member import MemberSecret
from muniment.ids import BlobId, MemberId, id_text
from muniment.merkle.log_tree import EMPTY_ROOT
from muniment.spec import operation as ops
from muniment.spec.act import (
    Accept,
    Act,
    ChangePolicy,
    Grant,
    Join,
    Kick,
    Leave,
    Quorum,
    Role,
    Rotate,
    Rotation,
    VolumePolicy,
)
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.transaction import Transaction, encode_transaction

FILE = Path(__file__).with_name("entry_v1.json")
ANNA, BEN, OTTO = (MemberSecret(bytes([number]) * 32) for number in (1, 2, 3))
NAMES = {"Anna": ANNA, "Ben": BEN, "Otto": OTTO}
START_NS = 1_800_000_000 * 10**9
POLICY = VolumePolicy(Quorum.ONE, 3600, "4/6", 5, 4 << 20)


def _blob(number: int, compression: Compression) -> BlobRef:
    shape = BlobShape(CodecId.RS, 4, 6, 5016)
    return BlobRef(BlobName(BlobId(bytes([number]) * 32), shape), bytes([number + 1]) * 32, 5000, compression)


EVERYTHING = Transaction(
    (
        ops.Make(1, b"folder", ops.Kind.FOLDER, 0o750, 1000, 100, -1),
        ops.Make(
            -1,
            b"file",
            ops.Kind.FILE,
            0o644,
            1000,
            100,
            10**18,
            0,
            (ops.Extent(0, 5000, 0), ops.Extent(5000, 4000, 1, 1000), ops.Extent(9000, 3, b"end")),
            10_000,
            ((b"user.a", b""), (b"user.b", b"value")),
        ),
        ops.Make(-1, b"link", ops.Kind.SYMLINK, 0o777, content=(ops.Extent(0, 4, b"file"),), size=4),
        ops.Make(1, b"null", ops.Kind.CHARACTER_DEVICE, 0o666, rdev=259),
        ops.Link(-2, 1, b"other"),
        ops.Rename(-1, b"file", -2, 1, b"moved"),
        ops.Rename(1, b"moved", -2, 1, b"null", -4, exchange=True),
        ops.Unlink(1, b"other", -2),
        ops.Rmdir(1, b"empty", 7),
        ops.RemoveTree(1, b"old", 8),
        ops.SetAttributes(-1, 0o700, None, 0, None, 5),
        ops.SetXattr(-1, b"user.c", b"\xff", ops.XattrMode.NEW),
        ops.RemoveXattr(-1, b"user.c"),
        ops.Write(9, 3, (ops.Extent(0, 10, None),)),
        ops.Truncate(9, None, 1 << 40),
        ops.Snapshot(b"2026"),
    ),
    (_blob(10, Compression.NONE), _blob(20, Compression.ZSTD)),
    "why",
)
SMALL = Transaction((ops.Snapshot(b"small"),))


class _Log:
    """Entries one after the other, with the grants of `frozen` in place of fresh ones."""

    def __init__(self, frozen: list[list[str]] | None) -> None:
        self.state = Membership()
        self.signed: list[bytes] = []
        self.grants: list[list[str]] = []
        self._frozen = frozen
        self._counter = 0

    def entropy(self, size: int) -> bytes:
        self._counter += 1
        return self._counter.to_bytes(size, "big")

    def kept(self, granted: Grant) -> Grant:
        """The same grant as the file has it; a fresh one if there is no file."""
        if self._frozen is not None:
            _, read, verify = self._frozen[len(self.grants)]
            granted = replace(granted, read=bytes.fromhex(read), verify=bytes.fromhex(verify))
        self.grants.append([id_text(granted.member), granted.read.hex(), granted.verify.hex()])
        return granted

    def rotated(self, keys: EpochKeys, without: MemberId | None = None) -> tuple[Rotation, EpochKeys]:
        made, new = rotation(self.state, keys, self.entropy, without=without)
        return replace(made, grants=tuple(map(self.kept, made.grants))), new

    def place(self, author: MemberSecret) -> Place:
        now_ns = START_NS + 10**9 * self.state.size
        size = self.state.size
        root = bytes([size]) * 32 if size else EMPTY_ROOT
        return Place.next(self.state, author.member, seen_size=size, seen_root=root, now_ns=now_ns)

    def act(self, author: MemberSecret, act: Act) -> None:
        self.add(sign_entry(author.identity, self.place(author).entry(act)))

    def write(self, author: MemberSecret, transaction: Transaction, keys: EpochKeys) -> None:
        entry = seal_transaction(self.place(author), transaction, keys, self.entropy)
        self.add(sign_entry(author.identity, entry))

    def add(self, signed: bytes) -> None:
        self.state.admit(open_entry(signed), self.state.size)
        self.signed.append(signed)


def make(frozen: list[list[str]] | None = None) -> dict[str, Any]:
    """The vectors; deterministic when the grants are given."""
    log = _Log(frozen)
    found, zero = founding("books", POLICY, ANNA.card("Anna"), log.entropy)
    log.act(ANNA, replace(found, grants=(log.kept(found.grants[0]),)))
    for name, member, role in (("Ben", BEN, Role.WRITER), ("Otto", OTTO, Role.AUDITOR)):
        card = member.card(name)
        log.act(member, Join(card, role, "please"))
        granted = log.kept(grant(log.state.volume, zero, card, role))
        log.act(ANNA, Accept(card.member, role, granted))
    log.write(ANNA, EVERYTHING, zero)
    log.act(ANNA, ChangePolicy(replace(POLICY, vote_lifetime_s=7200)))
    log.act(OTTO, Leave())
    made, one = log.rotated(zero)
    log.act(BEN, Rotate(made))
    log.write(BEN, SMALL, one)
    made, two = log.rotated(one, without=BEN.member)
    log.act(ANNA, Kick(BEN.member, made))
    made, three = log.rotated(two)
    log.act(ANNA, Rotate(made))
    plain, names = encode_transaction(EVERYTHING)
    return {
        "members": {
            name: {
                "seed": member.seed.hex(),
                "read_seed": member.read.seed.hex(),
                "verify_seed": member.verify.seed.hex(),
                "card": [
                    id_text(member.member),
                    member.read.wrap_key.public_key.hex(),
                    member.verify.wrap_key.public_key.hex(),
                ],
            }
            for name, member in NAMES.items()
        },
        "grants": log.grants,
        "epochs": [
            {
                "read": keys.read_key().hex(),
                "verify": keys.verify.hex(),
                "commitment": keys.commitment.hex(),
                "convergence": keys.convergence_secret().hex(),
                "anna_transactions": keys.transaction_key(ANNA.member).hex(),
                "anna_names": keys.names_key(ANNA.member).hex(),
            }
            for keys in (zero, one, two, three)
        ],
        "volume": id_text(log.state.volume),
        "log": [{"hash": open_entry(signed).hash.hex(), "signed": signed.hex()} for signed in log.signed],
        "transaction": {"plain": plain.hex(), "names": names.hex()},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=1) + "\n")
