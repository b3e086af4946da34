"""Commands on a volume's files: real identities and logs, the grid in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.cli.support import Done, FakeComposition, muni

from muniment.fs.names.when import time_ns
from muniment.gateways.cli.vol_paths import VolPath, parse_vol_path

BIG = os.urandom(200_000)


class Desk:
    """Somebody with a volume `books`, standing in a folder with a tree of his own."""

    def __init__(self, folder: Path) -> None:
        self.world = FakeComposition(home=folder / "home")
        self.here = folder
        self("identity", "new", "--unlocked")
        self("volume", "create", "books", "--own-name", "anna")
        (folder / "tree" / "sub").mkdir(parents=True)
        (folder / "tree" / "a").write_bytes(b"hello\n")
        (folder / "tree" / "sub" / "b").write_bytes(BIG)
        (folder / "tree" / "link").symlink_to("a")

    def __call__(self, *words: str | Path, code: int = 0, stdin: bytes = b"") -> Done:
        done = muni(self.world, *words, stdin=stdin)
        assert done.code == code, done.err
        return done

    def names(self, *words: str) -> list[str]:
        return self("ls", *words).lines


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


@pytest.fixture
def filled(desk: Desk) -> Desk:
    desk("put", "-r", "tree", "books:/")
    return desk


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("books:", VolPath("books", b"")),
        ("books:/", VolPath("books", b"")),
        ("books:/a//b/../c", VolPath("books", b"a/c")),
        ("books:/a/", VolPath("books", b"a", folder=True)),
        ("my books:/a:b", VolPath("my books", b"a:b")),
        ("./a:/b", None),
        ("a:b", None),
        ("mun:file:read:abc", None),
        ("file", None),
    ],
)
def test_what_is_a_path_in_a_volume(text: str, parsed: VolPath | None) -> None:
    assert parse_vol_path(text) == parsed


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("now", 0), ("30s ago", 30), ("2h ago", 7200), ("3 days ago", 3 * 86400), ("1 week ago", 7 * 86400)],
)
def test_so_long_ago(text: str, ago_s: int) -> None:
    assert time_ns(text, 1e9) == (10**9 - ago_s) * 10**9


def test_times() -> None:
    day_ns = 86400 * 10**9
    assert time_ns("2026-11-20T14:30:00Z", 0) == 1795185000 * 10**9
    assert time_ns("2026-11-20T14:30:00.5+01:00", 0) == 1795181400 * 10**9 + 5 * 10**8
    end = time_ns("2026-11-20", 0)
    assert end is not None
    start = time_ns("2026-11-20T00:00", 0)
    assert start is not None
    assert end - start == day_ns - 1
    assert time_ns("yesterday", end / 1e9 - 3600) == end - day_ns
    for text in ("", "tomorrow", "ago", "2026-13-01", "9999999 weeks ago", "2026-11-20T25:00"):
        assert time_ns(text, 1e9) is None


def test_a_folder_there_and_back(filled: Desk) -> None:
    filled("get", "-r", "books:/tree", "out")
    assert (filled.here / "out" / "a").read_bytes() == b"hello\n"
    assert (filled.here / "out" / "sub" / "b").read_bytes() == BIG
    assert (filled.here / "out" / "link").readlink() == Path("a")
    (filled.here / "into").mkdir()
    filled("get", "-r", "books:/tree", "books:/tree/a", "into")
    assert (filled.here / "into" / "tree" / "sub" / "b").read_bytes() == BIG
    assert (filled.here / "into" / "a").read_bytes() == b"hello\n"


def test_put_goes_into_a_folder_that_is_there(filled: Desk) -> None:
    filled("put", "tree/a", "tree/sub/b", "books:/tree/sub")
    filled("put", "tree/a", "books:/renamed")
    filled("put", "-", "books:/typed", stdin=b"typed")
    assert filled.names("books:") == ["renamed", "tree", "typed"]
    assert filled.names("books:/tree/sub") == ["a", "b"]
    assert filled("cat", "books:/renamed", "books:/typed").out == b"hello\ntyped"
    assert filled("get", "books:/typed", "--range", "1-3").out == b"yp"


def test_what_put_refuses(filled: Desk) -> None:
    assert "-r" in filled("put", "tree", "books:/x", code=2).err
    assert "--coding" in filled("put", "--coding", "2/3", "tree/a", "books:/x", code=2).err
    assert "mkdir" in filled("put", "tree/a", "tree/sub/b", "books:/x", code=2).err
    assert "VOL:/PATH" in filled("put", "-m", "why", "tree/a", code=2).err
    assert "does not exist" in filled("put", "nothing", "books:/x", code=2).err
    assert filled.names("books:") == ["tree"]


def test_only_over_the_version_that_is_known(filled: Desk) -> None:
    version = filled("stat", "--json", "books:/tree/a").json["entries"][0]["version"]
    put = ("put", "--if-version", str(version), "tree/a", "books:/tree/a")
    filled(*put)
    assert "changed" in filled(*put, code=2).err


def test_a_local_file_is_not_replaced_unasked(filled: Desk) -> None:
    target = filled.here / "mine"
    target.write_bytes(b"precious")
    assert "--replace" in filled("get", "books:/tree/a", target, code=2).err
    assert "--replace" in filled("cp", "books:/tree/*", "tree", "-r", code=2).err
    assert target.read_bytes() == b"precious"
    filled("get", "--replace", "books:/tree/a", target)
    assert target.read_bytes() == b"hello\n"
    assert not list(filled.here.glob(".muniment*"))


def test_listing(filled: Desk) -> None:
    filled("touch", "books:/tree/.hidden")
    assert filled.names("books:/tree") == [".hidden", "a", "link", "sub"]
    assert filled.names("books:/tree/*") == ["tree/a", "tree/link", "", "books:/tree/sub:", "b"]
    long = filled.names("-lR", "books:/")
    assert long[0] == "books:/:"
    assert any(line.startswith("lrwxrwxrwx") and line.endswith("link -> a") for line in long)
    assert filled("tree", "books:").lines[1:-1] == [
        "└── tree",
        "    ├── .hidden",
        "    ├── a",
        "    ├── link -> a",
        "    └── sub",
        "        └── b",
    ]
    assert filled("find", "books:", "--name", "?", "--type", "f").lines == [
        "books:/tree/a",
        "books:/tree/sub/b",
    ]
    sums = {one["path"]: one["size_bytes"] for one in filled("du", "--json", "books:").json["folders"]}
    assert sums == {"/tree": 200_007, "/tree/sub": 200_000, "/": 200_007}


def test_names_of_others_cannot_speak_to_the_terminal(desk: Desk) -> None:
    desk("touch", "books:/a\x1b[31m\nb")
    assert desk.names("books:") == ["a\\x1b[31m\\nb"]


def test_making_moving_and_removing(filled: Desk) -> None:
    filled("mkdir", "-p", "books:/x/y")
    filled("mkdir", "-p", "books:/x")
    filled("mkdir", "books:/x", code=2)
    assert filled("mv", "-n", "books:/tree/*", "books:/x").lines[0] == "books:/tree/a -> books:/x/a"
    filled("mv", "books:/tree/*", "books:/x")
    assert filled.names("books:/x") == ["a", "link", "sub", "y"]
    filled("rmdir", "books:/tree", "books:/x/y")
    filled("rmdir", "books:/x", code=2)
    filled("rm", "books:/x", code=2)
    assert filled("rm", "-rn", "books:/x", "books:/x/a").lines == ["would remove books:/x"]
    removed = filled("rm", "-r", "--json", "books:/x", "books:/x/a").json
    assert (removed["names"], removed["removed"]) == (5, ["/x"])
    assert filled.names("books:") == []


def test_copies_links_and_modes(filled: Desk) -> None:
    filled("cp", "-r", "books:/tree", "books:/copy")
    filled("cp", "books:/tree", "books:/other", code=2)
    filled("cp", "tree/a", "books:/copy/new")
    filled("cp", "books:/copy/new", "back")
    assert (filled.here / "back").read_bytes() == b"hello\n"
    filled("cp", "tree/a", "back", code=2)
    filled("ln", "books:/copy/a", "books:/copy/hard")
    filled("ln", "-s", "a", "books:/copy/soft")
    assert filled("cat", "books:/copy/hard", "books:/copy/soft").out == b"hello\n" * 2
    filled("ln", "-s", "nowhere", "books:/copy/gone")
    filled("cp", "-r", "books:/copy/gone", "books:/gone")
    filled("chmod", "-R", "u=rwx,go-rwx", "books:/copy")
    modes = {
        one["mode"] for one in filled("ls", "--json", "books:/copy").json["entries"] if "target" not in one
    }
    assert modes == {"0700"}
    filled("chmod", "8", "books:/copy", code=2)


def test_the_past(filled: Desk) -> None:
    filled("snapshot", "books:", "before")
    filled("put", "-", "books:/tree/a", "-m", "a better one", stdin=b"changed")
    filled("mv", "books:/tree/sub", "books:/moved")
    filled("rm", "books:/tree/link")
    assert filled("cat", "books:/tree/a", "--at", "before").out == b"hello\n"
    assert filled.names("books:/tree", "--at", "2") == ["a", "link", "sub"]
    assert filled("diff", "books:", "before").lines == [
        "> /tree/sub -> /moved/",
        "* /tree/a",
        "- /tree/link",
    ]
    entries = filled("history", "--json", "books:").json["entries"]
    assert [one["what"] for one in entries] == [
        "1 removed", "1 moved", "1 changed", "attributes, or a snapshot", "4 added", "1 added",
        "founded books",
    ]  # fmt: skip
    assert (entries[2]["message"], entries[2]["author"]) == ("a better one", "anna")
    assert [one["size_bytes"] for one in filled("history", "--json", "books:/tree/a").json["versions"]] == [
        7,
        6,
    ]
    would = filled("restore", "-n", "books:/tree", "--at", "before")
    assert would.lines == ["* /tree/a", "+ /tree/link", "+ /tree/sub/", "+ /tree/sub/b"]
    filled("restore", "books:", "--at", "before")
    assert filled("diff", "books:", "before").lines == []
    assert "as it was" in filled("restore", "books:", "--at", "before").err
    assert filled("snapshot", "books:").text.startswith("before  entry 2")


def test_whens_that_mean_nothing(filled: Desk) -> None:
    for when in ("99", "someday", "1 week ago"):
        assert muni(filled.world, "ls", "--at", when, "books:").code == 2
    filled("snapshot", "books:", "7", code=2)


def test_a_capability_of_what_is_in_a_volume(filled: Desk) -> None:
    cap = filled("share", "books:/tree").text.strip()
    stranger = FakeComposition(grid=filled.world.grid)
    assert muni(stranger, "get", cap, filled.here / "theirs").code == 0
    assert (filled.here / "theirs" / "sub" / "b").read_bytes() == BIG
    weak = filled("share", "--verify-only", "books:/tree/sub/b").text.strip()
    assert weak.startswith("mun:file:verify:")
    assert muni(stranger, "check", weak).code == 0


def test_what_is_no_path_in_a_volume(filled: Desk) -> None:
    for words in (["ls", "books"], ["ls", "nothing:/x"], ["ls", "books:/nothing"], ["ls", "books:/no*"]):
        assert muni(filled.world, *words).code == 2
    assert "several volumes" in filled("mv", "books:/tree", "other:/x", code=2).err
    assert "leaves the volume" in filled("cat", "books:/../x", code=2).err


def test_first_mistakes_are_told_in_one_clear_sentence(filled: Desk) -> None:
    for words, said in (
        (("put", "books:/tree/a", "books:/x"), "books:/tree/a is in a volume"),
        (("get", "tree/a", "books:/x"), "books:/x is in a volume"),
        (("tree", "books:/tree/a"), "/tree/a is not a folder"),
        (("cat", "books:/tree"), "/tree is not a file"),
        (("ls", "books:/no/where"), "there is no /no in the volume"),
        (("mkdir", "books:/tree"), "the volume does not allow this: tree: the name is taken"),
        (("rmdir", "books:/tree"), "the volume does not allow this: tree: the folder is not empty"),
        (("volume", "cap", "books"), "Missing option '--right'. Choose from: write, read, verify"),
    ):
        done = filled(*words, code=2)
        assert done.err.startswith(f"muni: {said}"), done.err
        assert len(done.err.splitlines()) == 2
    assert filled("history", "books:", "--json").json["entries"][0]["rejected"] is None
