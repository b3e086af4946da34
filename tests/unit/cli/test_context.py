"""Signals, and writing to a reader that has stopped reading."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import pytest
from tests.unit.cli.support import FakeComposition

from muniment.gateways.cli.context import Context, Stopped
from muniment.gateways.cli.failure import failure_of
from muniment.gateways.cli.output import BrokenOffError, StandardOutput


@pytest.fixture
def context() -> Context:
    return Context(FakeComposition())


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that ends a program; whoever started the tests may have it ignored."""
    number: signal.Signals = request.param
    before = signal.signal(number, signal.SIG_DFL)
    yield number
    signal.signal(number, before)


def test_a_signal_cancels_the_work_and_waits_for_it(context: Context, number: signal.Signals) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    with pytest.raises(Stopped) as stopped:
        context.run(work)
    assert cleaned == ["yes"]
    told = failure_of(stopped.value, context)
    assert told.exit_code == 128 + number
    assert number.name in told.message


def test_ctrl_c_cancels_the_work_and_waits_for_it(context: Context) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    with pytest.raises(KeyboardInterrupt):
        context.run(work)
    assert cleaned == ["yes"]


def test_ctrl_c_while_the_work_cancels_itself_is_ctrl_c(context: Context) -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        os.kill(os.getpid(), signal.SIGINT)
        task.cancel()
        await asyncio.Event().wait()

    with pytest.raises((KeyboardInterrupt, Stopped)) as stopped:
        context.run(work)
    assert failure_of(stopped.value, context).message == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_ignored(context: Context) -> None:
    async def work() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        return "done"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert context.run(work) == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_cancellation_of_the_works_own_is_no_signal(context: Context) -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        context.run(work)


@contextlib.contextmanager
def standard_output(stream: TextIO) -> Iterator[None]:
    """Standard output is this stream; not a fixture, since pytest puts its own in place between the two."""
    before, sys.stdout = sys.stdout, stream
    try:
        yield
    finally:
        sys.stdout = before


@contextlib.contextmanager
def pipe() -> Iterator[BinaryIO]:
    """Standard output is a pipe; its other end."""
    out, into = os.pipe()
    with os.fdopen(out, "rb") as reader, os.fdopen(into, "w") as stream, standard_output(stream):
        yield reader


def test_what_is_written_arrives() -> None:
    with pipe() as reader, StandardOutput() as out:
        assert out.write(memoryview(b"hello")) == 5
        assert reader.read(5) == b"hello"


async def test_a_write_that_waits_can_be_broken_off() -> None:
    full = asyncio.Event()
    loop = asyncio.get_running_loop()
    ended: list[type[BaseException]] = []

    def fill(out: StandardOutput) -> None:
        data = memoryview(bytes(1 << 20))
        assert out.write(data) < len(data)
        loop.call_soon_threadsafe(full.set)
        try:
            out.write(data)
        except BrokenOffError as error:
            ended.append(type(error))

    with pipe(), StandardOutput() as out:
        task = asyncio.create_task(out.interruptible(asyncio.to_thread(fill, out)))
        await full.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await loop.shutdown_default_executor()
    assert ended == [BrokenOffError]


def test_a_reader_that_went_away_is_noticed() -> None:
    with pipe() as reader, StandardOutput() as out:
        reader.close()
        with pytest.raises(BrokenPipeError):
            out.write(memoryview(b"hello"))


def test_a_file_is_written_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream, standard_output(stream):
        stream.write("before ")
        with StandardOutput() as out:
            assert out.write(memoryview(b"content")) == 7
    assert (tmp_path / "file").read_text() == "before content"


def test_ctrl_c_while_the_program_is_loaded_ends_it_without_a_word() -> None:
    program = (
        "import os, signal, sys\n"
        "class Loaded:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'muniment.node.main':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Loaded())\n"
        "from muniment.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
