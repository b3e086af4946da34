"""Witnesses and members against a log service that shows two logs: all of them processes."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.muni_command import PATIENCE_S, Done, User


def good(done: Done) -> str:
    assert done.code == 0, done.err
    return done.text


def line_of(process: subprocess.Popen[bytes]) -> str:
    """The next line that a process prints; a process that prints none is killed."""
    assert process.stdout is not None
    timer = threading.Timer(PATIENCE_S, process.kill)
    timer.start()
    try:
        return process.stdout.readline().decode().rstrip("\n")
    finally:
        timer.cancel()


@contextlib.contextmanager
def serving(operator: User, folder: Path) -> Iterator[None]:
    """The log service in a folder."""
    with operator.starting("log", "run", folder, stderr=subprocess.DEVNULL) as process:
        assert line_of(process).startswith("serving ")
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


class Cast:
    """An operator who lies, with a log service of two faces, and those who are lied to."""

    def __init__(self, folder: Path) -> None:
        self.operator, self.anna, self.bert, self.wanda = (
            User(folder / name) for name in ("operator", "anna", "bert", "wanda")
        )
        for user in (self.operator, self.anna, self.bert, self.wanda):
            user.home.mkdir()
        self.one, self.other = self.operator.home / "one", self.operator.home / "other"
        self.address = good(self.operator.muni("log", "init", self.one))

    def found(self) -> None:
        """While the service runs: anna's volume, with bert and the witness wanda as members."""
        for user in (self.anna, self.bert, self.wanda):
            good(user.muni("identity", "new", "--unlocked"))
        good(self.anna.muni("volume", "create", "books", "--log", self.address, "--own-name", "anna"))
        invitation = good(self.anna.muni("member", "invite", "books"))
        for user, name, role in ((self.bert, "bert", "writer"), (self.wanda, "wanda", "witness")):
            good(user.muni("volume", "join", invitation, "--own-name", name, "--role", role))
            good(self.anna.muni("member", "accept", "books", name))

    def fork(self) -> None:
        """While the service does not run: from now on it has two faces."""
        shutil.copytree(self.one, self.other)


@pytest.fixture
def cast(tmp_path: Path) -> Cast:
    return Cast(tmp_path)


def proved(user: User, stranger: User) -> str:
    """What somebody who is no member finds proved by the evidence in a user's home."""
    (evidence,) = (user.home / "muniment").glob("volumes/*/evidence-*")
    shutil.copy(evidence, stranger.home / "evidence")
    return good(stranger.muni("evidence", "verify", "evidence"))


def test_a_witness_cosigns_survives_a_kill_and_refuses_a_fork(cast: Cast) -> None:
    witness, words = cast.wanda, ("witness", "run", "books")
    with serving(cast.operator, cast.one):
        cast.found()
        cast_before = good(cast.anna.muni("volume", "info", "books"))
        assert "by 0 of 1 witness" in cast_before
        with witness.starting(*words) as process:
            assert "  books  5 entries  " in line_of(process)
            good(cast.anna.muni("mkdir", "books:/hidden-from-witnesses"))
            assert "  books  6 entries  " in line_of(process)
            assert "by 1 of 1 witness: wanda" in good(cast.anna.muni("volume", "info", "books"))
            process.kill()
        with witness.starting(*words) as process:
            assert "  books  6 entries  " in line_of(process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        held = b"".join(file.read_bytes() for file in witness.home.rglob("*") if file.is_file())
        assert b"hidden-from-witnesses" not in held
        assert "cannot read it" in witness.muni("ls", "books:/").err
    cast.fork()
    with serving(cast.operator, cast.one):
        good(cast.anna.muni("mkdir", "books:/on-one-side"))
        assert "  books  7 entries  " in good(witness.muni(*words, "--once"))
    with serving(cast.operator, cast.other):
        good(cast.bert.muni("mkdir", "books:/on-the-other"))
        with witness.starting(*words) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out) == (5, b"")
        assert b"two different logs of 7 entries; evidence: " in err
    assert "two different logs of 7 entries" in proved(witness, cast.operator)
    with serving(cast.operator, cast.one):  # it is honest again: too late
        again = witness.muni(*words, "--once")
        assert (again.code, "refused before" in again.err) == (5, True)


def test_two_members_who_were_shown_two_logs_find_out_with_a_file(cast: Cast, tmp_path: Path) -> None:
    anna, bert = cast.anna, cast.bert
    with serving(cast.operator, cast.one):
        cast.found()
        good(bert.muni("ls", "books:/"))
        good(anna.muni("volume", "checkpoints", "books", "--export", tmp_path / "early"))
        assert "consistent" in good(bert.muni("volume", "compare", "books", tmp_path / "early"))
    cast.fork()
    with serving(cast.operator, cast.one):
        good(anna.muni("mkdir", "books:/on-one-side"))
        good(anna.muni("volume", "checkpoints", "books", "--export", tmp_path / "hers"))
    with serving(cast.operator, cast.other):
        good(bert.muni("mkdir", "books:/on-the-other"))
        good(bert.muni("volume", "checkpoints", "books", "--export", tmp_path / "his"))
        caught = bert.muni("volume", "compare", "books", "-", stdin=(tmp_path / "hers").read_bytes())
        assert (caught.code, "evidence: " in caught.err) == (5, True)
    with serving(cast.operator, cast.one):
        caught = anna.muni("volume", "compare", "books", tmp_path / "his")
        assert (caught.code, "evidence: " in caught.err) == (5, True)
        assert anna.muni("mkdir", "books:/more").code == 5
    for user in (anna, bert):
        assert "two different logs of 6 entries" in proved(user, cast.operator)
