"""Capabilities: every kind survives its text, every typo is found, no secret shows."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.capabilities import weaken
from muniment.errors import InvalidCap
from muniment.ids import BlobId
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.cap import BlobFile, Cap, LiteralFile, ManifestFile, TreeReadCap, cap_text, parse_cap
from muniment.spec.limits import LITERAL_BYTES_MAX
from muniment.spec.share import BlobShape, CodecId

KEY = bytes(range(100, 132))
REF = BlobRef(
    BlobName(BlobId(bytes(range(32))), BlobShape(CodecId.RS, 4, 6, 5000)), KEY, 4984, Compression.ZSTD
)
READS: list[Cap] = [
    LiteralFile(b""),
    LiteralFile(b"x" * LITERAL_BYTES_MAX),
    BlobFile(REF),
    ManifestFile(REF, 1 << 50),
    TreeReadCap(REF),
]
ALL = READS + [weaken(cap) for cap in READS]
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


@pytest.mark.parametrize("cap", ALL, ids=lambda cap: type(cap).__name__)
def test_every_kind_survives_its_text(cap: Cap) -> None:
    assert parse_cap(cap_text(cap)) == cap
    assert parse_cap(f"  {cap_text(cap)}\n") == cap


@pytest.mark.parametrize("cap", ALL, ids=lambda cap: type(cap).__name__)
def test_every_single_typo_is_found(cap: Cap) -> None:
    text = cap_text(cap)
    start = text.rindex(":") + 1
    for at in range(start, len(text)):
        step = LETTERS[(LETTERS.index(text[at]) + 1 + at % 30) % 32]
        wrongs = [text[:at] + step + text[at + 1 :], text[:at] + text[at + 1 :], text[:at]]
        if text[at : at + 2] != text[at : at + 2][::-1]:
            wrongs.append(text[:at] + text[at : at + 2][::-1] + text[at + 2 :])
        for wrong in wrongs:
            if wrong != text:
                with pytest.raises(InvalidCap):
                    parse_cap(wrong)


@pytest.mark.parametrize("cap", ALL, ids=lambda cap: type(cap).__name__)
def test_the_right_cannot_be_changed_by_editing_the_prefix(cap: Cap) -> None:
    text = cap_text(cap)
    payload = text.rsplit(":", 1)[1]
    for prefix in ("mun:file:read:", "mun:file:verify:", "mun:tree:read:", "mun:tree:verify:", "mun:", ""):
        if prefix + payload != text:
            with pytest.raises(InvalidCap):
                parse_cap(prefix + payload)


@given(st.text(max_size=60))
def test_any_text_is_refused_in_one_way(text: str) -> None:
    for prefix in ("", "mun:file:read:", "mun:tree:verify:"):
        with pytest.raises(InvalidCap):
            parse_cap(prefix + text)


def test_a_very_long_text_is_refused_unread() -> None:
    with pytest.raises(InvalidCap, match="too long"):
        parse_cap("mun:file:read:" + "a" * 10_000)


@pytest.mark.parametrize("cap", READS[2:], ids=lambda cap: type(cap).__name__)
def test_no_secret_shows(cap: Cap) -> None:
    for shown in (repr(cap), str(cap), f"{cap}"):
        assert repr(KEY)[2:-1] not in shown
        assert KEY.hex() not in shown
        assert base64.b32encode(KEY).decode()[:20].lower() not in shown
    assert b"secret" not in repr(LiteralFile(b"secret")).encode()


@pytest.mark.parametrize("cap", READS, ids=lambda cap: type(cap).__name__)
def test_weakening_keeps_the_name_and_drops_the_key(cap: Cap) -> None:
    weak = weaken(cap)
    assert weaken(weak) == weak
    assert "verify" in cap_text(weak)
    assert base64.b32encode(KEY).decode().lower().rstrip("=")[4:40] not in cap_text(weak)
