"""Task groups end in one plain error."""

from __future__ import annotations

import asyncio

from muniment.engine.groups import first_error


def test_the_first_error_is_the_one_and_the_others_are_noted() -> None:
    first, second = OSError("disk"), ValueError("and more")
    group = BaseExceptionGroup("g", [BaseExceptionGroup("h", [asyncio.CancelledError(), first]), second])
    assert first_error(group) is first
    assert first.__notes__ == ["and then: and more"]


def test_the_same_words_twice_are_not_noted() -> None:
    first = OSError("disk")
    assert first_error(ExceptionGroup("g", [first, OSError("disk")])) is first
    assert not hasattr(first, "__notes__")


def test_a_group_without_errors_is_itself() -> None:
    group = BaseExceptionGroup("g", [asyncio.CancelledError()])
    assert first_error(group) is group
