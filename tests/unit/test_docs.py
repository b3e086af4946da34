"""What the documents name exists: pages, files, commands with their options, dependencies."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import click
import pytest

from muniment.gateways.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONTEXT = click.Context(app.muni)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w./-]*(\{[\w,]+\})?[\w/-]*\.py")
_MODULE = re.compile(r"[a-z_]+(/[a-z_]+)+")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Languages and contents of a page's blocks."""
    for block in _BLOCK.finditer(page.read_text()):
        yield block[1], block[2]


def anchors(page: Path) -> set[str]:
    """What a link to a part of this page may name."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, part = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not part or part in anchors(target), link


def test_every_page_can_be_found_from_the_readme() -> None:
    found, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.is_dir():
            waiting += sorted(set(page.glob("*.md")) - found)
        elif page not in found and page.suffix == ".md":
            found.add(page)
            links = (link.partition("#")[0] for link in _LINK.findall(prose(page)) if "://" not in link)
            waiting += [(page.parent / link).resolve() for link in links if link]
    assert found >= set(PAGES)


def spelled_out(path: str) -> Iterator[str]:
    """`spec/{entry,act}.py` as two paths."""
    parts = [part.split(",") for part in re.split(r"[{}]", path)]
    return ("".join(words) for words in product(*parts))


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # tells of what was
    sources = {path.name for path in (ROOT / "src").rglob("*.py")}
    for code in _CODE.findall(prose(page)):
        for word in code.split():
            if not _FILE.fullmatch(word):
                continue
            for path in spelled_out(word):
                below = [ROOT, ROOT / "src" / "muniment", ROOT / "tests", page.parent]
                there = any((folder / path).is_file() for folder in below)
                assert there or ("/" not in path and path in sources | TESTS), path


@each_page
def test_modules_that_are_named_without_their_ending_exist(page: Path) -> None:
    package = ROOT / "src" / "muniment"
    for word in " ".join(_CODE.findall(prose(page))).split():
        if _MODULE.fullmatch(word) and (package / word.partition("/")[0]).is_dir():
            assert (package / word).is_dir() or (package / f"{word}.py").is_file(), word


TESTS = {path.name for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py")}


def test_the_architecture_names_every_folder_of_the_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for folder in (path.parent for path in (ROOT / "src" / "muniment").rglob("__init__.py")):
        assert re.search(rf"(^|\s|/){folder.name}/", page) or folder.name == "muniment", folder.name


# --- commands


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words, behind `muni`, lead to, and what is left of them."""
    command: click.Command = app.muni
    while isinstance(command, click.Group):
        opts = {opt: one for one in command.params if isinstance(one, click.Option) for opt in one.opts}
        while words and words[0].startswith("-") and words[0] != "--help":
            option = opts[words[0]]
            words = words[1 if option.is_flag else 2 :]
        if not words or words[0] == "--help":
            break
        found = command.get_command(CONTEXT, words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


def check_line(line: str) -> None:
    """Raises unless the program would take this line, whatever its values mean."""
    command, words = command_of(shlex.split(line, comments=True)[1:])
    assert not isinstance(command, click.Group), f"{line}: a command is missing"
    context = click.Context(command, info_name=command.name)
    given, rest, _ = command.make_parser(context).parse_args(words)
    assert not rest, f"{line}: unexpected {rest}"
    for argument in command.params:
        if isinstance(argument, click.Argument) and argument.required:
            value = given.get(argument.name or "")  # click's own marks for nothing are neither
            assert isinstance(value, str | tuple), f"{line}: {argument.name} is missing"
            assert value, f"{line}: {argument.name} is missing"


def lines_to_type(page: Path) -> Iterator[str]:
    """Command lines of blocks: what is before a pipe or redirection, and before what explains it."""
    for language, block in blocks(page):
        for line in block.splitlines():
            if language == "sh":
                for part in re.split(r"[|;&]", line.partition(" #")[0]):
                    if part.strip().startswith("muni "):
                        yield re.sub(r" >\s*\S+", "", part.strip())
            elif language == "" and (typed := re.fullmatch(r"(?:\$ |\w+ {2,})?(muni .*?)(?: {2,}.*)?", line)):
                if "[OPTIONS]" in typed[1]:
                    continue
                yield re.sub(r" >\s*\S+", "", typed[1].partition(" | ")[0])


@pytest.mark.parametrize("page", [page for page in PAGES if any(lines_to_type(page))], ids=name)
def test_commands_in_blocks_are_taken_by_the_program(page: Path) -> None:
    for line in lines_to_type(page):
        check_line(line)


@each_page
def test_commands_in_sentences_exist_with_their_options(page: Path) -> None:
    for code in _CODE.findall(prose(page)):
        if not code.startswith("muni ") or "COMMAND" in code:
            continue
        choices = [word.strip("[]").split("|") for word in code.replace("\\|", "|").split()[1:]]
        for words in product(*choices):  # `muni keeper run|once` is two commands
            command, rest = command_of([word for word in words if word != "[OPTIONS]"])
            known = {opt for one in command.params for opt in one.opts} | {"--help", "--json"}
            assert {word for word in rest if word.startswith("--")} <= known, code


# --- dependencies


def direct_dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"]
    lists = [project["project"]["dependencies"], *optional.values(), *project["dependency-groups"].values()]
    return {re.split(r"[^\w-]", requirement)[0] for one in lists for requirement in one}


def test_every_direct_dependency_has_its_reason_and_its_licence() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    told = {}
    for row in re.findall(r"^\| (.*) \|$", page, re.MULTILINE):
        cells = [cell.strip() for cell in row.split(" | ")]
        told[cells[1] if cells[0].startswith("`") else cells[0]] = cells
    dependencies = direct_dependencies()
    assert set(told) - {"package", "extra"} == dependencies
    assert all(len(told[one]) in (3, 4) and all(told[one]) for one in dependencies)


@pytest.mark.parametrize("group", ["runtime", "dev"])
def test_no_lock_file_lacks_a_direct_dependency(group: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = list(project["project"]["dependencies"])
    if group == "dev":
        wanted += project["dependency-groups"]["dev"]
    locked = set(
        re.findall(r"^([\w-]+)==", (ROOT / "requirements" / f"{group}.txt").read_text(), re.MULTILINE)
    )
    assert {re.split(r"[^\w-]", one)[0] for one in wanted} <= locked
