"""The program `muni` as its users have it: a process of its own, with a home and a folder to stand in."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from tests.e2e import nursery

ROOT: Final = Path(__file__).parents[2]
VENV: Final = Path(sys.prefix)
PATIENCE_S: Final = 60.0
"""After so long what is waited for will never come; until then a busy machine may take its time."""
_WHERE_IS_THE_CURSOR: Final = b"\x1b[6n"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output, without the line's end."""
        return self.out.decode().rstrip("\n")


@dataclass(frozen=True)
class User:
    """Somebody with a home folder, standing in it.

    Attributes:
        home: HOME; Muniment's own folder is below it.
        grid: MUNIMENT_GRID; empty if the user has to join one.
    """

    home: Path
    grid: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """As a login would set it: nothing of the machine's own settings of Muniment."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("MUNIMENT_")}
        path = f"{VENV / 'bin'}:{own.get('PATH', os.defpath)}"
        own |= {"HOME": str(self.home), "PATH": path, "TERM": "xterm", "LANG": "C.UTF-8", "COLUMNS": "120"}
        own |= {"MUNIMENT_HOME": str(self.home / "muniment"), "MUNIMENT_GRID": self.grid}
        own.pop("NO_COLOR", None)
        return own

    def start(self, *command: str | Path, **how: Any) -> subprocess.Popen[bytes]:
        """Start a program; its standard streams are pipes unless `how` says otherwise."""
        how = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | how
        process: Any = subprocess.Popen(command, env=self.environment, cwd=self.home, **how)
        return cast("subprocess.Popen[bytes]", process)

    @contextlib.contextmanager
    def starting(self, *words: str | Path, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
        """`muni` with these words; whatever the test leaves is killed."""
        with self.start(VENV / "bin" / "muni", *words, **how) as process:
            try:
                yield process
            finally:
                process.kill()

    def muni(self, *words: str | Path, stdin: bytes = b"") -> Done:
        """Run `muni` to its end."""
        line = [str(VENV / "bin" / "muni"), *(os.fspath(word) for word in words)]
        code, out, err = nursery.run(line, self.environment, self.home, stdin, PATIENCE_S)
        return Done(code, out, err.decode())

    def shell(self, line: str) -> Done:
        """Run a line as a person would type it."""
        with self.start("bash", "-euo", "pipefail", "-c", line, stdin=subprocess.DEVNULL) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
            return Done(process.returncode, out, err.decode())


@dataclass
class Terminal:
    """A terminal that shows what a process writes to it.

    Attributes:
        end: for the process; closed here once it is started.
        shown: so far.
    """

    _screen: int
    end: int
    shown: bytes = b""
    _seen: int = 0

    def close_end(self) -> None:
        os.close(self.end)
        self.end = -1

    def read(self) -> bool:
        """Read some; returns whether there is more to come."""
        try:
            part = os.read(self._screen, 65536)
        except OSError:  # nobody has the other end any more
            return False
        self.shown += part
        return bool(part)

    def wait_for(self, text: str) -> str:
        """Read until this is shown behind what was waited for before; returns what was shown up to it.

        Says where the cursor is when asked: line editors place their prompt by it.
        """
        while (at := self.shown.find(text.encode(), self._seen)) < 0:
            asked = self.shown.count(_WHERE_IS_THE_CURSOR)
            assert select.select([self._screen], [], [], PATIENCE_S)[0], self.shown[self._seen :].decode()
            assert self.read(), self.shown[self._seen :].decode()
            for _ in range(self.shown.count(_WHERE_IS_THE_CURSOR) - asked):
                self.type("\x1b[1;1R")
        before, self._seen = self.shown[self._seen : at], at + len(text.encode())
        return before.decode()

    def resize(self, lines: int, columns: int) -> None:
        """As if a person pulled at the window."""
        termios.tcsetwinsize(self._screen, (lines, columns))

    def type(self, text: str) -> None:
        """As if a person typed it."""
        os.write(self._screen, text.encode())


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    screen, end = pty.openpty()
    shows = Terminal(screen, end)
    try:
        yield shows
    finally:
        os.close(screen)
        if shows.end >= 0:
            os.close(shows.end)


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [
        part.split("```", 1)[0].removeprefix(language).strip("\n")
        for part in page.read_text().split("\n```")
        if part.startswith(f"{language}\n")
    ]
