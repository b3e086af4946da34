"""Texts of identifiers, and of what is secret."""

from __future__ import annotations

from pathlib import Path

from muniment.ids import ID_TEXT_CHARS, id_from_text, id_text, secret_text
from muniment.node.folder import make_identity, read_identity


def test_a_text_is_read_as_what_it_was_made_of() -> None:
    for identifier in (bytes(32), bytes(range(32)), b"\xff" * 32):
        text = id_text(identifier)
        assert len(text) == ID_TEXT_CHARS
        assert text == secret_text(identifier)
        assert id_from_text(text) == identifier


def test_nothing_remembers_the_text_of_a_key_that_is_made_and_read(tmp_path: Path) -> None:
    before = id_text.cache_info().misses
    made = make_identity(tmp_path / "key", lambda size: b"s" * size)
    assert read_identity(tmp_path / "key").seed == made.seed
    assert id_text.cache_info().misses == before
