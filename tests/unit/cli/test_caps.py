"""cap show knows every kind of capability, and tells no secret of any."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests.unit.cli.support import LOG_ADDRESS, FakeComposition, muni

from muniment.core.capabilities import weaken
from muniment.core.sealing import verify_key
from muniment.gateways.cli import caps
from muniment.ids import BlobId, MemberId, VolumeId, id_text
from muniment.spec.address import PeerKind, parse_address
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.cap import BlobFile, Cap, LiteralFile, ManifestFile, TreeReadCap, cap_text
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.volume_cap import Invitation, Right, VolumeCap, volume_cap_text

SECRET = bytes(range(100, 132))
BLOB, VOLUME, MEMBER = BlobId(b"b" * 32), VolumeId(b"v" * 32), MemberId(b"m" * 32)
LOG = parse_address(LOG_ADDRESS, PeerKind.LOG)
REF = BlobRef(BlobName(BLOB, BlobShape(CodecId.RS, 4, 6, 3000)), SECRET, 9000, Compression.NONE)

READ: dict[str, Cap] = {
    "literal": LiteralFile(SECRET),
    "one blob": BlobFile(REF),
    "manifest": ManifestFile(REF, 70_000),
    "tree": TreeReadCap(REF),
}
STORED = READ | {f"{name}, verify": weaken(cap) for name, cap in READ.items()}
VOLUMES: dict[str, VolumeCap | Invitation] = {
    f"volume {right.value}": VolumeCap(right, VOLUME, LOG, MEMBER, SECRET) for right in Right
} | {"invitation": Invitation(VOLUME, LOG)}
TEXTS = {name: cap_text(cap) for name, cap in STORED.items()} | {
    name: volume_cap_text(cap) for name, cap in VOLUMES.items()
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_kind_is_recognised_and_its_secret_not_told(name: str) -> None:
    text = TEXTS[name]
    done = muni(FakeComposition(), "cap", "show", "-", stdin=text)
    assert done.code == 0, done.err
    document = muni(FakeComposition(), "cap", "show", text, "--json").json
    assert [document["kind"], document["right"]] == text.split(":")[1:3]
    assert document["grants"] == caps._GRANTS[document["kind"], document["right"]]
    for value in document.values():
        assert str(value) in done.text
    payload = text.rpartition(":")[2]
    for secret in (SECRET, verify_key(SECRET)):
        for told in (secret.hex(), id_text(secret), base64.b64encode(secret).decode(), repr(secret)):
            assert told not in done.text
    assert payload not in done.text


def test_what_is_named() -> None:
    for name, text in TEXTS.items():
        document = muni(FakeComposition(), "cap", "show", text, "--json").json
        if name in VOLUMES:
            assert (document["volume"], document["log"]) == (id_text(VOLUME), LOG_ADDRESS)
            assert document.get("member") == (None if name == "invitation" else id_text(MEMBER))
        elif "literal" not in name:
            assert (document["blob"], document["coding"]) == (id_text(BLOB), "rs-4-6")
    sizes = {name: caps.describe(TEXTS[name]).get("size_bytes") for name in READ}
    assert sizes == {"literal": 32, "one blob": 9000, "manifest": 70_000, "tree": None}


def test_a_grant_is_told_for_each_kind_and_no_other() -> None:
    kinds = {tuple(text.split(":")[1:3]) for text in TEXTS.values()}
    assert kinds == set(caps._GRANTS)


@pytest.mark.parametrize(
    "text",
    [
        TEXTS["volume read"][:-1],
        TEXTS["one blob"] + "a",
        "mun:volume:",
        "mun:volume:own:aa",
        LOG_ADDRESS,
        "mun:",
        "",
    ],
)
def test_what_is_none_is_refused_and_not_repeated(text: str, tmp_path: Path) -> None:
    (tmp_path / "cap").write_text(text)
    done = muni(FakeComposition(), "cap", "show", f"@{tmp_path / 'cap'}")
    assert (done.code, done.text) == (2, "")
    assert "not a valid capability" in done.err
    payload = text.rpartition(":")[2]
    assert not payload or payload not in done.err
