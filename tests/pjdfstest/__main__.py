"""`scripts/posix`: pjdfstest as root on a mounted volume of a real grid; prints what failed, file by file."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.pjdfstest.place import mounted
from tests.pjdfstest.suite import SuiteAbsent, find_suite, run_suite

_SKIPPED = 77
"""The exit code by which test drivers know that nothing was tried."""


async def posix(folder: Path, suite: Path, names: list[str], jobs: int) -> bool:
    """Run the suite; returns whether all was right.  Whatever happens, no mount and no process is left."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with mounted(folder) as volume:
        print(f"{suite} on {volume}", flush=True)
        begun_s, good, files, count = time.monotonic(), True, 0, 0
        async for result in run_suite(suite, volume, names, jobs):
            files, count = files + 1, count + result.tests
            good = good and not result.failures
            for failure in result.failures:
                print(f"{result.name}: {failure}", flush=True)
    took_s = time.monotonic() - begun_s
    verdict = "no failure" if good else "FAILED"
    print(f"{files} files, {count} tests in {took_s:.0f} s: {verdict}")
    return good and files > 0


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="scripts/posix", description=__doc__)
    parser.add_argument("--jobs", type=int, default=4, help="files of the suite at a time")
    parser.add_argument("--clone", action="store_true", help="let git fetch the suite if it is absent")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only files whose path contains one")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("the suite changes owners: run scripts/posix as root", file=sys.stderr)
        return _SKIPPED
    os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix="muniment-posix-"))
    try:
        suite = find_suite(os.environ.get("PJDFSTEST", ""), folder, may_clone=asked.clone)
        folder.chmod(0o711)  # the suite's other users go through it
        return 0 if asyncio.run(posix(folder, suite, asked.names, asked.jobs)) else 1
    except SuiteAbsent as absent:
        print(absent, file=sys.stderr)
        return _SKIPPED
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("interrupted; it is unmounted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
