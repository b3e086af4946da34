from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.errors import InternalError
from muniment.ids import BlobId, ShareKey, ShareNumber
from muniment.stores.naming import FANS, fan_of, foreign_parts, foreign_text, parse_key, quarantine_stem

keys = st.builds(
    lambda blob, number: ShareKey(BlobId(blob), ShareNumber(number)),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 255),
)


@given(keys)
def test_a_share_s_name_is_read_back_and_tells_its_folder(key: ShareKey) -> None:
    assert parse_key(str(key)) == key
    assert str(key)[0] == fan_of(key)


def test_the_folders_are_the_characters_of_identifiers() -> None:
    keys = [ShareKey(BlobId(bytes([first]) * 32), ShareNumber(0)) for first in range(256)]
    assert {fan_of(key) for key in keys} == set(FANS)


@given(keys, st.data())
def test_any_other_name_is_no_share_s(key: ShareKey, data: st.DataObject) -> None:
    name = str(key)
    at = data.draw(st.integers(0, len(name) - 1))
    other = data.draw(st.characters(codec="utf-8"))
    changed = data.draw(st.sampled_from([name[:at] + name[at + 1 :], name[:at] + other + name[at:]]))
    found = parse_key(changed)
    assert found is None or (str(found) == changed and found != key)


@pytest.mark.parametrize(
    "number", ["", "00", "01", "256", "-1", "+1", "1 ", "1_0", "0x1", "\u0661", "1.0", "1000"]
)
def test_a_number_has_one_spelling(number: str) -> None:
    assert parse_key("a" * 52 + "." + number) is None


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=3))
def test_a_foreign_name_is_read_back_and_safe_to_show(raw: list[bytes]) -> None:
    parts = [part.replace(b"/", b"-").replace(b"\0", b"0").decode("utf-8", "surrogateescape") for part in raw]
    text = foreign_text(*parts)
    assert text.isascii()
    assert text.isprintable()
    stem = quarantine_stem(text)
    assert stem.startswith("foreign.")
    assert "/" not in stem
    assert len(stem) <= 128
    if any(part in (".", "..") for part in parts):
        with pytest.raises(InternalError):
            foreign_parts(text)
    else:
        assert foreign_parts(text) == parts
