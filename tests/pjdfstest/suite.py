"""The suite: where it is, how it is built, and what its files print."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ADDRESS: Final = "https://github.com/pjd/pjdfstest"
_BUILD_S: Final = 300
_FILE_S: Final = 600
_PLAN: Final = re.compile(r"1\.\.(\d+)", re.ASCII)
_RESULT: Final = re.compile(r"(not )?ok\b", re.ASCII)
_TODO: Final = re.compile(r"#\s*TODO\b", re.IGNORECASE)


class SuiteAbsent(Exception):
    """It is not here and cannot be fetched or built; says what to type."""


@dataclass(frozen=True)
class FileResult:
    """One file of the suite: how many tests it ran, and what failed."""

    name: str
    tests: int
    failures: list[str] = field(default_factory=list)


def find_suite(named: str, folder: Path, *, may_clone: bool) -> Path:
    """The folder of the suite, built.

    Args:
        named: what PJDFSTEST says; empty if it is not set.
        folder: takes the clone.
    Raises: SuiteAbsent.
    """
    suite = Path(named).resolve() if named else folder / "pjdfstest"
    if not named and may_clone:
        _run(["git", "clone", "--quiet", "--depth", "1", ADDRESS, str(suite)], folder)
    if not (suite / "tests").is_dir():
        raise SuiteAbsent(
            f"pjdfstest is not here: type git clone {ADDRESS} and set PJDFSTEST to its folder, "
            "or scripts/posix --clone"
        )
    if not (suite / "pjdfstest").exists():
        for command in (["autoreconf", "-ifs"], ["./configure"], ["make", "pjdfstest"]):
            _run(command, suite)
    if shutil.which("openssl") is None:
        raise SuiteAbsent("pjdfstest makes its names by openssl: type apt-get install openssl")
    return suite


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, check=False, cwd=folder, capture_output=True, text=True, timeout=_BUILD_S
        )
    except OSError as error:
        reason = f"{command[0]} is missing; type: apt-get install git autoconf automake make gcc"
        raise SuiteAbsent(f"pjdfstest cannot be built: {reason}") from error
    if done.returncode != 0:
        raise SuiteAbsent(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


async def run_suite(suite: Path, volume: Path, names: list[str], jobs: int) -> AsyncIterator[FileResult]:
    """Run each file of the suite in a folder of its own, `jobs` at a time; results as they come."""
    top = suite / "tests"
    chosen = [
        path
        for path in sorted(top.rglob("*.t"))
        if not names or any(name in str(path.relative_to(top)) for name in names)
    ]
    gate = asyncio.Semaphore(jobs)

    async def one(number: int, path: Path) -> FileResult:
        async with gate:
            folder = volume / f"t{number}"
            await asyncio.to_thread(folder.mkdir)
            result = await run_file(path, folder, str(path.relative_to(top)))
            if not result.failures:
                await asyncio.to_thread(shutil.rmtree, folder)
            return result

    tasks = [asyncio.create_task(one(number, path)) for number, path in enumerate(chosen)]
    try:
        for task in asyncio.as_completed(tasks):
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def run_file(path: Path, folder: Path, name: str) -> FileResult:
    """Run one file; killed with all it started if it takes too long or nobody waits any more."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        str(path),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_FILE_S):
            output, _ = await process.communicate()
    except TimeoutError:
        return FileResult(name, 0, [f"did not end in {_FILE_S} s"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    lines = output.decode(errors="replace").splitlines()
    results = [line for line in lines if _RESULT.match(line)]
    return FileResult(name, len(results), list(failures_of(lines, process.returncode or 0)))


def failures_of(lines: list[str], code: int) -> Iterator[str]:
    """What a file's output complains about: failed tests, a wrong number of them, its exit code.

    What the suite itself marks as `TODO` on this system is no failure, as with every reader of this format.
    """
    results = [line for line in lines if _RESULT.match(line)]
    yield from (line for line in results if line.startswith("not ") and not _TODO.search(line))
    plans = [int(found[1]) for line in lines if (found := _PLAN.fullmatch(line.strip()))]
    if plans != [len(results)]:
        yield f"{len(results)} tests ran, {plans} were planned: {' / '.join(lines[-3:])}"
    if code != 0:
        yield f"exit code {code}"
