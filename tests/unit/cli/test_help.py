"""Help is complete, quick, and agrees with the commands."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from tests.unit.cli.support import FakeComposition, muni

from muniment.gateways.cli import app, examples, exit_codes

ROOT = click.Context(app.muni)


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    for name in group.list_commands(ROOT):
        command = group.get_command(ROOT, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = list(commands(app.muni))


def test_these_are_the_commands() -> None:
    assert {" ".join(words) for words, _ in ALL} == {
        "demo", "put", "get", "check", "repair", "cap verify", "cap show", "grid join", "grid account",
        "grid status",
        "identity new", "identity show", "identity passwd", "identity export", "volume create", "volume list",
        "volume join", "volume info", "volume move", "volume cap", "member list", "member invite",
        "member join", "member accept", "member kick", "member leave", "member policy", "member rotate",
        "ls", "tree", "cat", "stat", "du", "find", "mkdir", "rmdir", "cp", "mv", "rm", "ln", "chmod", "touch",
        "history", "diff", "restore", "snapshot", "share",
        "retention set", "retention show", "hold on", "hold off", "prune",
        "mount", "umount",
        "node init", "node run", "node status", "node drain", "introducer init", "introducer run",
        "log init", "log run",
        "log backup", "log rehost", "log archive", "log audit",
        "audit", "evidence verify", "witness run", "keeper run", "keeper once",
        "keeper account", "keeper log",
        "volume checkpoints", "volume compare", "volume snapshot-view", "volume fetch", "shell",
        "queue list", "queue show", "queue retry", "queue drop", "usage",
        "version",
    }  # fmt: skip


def test_help_names_every_command_variable_and_exit_code() -> None:
    done = muni(FakeComposition(), "--help")
    assert done.code == 0
    for name, (_, summary) in app.COMMANDS.items():
        assert f"  {name}" in done.text
        assert summary in done.text
    for word in ("MUNIMENT_GRID", "MUNIMENT_HOME", "MUNIMENT_PASSPHRASE_FILE", "muni demo", "@FILE"):
        assert word in done.text
    for code, meaning in exit_codes.MEANING.items():
        assert f"{code:>3}  {meaning}" in done.text


def test_the_summaries_are_those_of_the_commands() -> None:
    for name, (_, summary) in app.COMMANDS.items():
        command = app.muni.get_command(ROOT, name)
        assert command is not None
        assert (command.help or "").splitlines()[0] == summary


@pytest.mark.parametrize("words", [words for words, _ in ALL], ids=" ".join)
def test_every_command_has_help_and_json(words: tuple[str, ...]) -> None:
    done = muni(FakeComposition(), *words, "--help")
    assert done.code == 0
    assert "--json" in done.text
    assert f"Usage: muni {' '.join(words)}" in done.text


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_every_option_is_explained(words: tuple[str, ...], command: click.Command) -> None:
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, (words, option.name)


def test_wherever_a_cap_is_taken_help_says_how_to_keep_it_secret() -> None:
    taken = [
        words for words, command in ALL if any((p.metavar or "").startswith("CAP") for p in command.params)
    ]
    assert taken == [
        ("get",),
        ("check",),
        ("repair",),
        ("cap", "show"),
        ("cap", "verify"),
        ("volume", "join"),
    ]
    for words in taken:
        assert "@FILE" in muni(FakeComposition(), *words, "--help").text


def test_help_loads_neither_the_engine_nor_a_driver() -> None:
    program = (
        "import sys, muniment.node.main as m\n"
        "code = m.run(m.Root(), ['--help'])\n"
        "heavy = ('numpy', 'uvloop', 'asyncio', 'rich', 'granian', 'cryptography', 'muniment.engine')\n"
        "print(code, [name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 []"


def test_importing_the_package_imports_none_of_its_parts() -> None:
    program = (
        "import sys, muniment\n"
        "print([name for name in sys.modules if name.startswith('muniment.')])\n"
        "print(all(getattr(muniment, name) is not None for name in muniment.__all__))\n"
        "print(set(muniment.__all__) <= set(dir(muniment)), hasattr(muniment, 'nothing'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["[]", "True", "True False"]


def test_json_may_stand_anywhere_in_the_line() -> None:
    for words in (
        ["--json", "grid", "account"],
        ["grid", "--json", "account"],
        ["grid", "account", "--json"],
    ):
        assert muni(FakeComposition(), *words).json == {"account": "b" * 52}


@pytest.mark.parametrize(
    ("words", "command"), ALL, ids=lambda one: " ".join(one) if isinstance(one, tuple) else ""
)
def test_every_help_ends_in_lines_that_can_be_typed(words: tuple[str, ...], command: click.Command) -> None:
    shown = muni(FakeComposition(), *words, "--help").text
    assert "Exit codes: 0 done" in shown
    for line in examples.EXAMPLES[" ".join(words)].split(";"):
        assert f"  {line.strip()}\n" in shown
        typed = shlex.split(line.partition(" > ")[0])
        assert typed[: len(words) + 1] == ["muni", *words]
        command.make_context(words[-1], typed[len(words) + 1 :], parent=ROOT, resilient_parsing=False)


def test_an_example_is_of_a_command() -> None:
    assert set(examples.EXAMPLES) == {" ".join(words) for words, _ in ALL}
