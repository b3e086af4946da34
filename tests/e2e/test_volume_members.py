"""A volume of several people over a log service, as processes: joining, votes, removal, recovery, secrets."""

from __future__ import annotations

import base64
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.muni_command import PATIENCE_S, VENV, Done, User, terminal
from tests.e2e.node_processes import eventually

from muniment.crypto.key_file import is_locked, unlock_seed
from muniment.crypto.member import MemberSecret

PASSPHRASE = "correct horse battery staple"


@dataclass(frozen=True)
class LogService:
    """A running log service: its folder, address, and all that it has printed."""

    folder: Path
    address: str
    printed: Path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogService]:
    user = User(tmp_path_factory.mktemp("service"))
    folder, printed = user.home / "log", user.home / "printed"
    address = user.muni("log", "init", folder).text
    with (
        printed.open("wb") as log,
        user.starting("--log-level", "debug", "log", "run", folder, stdout=log, stderr=log) as process,
    ):
        eventually(lambda: f"serving {address}" in printed.read_text())
        yield LogService(folder, address, printed)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@dataclass(frozen=True)
class Person:
    """Somebody with an identity that is not locked."""

    user: User
    id: str

    def muni(self, *words: str | Path, stdin: bytes = b"") -> Done:
        return self.user.muni(*words, stdin=stdin)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    users = [User(tmp_path_factory.mktemp(name)) for name in ("anna", "bert", "carl")]
    return [Person(user, good(user.muni("identity", "new", "--unlocked"))) for user in users]


def good(done: Done) -> str:
    assert done.code == 0, done.err
    return done.text


def join(person: Person, invitation: str, name: str, role: str = "writer") -> None:
    good(person.muni("volume", "join", invitation, "--own-name", name, "--role", role))


def names(who: User | Person, volume: str = "books") -> list[str]:
    return good(who.muni("ls", f"{volume}:/")).split()


def test_people_join_write_vote_and_one_is_removed(service: LogService, people: list[Person]) -> None:
    """The commands' own tests have more of what is printed and refused; here is what processes share."""
    anna, bert, carl = people
    good(anna.muni("volume", "create", "books", "--log", service.address, "--own-name", "anna"))
    invitation = good(anna.muni("member", "invite", "books"))
    assert invitation.startswith("mun:volume:invite:")

    join(bert, invitation, "bert", "owner")
    early = bert.muni("mkdir", "books:/too-early")
    assert (early.code, "is not a member of this volume" in early.err) == (2, True)
    assert f"{bert.id}  owner  bert  waits" in good(anna.muni("member", "list", "books"))
    assert "is owner now" in good(anna.muni("member", "accept", "books", bert.id))
    good(bert.muni("mkdir", "books:/of-bert"))

    join(carl, invitation, "carl")
    assert "1 vote of the 2 owners still missing" in good(anna.muni("member", "accept", "books", "carl"))
    assert "is writer now" in good(bert.muni("member", "accept", "books", "carl"))
    good(carl.muni("mkdir", "books:/of-carl"))

    good(bert.muni("member", "kick", "books", "carl", "-y"))
    assert "is removed; epoch 1" in good(anna.muni("member", "kick", "books", "carl", "-y"))
    good(anna.muni("mkdir", "books:/later"))
    mine = carl.muni("mkdir", "books:/mine")
    assert (mine.code, "is not a member of this volume" in mine.err) == (2, True)
    assert names(carl) == ["of-bert", "of-carl"]  # and the log goes on behind that
    told = good(carl.muni("volume", "info", "books"))
    assert "no member" in told
    assert "for the next one you have no keys" in told
    assert names(bert) == ["later", "of-bert", "of-carl"]
    same = [good(user.muni("volume", "info", "books")).splitlines()[-2:] for user in (anna, bert)]
    assert same[0] == same[1]


def test_a_volume_is_recovered_in_a_new_home(
    service: LogService, people: list[Person], tmp_path: Path
) -> None:
    anna = people[0]
    good(anna.muni("volume", "create", "notes", "--log", service.address, "--own-name", "anna"))
    good(anna.muni("mkdir", "notes:/kept"))
    cap = good(anna.muni("volume", "cap", "notes", "--right", "write"))
    fresh = User(tmp_path)
    good(fresh.muni("volume", "join", "-", stdin=cap.encode()))
    assert names(fresh, "notes") == ["kept"]
    good(fresh.muni("mkdir", "notes:/after"))
    reader = User(tmp_path / "reader")
    reader.home.mkdir()
    (reader.home / "cap").write_text(good(fresh.muni("volume", "cap", "notes", "--right", "read")))
    good(reader.muni("volume", "join", "@cap", "--name", "seen"))
    assert names(reader, "seen") == ["after", "kept"]
    assert reader.muni("mkdir", "seen:/x").code == 2


# --- secrets


def encoded(secret: bytes) -> set[bytes]:
    """A secret as it might be written somewhere."""
    texts = {secret.hex(), base64.b32encode(secret).decode().lower().rstrip("=")}
    texts |= {base64.b64encode(b"\0" * shift + secret).decode()[4:-4] for shift in (0, 1, 2)}
    return {secret} | {text.encode() for text in texts}


def test_secrets_are_in_no_argument_output_log_or_open_file(service: LogService, tmp_path: Path) -> None:
    user, other = User(tmp_path / "user"), User(tmp_path / "other")
    for one in (user, other):
        one.home.mkdir()
    (user.home / "pass").write_text(PASSPHRASE + "\n")
    (user.home / "pass").chmod(0o600)
    told = []

    def run(words: str, who: User = user) -> Done:
        line = f"umask 022; MUNIMENT_PASSPHRASE_FILE={user.home}/pass muni --log-level debug {words}"
        done = who.shell(line)
        told.append(done.out + done.err.encode())
        return done

    good(run("identity new"))
    good(run(f"volume create secrets --log {service.address}"))
    good(run("volume create mine"))
    good(run("mkdir secrets:/names-are-secret-too"))
    good(run("member list secrets"))
    assert run("member kick secrets nobody -y").code == 2
    good(run("identity export --output seed"))
    line = "umask 077; MUNIMENT_PASSPHRASE_FILE=pass muni volume cap secrets --right write > cap"
    assert user.shell(line).code == 0
    shutil.copy(user.home / "cap", other.home)
    good(run("volume join @cap", other))
    good(run("volume info secrets", other))
    damaged = (other.home / "cap").read_text().strip()[:-2] + "aa"
    told.append(other.muni("volume", "join", "-", stdin=damaged.encode()).err.encode())

    member = MemberSecret(unlock_seed((user.home / "seed").read_bytes(), ""))
    cap = (user.home / "cap").read_bytes().strip()
    secrets = {PASSPHRASE.encode(), cap, cap[80:160], b"names-are-secret-too"}
    for level in (member, member.read, member.verify):
        secrets |= encoded(level.seed)
    for secret in secrets:
        assert not any(secret in text for text in told), secret
        assert secret not in service.printed.read_bytes()
    for folder in (user.home / "muniment", other.home / "muniment"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = 0
    for path in [*tmp_path.rglob("*"), *service.folder.rglob("*")]:
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets):
            found += 1
            assert is_private(path), path
    assert found >= 4  # passphrase, seed, capabilities
    assert is_private(user.home / "muniment" / "identity.key")
    assert is_private(user.home / "muniment" / "log.key")


def is_private(path: Path) -> bool:
    """Whether others can reach it."""
    return any(stat.S_IMODE(one.stat().st_mode) & 0o077 == 0 for one in (path, *path.parents[:3]))


def at_terminal(*words: str) -> tuple[str, ...]:
    """`muni` with a terminal of its own."""
    return ("setsid", "--ctty", "--wait", str(VENV / "bin" / "muni"), *words)


def test_a_passphrase_is_typed_twice_and_not_shown(tmp_path: Path) -> None:
    user = User(tmp_path)
    answers = (PASSPHRASE, "something else", PASSPHRASE, PASSPHRASE)
    asked = (b"(empty: no lock):", b"once more:")
    with (
        terminal() as screen,
        user.start(*at_terminal("identity", "new"), stdin=screen.end, stderr=screen.end) as process,
    ):
        screen.close_end()
        for at, answer in enumerate(answers):
            while screen.shown.count(asked[at % 2]) < at // 2 + 1:
                assert screen.read()
            screen.type(answer + "\n")
        while screen.read():
            pass
        assert process.wait(PATIENCE_S) == 0
    assert b"these were not the same" in screen.shown
    assert PASSPHRASE.encode() not in screen.shown
    assert b"something else" not in screen.shown
    assert is_locked((user.home / "muniment" / "identity.key").read_bytes())


def test_ctrl_c_ends_a_question_under_a_loop(tmp_path: Path) -> None:
    user = User(tmp_path)
    (user.home / "pass").write_text(PASSPHRASE)
    (user.home / "pass").chmod(0o600)
    good(user.shell("MUNIMENT_PASSPHRASE_FILE=pass muni identity new"))
    with (
        terminal() as screen,
        user.start(*at_terminal("volume", "create", "x"), stdin=screen.end, stderr=screen.end) as process,
    ):
        screen.close_end()
        while b"passphrase" not in screen.shown:
            assert screen.read()
        screen.type("\x03")
        while screen.read():
            pass
        assert process.wait(PATIENCE_S) == 130
    assert b"interrupted" in screen.shown
    assert b"Traceback" not in screen.shown
