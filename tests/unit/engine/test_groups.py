"""Task groups end in one plain error."""

from __future__ import annotations

import asyncio

import pytest

from muniment.engine.groups import first_error, task_group


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


async def test_a_task_that_fails_ends_its_siblings_and_raises_what_it_raised() -> None:
    cause, failed = KeyError("why"), OSError("disk")
    siblings: list[asyncio.Task[bool]] = []

    async def fail() -> None:
        raise failed from cause

    async def own() -> None:
        async with task_group() as group:
            siblings.append(group.create_task(asyncio.Event().wait()))
            group.create_task(fail())

    with pytest.raises(OSError, match="disk") as raised:
        await own()
    assert raised.value is failed
    assert failed.__cause__ is cause
    assert siblings[0].cancelled()


async def test_what_the_block_itself_raises_comes_out_plain() -> None:
    failed = OSError("disk")

    async def own() -> None:
        async with task_group() as group:
            group.create_task(asyncio.Event().wait())
            raise failed

    with pytest.raises(OSError, match="disk") as raised:
        await own()
    assert raised.value is failed


async def test_cancelling_the_owner_cancels_the_group() -> None:
    siblings: list[asyncio.Task[bool]] = []
    begun = asyncio.Event()

    async def own() -> None:
        async with task_group() as group:
            siblings.append(group.create_task(asyncio.Event().wait()))
            begun.set()

    owner = asyncio.create_task(own())
    await begun.wait()
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert siblings[0].cancelled()
