"""docs/gateways/cli.md has every command, argument and option, and the documents that commands print."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click
import pytest
from tests.unit.cli.log_support import log_words
from tests.unit.cli.queue_support import home_with_queue
from tests.unit.cli.support import INTRODUCER_ADDRESS, LOG_ADDRESS, FakeComposition, muni
from tests.unit.cli.test_help import ALL
from tests.unit.cli.volume_support import Person, serve_log

from muniment.gateways.cli import app

PAGE = (Path(__file__).parents[3] / "docs" / "gateways" / "cli.md").read_text()
SECTIONS = {
    title: part.split("\n## ")[0]
    for title, _, part in (text.partition("`\n") for text in PAGE.split("\n### `muni ")[1:])
}
OPTIONS = PAGE.split("\n## 2.")[1].split("\n## 3.")[0]
COMMANDS = {" ".join(words): command for words, command in ALL}
CONTENT = bytes(range(256)) * 4


def named(section: str) -> set[str]:
    """Options that are explained: the first cells of a table."""
    cells = re.findall(r"^\| (`-.*?) (?<!\\)\|", section, re.MULTILINE)
    return {option for cell in cells for option in re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", cell)}


def options(command: click.Command) -> set[str]:
    return {
        word
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for word in parameter.opts
        if word != "--json"  # told once for all
    }


def test_the_sections_are_the_commands() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_section_and_no_other(name: str) -> None:
    assert named(SECTIONS[name]) == options(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_section_has_an_example(name: str) -> None:
    assert re.search(rf"```\n\$ muni (-\S+ (error )?)*{name}\b", SECTIONS[name])


def test_the_options_of_all_commands_are_told_once() -> None:
    assert named(OPTIONS) == options(app.muni) | {"--json", "-h", "--help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_and_value_is_named_as_the_help_has_it(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and parameter.is_flag:
            continue
        option = isinstance(parameter, click.Option)
        shown = [parameter.metavar or (parameter.type.name if option else parameter.name or "").upper()]
        if isinstance(parameter.type, click.Choice):
            shown = list(parameter.type.choices)
        for word in shown:
            assert word in SECTIONS[name].replace("\\|", "|"), parameter.name


FILES_WORDS: dict[str, list[str | Path]] = {
    "ls": ["b:/tree"], "tree": ["b:"], "cat": ["b:/tree/file"], "stat": ["b:/tree/file"], "du": ["b:"],
    "find": ["b:"], "mkdir": ["b:/new"], "rmdir": ["b:/empty"], "cp": ["b:/tree/file", "b:/copy"],
    "mv": ["b:/tree/file", "b:/moved"], "rm": ["b:/tree/file"], "ln": ["b:/tree/file", "b:/linked"],
    "chmod": ["600", "b:/tree/file"], "touch": ["b:/tree/file"], "history": ["b:"], "diff": ["b:", "1"],
    "restore": ["b:/was", "--at", "5"], "snapshot": ["b:"], "share": ["b:/tree/file"],
    "retention set": ["b:/tree", "--keep", "3y"], "retention show": ["b:/tree"],
    "hold on": ["b:/tree", "--reason", "case 7"], "hold off": ["b:/empty", "--reason", "closed"],
    "prune": ["-y", "b"],
}  # fmt: skip


def files_world(world: FakeComposition, tree: Path, home: Path) -> None:
    """A volume `b` with a folder, a snapshot, and what entry 5 made and entry 6 removed."""
    world.home = home
    (tree.parent / "longer").write_bytes(CONTENT * 5)
    for words in (
        ["identity", "new", "--unlocked"],
        ["volume", "create", "b"],
        ["put", "-r", tree, "b:/"],
        ["mkdir", "b:/empty"],
        ["snapshot", "b:", "named"],
        ["mkdir", "b:/was"],
        ["rmdir", "b:/was"],
        ["retention", "set", "b:", "--keep", "0"],
        ["hold", "on", "b:/empty", "--reason", "a test"],
        ["put", tree.parent / "longer", "b:/twice"],
        ["put", tree / "file", "b:/twice"],
    ):
        assert muni(world, *words).code in (0, 6), words


LOG_WORDS = ("audit", "evidence verify", "log archive", "log audit", "log backup", "log rehost")


def shape(value: Any) -> Any:
    """Keys and kinds of a document; the items of a list, and of an object whose keys are ids, are alike."""
    if isinstance(value, dict):
        if value and all(re.fullmatch("[a-z2-7]{52}", key) for key in value):
            return {"(id)": shape(next(iter(value.values())))}
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if type(value) in (int, float) else type(value).__name__


def members_words(name: str, world: FakeComposition, folder: Path) -> dict[str, list[str | Path]]:
    """What the commands on a volume are given; its owner's home is the world's, and somebody waits."""
    if name == "identity new":
        world.home = folder / "new"
        return {name: ["--unlocked"]}
    anna, bert, carl, dora = (Person(world, folder, who) for who in ("anna", "bert", "carl", "dora"))
    anna.create()
    for person in (bert, carl):
        person.join(anna)
    anna.muni("member", "accept", "books", "bert")
    carl.join(anna)
    world.home = {"volume join": dora, "member leave": bert, "member join": bert}.get(name, anna).home
    cap = anna.muni("volume", "cap", "books", "--right", "read").text.strip()
    if name == "member list":
        bert.muni("member", "join", "books", "--role", "owner")
        anna.muni("member", "accept", "books", bert.id)
        anna.muni("member", "accept", "books", "carl")
    if name in ("volume info", "keeper log"):
        assert anna.muni("keeper", "once", "books").code == 0
    if name in ("volume checkpoints", "volume info", "witness run"):
        assert anna.muni("witness", "run", "books", "--once").code == 0
        anna.muni("volume", "info", "books")
    if name == "volume compare":
        assert anna.muni("volume", "checkpoints", "books", "--export", folder / "seen").code == 0
    return {
        "volume checkpoints": ["books"], "volume compare": ["books", folder / "seen"],
        "witness run": ["books", "--once"], "keeper once": ["books"], "keeper run": ["books"],
        "keeper account": ["books"], "keeper log": ["books"],
        "identity passwd": ["--unlocked"], "identity export": ["--output", folder / "seed"],
        "volume create": ["more", "--log", LOG_ADDRESS], "volume join": [cap], "volume info": ["books"],
        "volume move": ["books", LOG_ADDRESS], "volume cap": ["books", "--right", "verify"],
        "volume snapshot-view": ["books"], "volume fetch": ["books"],
        "member list": ["books"], "member invite": ["books"], "member join": ["books", "--role", "owner"],
        "member accept": ["books", "carl"], "member kick": ["books", "bert", "-y"],
        "member leave": ["books", "-y"], "member policy": ["books"], "member rotate": ["books"],
    }  # fmt: skip


# The demo has a test that runs it, and the shell prints what the commands in it print.
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "shell")])
def test_the_documents_are_those_that_are_printed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = FakeComposition()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(CONTENT)

    os.mkfifo(tree / "pipe")
    cap = muni(world, "put", tree / "file").text.strip()
    words: dict[str, list[str | Path]] = {
        "put": [tree], "get": [cap, tmp_path / "back"], "check": [cap], "repair": [cap],
        "cap verify": [cap],
        "cap show": [cap], "grid join": [INTRODUCER_ADDRESS], "node init": ["n"], "node run": [tree],
        "node status": [tree], "node drain": [tree], "introducer init": ["i"], "introducer run": [tree],
        "log init": ["l"], "log run": [tree], **FILES_WORDS,
        "mount": ["b", tree, "--foreground"], "umount": [tree],
    }  # fmt: skip
    if name.split()[0] in ("identity", "volume", "member", "witness", "keeper"):
        serve_log(tmp_path / "log", monkeypatch)
        words |= members_words(name, world, tmp_path)
    if name == "usage":
        world.home = tmp_path / "home"
    if name.startswith("queue"):
        world.home = home_with_queue(tmp_path / "home")
        words |= {"queue show": ["3"], "queue retry": ["2"], "queue drop": ["2"]}
    if name in FILES_WORDS:
        files_world(world, tree, tmp_path / "home")
    line = [*name.split(), *words.get(name, [])]
    if name in LOG_WORDS:
        line = log_words(name, world, tmp_path)
    printed = muni(world, *line, "--json").json
    told = json.loads(SECTIONS[name].split("```json\n")[1].split("```")[0])
    assert shape(told) == shape(printed)


def test_the_error_document_is_the_one_that_is_printed() -> None:
    told = json.loads(PAGE.split("\n## 7.")[1].split("```json\n")[1].split("```")[0])
    assert told == muni(FakeComposition(), "get", "mun:file:read:" + "a" * 40, "--json").json


def test_the_links_lead_somewhere() -> None:
    folder = Path(__file__).parents[3] / "docs" / "gateways"
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (folder / target).exists(), target
