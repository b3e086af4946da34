"""Every failure is one line of what happened, one line of what to do, and one exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, example, leaves, muni

from muniment import errors
from muniment.errors import DiskFull, InternalError, MunimentError, ProtocolViolation, RosterEmpty
from muniment.gateways.cli import exit_codes

DOCS = Path(__file__).parents[3] / "docs" / "gateways" / "cli.md"


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.code)
def test_every_error_has_an_exit_code_a_message_and_advice(leaf: type[MunimentError]) -> None:
    error = example(leaf)
    done = muni(FakeComposition(fails=error), "grid", "status")
    family = next(base for base in leaf.__mro__ if base in exit_codes.FAMILY)
    assert done.code == exit_codes.FAMILY[family] == exit_codes.exit_code(error)
    message, advice = done.err.splitlines()
    assert message == f"muni: {error}"
    assert advice.strip().startswith(error.hint)
    assert len(error.hint) > 5
    assert not done.out


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.code)
def test_every_error_is_a_document_with_json(leaf: type[MunimentError]) -> None:
    error = example(leaf)
    done = muni(FakeComposition(fails=error), "grid", "status", "--json")
    told = done.json["error"]
    assert set(told) == {"code", "message", "hint", "facts"}
    assert (told["code"], told["message"]) == (leaf.code, str(error))
    assert set(told["facts"]) == set(error.facts())
    assert not done.err


def test_families_are_those_of_the_error_tree() -> None:
    assert set(exit_codes.FAMILY) == set(MunimentError.__subclasses__())


def test_codes_are_distinct_and_all_explained() -> None:
    found = {exit_codes.DEGRADED, exit_codes.UNRECOVERABLE, exit_codes.DAMAGED, exit_codes.FORGED}
    told = {*exit_codes.FAMILY.values(), exit_codes.OK, *found}
    assert len(told) == len(exit_codes.FAMILY) + 5
    assert told | {exit_codes.INTERRUPTED} == set(exit_codes.MEANING)


def test_the_page_repeats_the_table_of_exit_codes() -> None:
    rows = {
        int(cells[1]): cells[2]
        for cells in ([cell.strip() for cell in line.split("|")] for line in DOCS.read_text().splitlines())
        if len(cells) == 4 and cells[1].isdecimal()
    }
    assert rows == exit_codes.MEANING


def test_a_new_user_without_a_grid_is_told_all_ways_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    done = muni(FakeComposition(joined=None), "put", tmp_path / "file")
    assert done.code == 6
    for way in ("muni grid join", "--grid", "MUNIMENT_GRID", "muni demo --keep"):
        assert way in done.err


def test_the_first_error_of_a_group_is_told() -> None:
    group = BaseExceptionGroup("all", [BaseExceptionGroup("some", [DiskFull("here")]), RosterEmpty("x")])
    done = muni(FakeComposition(fails=group), "grid", "status")
    assert "no space left on the disk of here" in done.err
    assert done.code == 6


def test_what_nobody_foresaw_is_a_bug_without_traceback() -> None:
    done = muni(FakeComposition(fails=ZeroDivisionError("oh")), "grid", "status")
    assert done.code == 70
    assert "bug: ZeroDivisionError: oh" in done.err
    assert "Traceback" not in done.err
    assert "--log-level debug" in done.err


def test_a_traceback_comes_when_asked_for() -> None:
    fails = FakeComposition(fails=InternalError("oh"))
    assert "Traceback" in muni(fails, "--log-level", "debug", "grid", "status").err
    assert "Traceback" in muni(fails, "--log-level=debug", "grid", "status").err


def test_a_system_error_on_a_file_is_no_bug() -> None:
    done = muni(FakeComposition(fails=PermissionError(13, "Permission denied", "/x")), "grid", "status")
    assert done.code == 6
    assert "/x: Permission denied" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ptu"], "No such command 'ptu'. Did you mean 'put'?"),
        (["volume", "lst"], "Did you mean 'list'?"),
        (["put"], "Missing argument"),
        (["put", "--codign", "3/5", "x"], "No such option"),
        (["put", "--chunk", "4 parsecs", "x"], "is not a size"),
        (["node", "status"], "Missing argument"),
        (["get", "mun:file:read:a", "--range", "5"], "give START-STOP"),
    ],
)
def test_wrong_words_are_explained_with_where_to_look(words: list[str], says: str) -> None:
    done = muni(FakeComposition(), *words)
    assert done.code == 2
    assert says in done.err
    assert "--help" in done.err
    told = muni(FakeComposition(), *words, "--json").json["error"]
    assert told["code"] == "usage"
    assert says in told["message"]


@pytest.mark.parametrize("words", [[], ["node"], ["grid"], ["cap"]])
def test_without_a_command_the_help_is_shown_and_nothing_else(words: list[str]) -> None:
    done = muni(FakeComposition(), *words)
    assert (done.code, done.text) == (2, "")
    assert done.err == muni(FakeComposition(), *words, "--help").text
    told = muni(FakeComposition(), *words, "--json").json["error"]
    assert (told["code"], told["message"]) == ("usage", "Missing command.")


def test_a_terminal_is_not_given_what_it_might_obey() -> None:
    done = muni(FakeComposition(fails=ProtocolViolation(b"n" * 32, "\x1b[2Jboo\x9b\u202e")), "grid", "status")
    assert done.err.isprintable() or set(filter(lambda char: not char.isprintable(), done.err)) == {"\n"}
    assert r"\x1b[2Jboo\x9b\u202e" in done.err


def test_ctrl_c_is_one_clean_line_and_130() -> None:
    done = muni(FakeComposition(fails=KeyboardInterrupt()), "grid", "status")
    assert done.code == 130
    assert done.err.splitlines() == ["muni: interrupted", "      nothing unfinished is left behind"]
    told = muni(FakeComposition(fails=KeyboardInterrupt()), "grid", "status", "--json").json
    assert told["error"]["code"] == "interrupted"


def test_no_error_of_the_tree_is_without_words() -> None:
    for leaf in leaves():
        assert leaf.says, leaf
        assert leaf.hint, leaf
        assert leaf.code, leaf
    assert errors.InternalError in leaves()


def test_a_request_that_is_not_possible_says_why_and_nothing_of_http(tmp_path: Path) -> None:
    """The same leaf is what nodes answer to a malformed call; people see it where a name is taken."""
    world = FakeComposition(home=tmp_path / "home")
    for words in (["identity", "new", "--unlocked"], ["volume", "create", "books"]):
        assert muni(world, *words).code == 0
    done = muni(world, "volume", "create", "books")
    assert done.code == 2
    assert done.err.splitlines() == [
        "muni: another volume is called 'books' here; choose another name",
        "      put that right and try again",
    ]
