"""identity, and how a passphrase reaches a command."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.cli.support import Done, FakeComposition, muni

from muniment.crypto.key_file import is_locked
from muniment.gateways.cli.app import run


class Home:
    """A home, and a file that the environment names for its passphrase."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = FakeComposition(home=folder / "home")

    def muni(self, *words: str | Path, passphrase: str = "", mode: int = 0o600) -> Done:
        file = self.folder / "passphrase"
        file.write_text(passphrase)
        file.chmod(mode)
        environment = {"MUNIMENT_PASSPHRASE_FILE": str(file) if passphrase else None, "MUNIMENT_GRID": None}
        with CliRunner().isolation(env=environment) as (out, err, _):
            code = run(self.world, [str(word) for word in words])
            return Done(code, out.getvalue(), err.getvalue().decode())

    @property
    def key(self) -> Path:
        return self.world.home / "identity.key"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_an_unlocked_identity_says_so(home: Home) -> None:
    made = home.muni("identity", "new", "--unlocked")
    assert made.code == 0
    assert len(made.text.strip()) == 52
    assert "the key is not locked" in made.err
    assert stat.S_IMODE(home.key.stat().st_mode) == 0o600
    assert home.muni("identity", "show", "--json").json == {"member": made.text.strip(), "locked": False}
    assert home.muni("identity", "show").text == made.text


def test_there_is_one_identity_in_a_home(home: Home) -> None:
    home.muni("identity", "new", "--unlocked")
    before = home.key.read_bytes()
    done = home.muni("identity", "new", "--unlocked")
    assert (done.code, home.key.read_bytes()) == (2, before)


def test_a_locked_identity_needs_its_passphrase(home: Home) -> None:
    made = home.muni("identity", "new", passphrase="open sesame\nignored")
    assert made.code == 0
    assert "not locked" not in made.err
    assert is_locked(home.key.read_bytes())
    assert home.muni("identity", "show", passphrase="open sesame").text == made.text
    wrong = home.muni("identity", "show", passphrase="open says me")
    assert (wrong.code, wrong.text) == (2, "")
    assert "open says me" not in wrong.err
    asked = home.muni("identity", "show")
    assert asked.code == 2
    assert "nobody can be asked" in asked.err
    assert "MUNIMENT_PASSPHRASE_FILE" in asked.err


def test_nobody_to_ask_makes_nothing(home: Home) -> None:
    assert home.muni("identity", "new").code == 2
    assert not home.world.home.exists()


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [("secret", 0o640, "readable by others"), ("\nsecret", 0o600, "first line is empty"),
     ("x" * 5000, 0o600, "longer than")],
)  # fmt: skip
def test_a_passphrase_file_that_cannot_be_meant_is_refused(
    home: Home, text: str, mode: int, why: str
) -> None:
    done = home.muni("identity", "new", passphrase=text, mode=mode)
    assert done.code == 6
    assert why in done.err
    assert "secret" not in done.err
    assert not home.world.home.exists()


def test_the_passphrase_is_changed_and_taken_away(home: Home, tmp_path: Path) -> None:
    made = home.muni("identity", "new", passphrase="one")
    new = tmp_path / "new"
    new.write_text("two\n")
    new.chmod(0o600)
    done = home.muni("identity", "passwd", "--new-file", new, "--json", passphrase="one")
    assert done.json == {"member": made.text.strip(), "locked": True}
    assert home.muni("identity", "show", passphrase="one").code == 2
    assert home.muni("identity", "show", passphrase="two").text == made.text
    assert home.muni("identity", "passwd", "--unlocked", passphrase="one").code == 2
    assert home.muni("identity", "passwd", "--unlocked", passphrase="two").code == 0
    assert home.muni("identity", "show").text == made.text
    assert home.muni("identity", "passwd", "--unlocked", "--new-file", new).code == 2


def test_an_exported_identity_is_taken_back(home: Home, tmp_path: Path) -> None:
    made = home.muni("identity", "new", passphrase="one")
    seed = tmp_path / "seed"
    done = home.muni("identity", "export", "--output", seed, passphrase="one")
    assert (done.code, done.out) == (0, b"")
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    assert home.muni("identity", "export", "--output", seed, passphrase="one").code == 2  # is there
    home.world.home = tmp_path / "other"
    again = home.muni("identity", "new", "--unlocked", "--seed-file", seed)
    assert again.text == made.text
    home.world.home = tmp_path / "third"
    seed.chmod(0o644)
    refused = home.muni("identity", "new", "--unlocked", "--seed-file", seed)
    assert refused.code == 6
    assert "readable by others" in refused.err
    assert home.muni("identity", "new", "--unlocked", "--seed-file", tmp_path / "none").code == 6


def test_a_locked_key_file_is_a_seed_file_too(home: Home, tmp_path: Path) -> None:
    made = home.muni("identity", "new", passphrase="one")
    copy = home.key
    home.world.home = tmp_path / "other"
    assert home.muni("identity", "new", "--unlocked", "--seed-file", copy, passphrase="two").code == 2
    assert home.muni("identity", "new", "--seed-file", copy, passphrase="one").text == made.text
    assert is_locked(home.key.read_bytes())


def test_a_seed_goes_to_no_pipe(home: Home) -> None:
    home.muni("identity", "new", "--unlocked")
    for words in (["identity", "export"], ["identity", "export", "--json"]):
        done = home.muni(*words)
        assert done.code == 2
        assert b"muniment key" not in done.out


def test_a_home_without_an_identity_is_told_how_to_get_one(home: Home) -> None:
    for words in (["show"], ["passwd", "--unlocked"], ["export", "--output", "x"]):
        done = muni(home.world, "identity", *words)
        assert done.code == 6
        assert "muni identity new" in done.err
