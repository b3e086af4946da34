"""Bytes in JSON."""

from __future__ import annotations

import pytest

from muniment.spec.base64url import base64url, from_base64url


@pytest.mark.parametrize("length", range(7))
def test_bytes_come_back_and_texts_have_no_padding(length: int) -> None:
    data = b"\xff\xfe\xfb\xef\xbe\xff"[:length]
    text = base64url(data)
    assert from_base64url(text) == data
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("text", ["a", "ab=c", "ab c", "\n", "ä"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_base64url(text)
