"""`muni shell` at a terminal: prompts, keys, interruptions, and a log service that goes away."""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.muni_command import PATIENCE_S, VENV, Terminal, User, terminal
from tests.e2e.node_processes import Running, running, running_node

from muniment.net.server import free_port
from muniment.node.compose import init_log
from muniment.node.config import LogConfig

PASSPHRASE = "correct horse"
INTERRUPT, END, TAB = "\x03", "\x04", "\t"
_READING, _READ = "\x1b[?2004h", "\x1b[?2004l"
"""What the line editor sends before and after each line: may whole texts be pasted?"""

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])|\r")


@dataclass
class Desk:
    """Somebody with a volume `books` of two whole copies, and a log service of his own."""

    user: User
    log: Path

    def running_log(self) -> contextlib.AbstractContextManager[Running]:
        return running("run_log", self.log)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("shell")
    init_log(folder / "log", LogConfig(port=free_port("127.0.0.1")))
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running_node(folder / f"node{at}")) for at in range(2)]
        roster = folder / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        user = User(folder / "home", grid=str(roster))
        user.home.mkdir()
        (user.home / "a file").write_bytes(b"content\n")
        passphrase = user.home / "passphrase"
        passphrase.write_text(PASSPHRASE)
        passphrase.chmod(0o600)
        with running("run_log", folder / "log") as log:
            made = user.shell(
                "export MUNIMENT_PASSPHRASE_FILE=passphrase; muni identity new &&"
                f" muni volume create books --coding rep-2 --log {log.address}"
            )
            assert made.code == 0, made.err
        yield Desk(user, folder / "log")


@dataclass
class Session:
    """A shell at a terminal."""

    screen: Terminal
    wait: Callable[[], int]

    def line(self, text: str) -> str:
        """Type a line and wait for the next prompt; returns what was shown in between, as text."""
        self.screen.type(text + "\r")
        self.screen.wait_for(_READ)
        return self.prompt()

    def prompt(self) -> str:
        """Wait for a prompt; returns what was shown before it."""
        return _ESCAPES.sub("", self.screen.wait_for(_READING))

    def end(self) -> int:
        """Ctrl-D; returns the exit status."""
        self.screen.type(END)
        while self.screen.read():
            pass
        return self.wait()


@contextlib.contextmanager
def session(user: User) -> Iterator[Session]:
    """A shell in a session of its own, unlocked."""
    with terminal() as screen:
        screen.resize(40, 120)
        command = ("setsid", "--ctty", "--wait", VENV / "bin" / "muni", "shell", "books")
        with user.start(*command, stdin=screen.end, stdout=screen.end, stderr=screen.end) as process:
            screen.close_end()
            try:
                screen.wait_for("passphrase:")
                screen.type(PASSPHRASE + "\n")
                at_work = Session(screen, lambda: process.wait(PATIENCE_S))
                at_work.prompt()
                yield at_work
            finally:
                process.kill()
    assert PASSPHRASE.encode() not in screen.shown
    assert b"Traceback" not in screen.shown


def test_an_hour_at_the_terminal(desk: Desk) -> None:
    with desk.running_log(), session(desk.user) as at:
        at.line("mkdir 'my books'")
        at.screen.type("cd my" + TAB)
        at.screen.wait_for("'my books'/")
        at.line("")
        at.screen.wait_for("books:/my books>")
        at.screen.type("put a" + TAB)
        at.screen.wait_for("'a file'")
        assert "a file" in at.line("")
        assert "content" in at.line("cat 'a file'")

        at.screen.type("get 'a file'\r")
        at.screen.wait_for("a file exists. Replace it? [y/N]: ")
        at.screen.type("n\n")
        assert "left as it was" in at.prompt()
        at.screen.type("put 'a file'\r")
        at.screen.wait_for("books:/my books/a file exists. Store a new version? [y/N]: ")
        at.screen.type("n\n")
        assert "nothing was done" in at.prompt()
        assert at.line("history 'a file'").count("8 B") == 1
        assert "exists" not in at.line("put --replace 'a file'")
        assert f"my books\n{desk.user.home}" in at.line("pwd")
        assert "two words" in at.line("!echo two words")
        assert "there is no /my books/nothing" in at.line("cat nothing")
        at.screen.resize(12, 60)  # the line is drawn anew, and goes on
        assert at.end() == 2
    history = desk.user.home / "muniment" / "shell-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+cat nothing\n" in history.read_text()


def test_ctrl_c_breaks_off_the_command_and_not_the_shell(desk: Desk) -> None:
    with desk.running_log(), session(desk.user) as at:
        at.screen.type("put - never\r")
        at.screen.wait_for("end with Ctrl-D")
        at.screen.type(INTERRUPT)
        assert "interrupted" in at.prompt()
        at.screen.type("!echo begun; exec sleep 600\r")
        at.screen.wait_for("begun\r\n")
        at.screen.type(INTERRUPT)
        at.prompt()
        at.screen.type("rm -r everything")
        at.screen.wait_for("everything")
        at.screen.type(INTERRUPT)
        at.prompt()
        assert "never" not in at.line("ls")
        assert at.end() == 0


def test_the_shell_outlives_its_log_service(desk: Desk) -> None:
    with desk.running_log() as log, session(desk.user) as at:
        at.line("mkdir kept")
        log.kill()
        shown = at.line("ls")
        assert "kept" in shown
        assert "the last that was seen here" in shown
        assert "cannot be reached" in at.line("mkdir lost")
        with desk.running_log():
            at.line("mkdir found")
            shown = at.line("ls")
            assert ("found" in shown, "lost" in shown, "seen here" in shown) == (True, False, False)
        assert at.end() == 0
