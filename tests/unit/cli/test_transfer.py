"""put, get, check and cap against nodes in memory: what is printed, written, refused and told by the code."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni

from muniment.engine.grid import Grid
from muniment.errors import CapacityFull, FileFailed

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def world() -> FakeComposition:
    return FakeComposition()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a").write_bytes(CONTENT[:100_000])
    (folder / "b").write_bytes(b"small")
    (folder / "link").symlink_to("b")
    return folder


def stored(world: FakeComposition, path: Path | str, *options: str) -> str:
    done = muni(world, "-q", "put", path, *options)
    assert done.code == 0, done.err
    return done.text.strip()


# --- put


def test_put_prints_the_capability_and_get_brings_the_file_back(world: FakeComposition, file: Path) -> None:
    done = muni(world, "put", file)
    assert done.code == 0
    (cap,) = done.lines
    assert cap.startswith("mun:file:read:")
    assert re.search(r": 300\.0 kB( in .*)? on 6 nodes", done.err)
    back = file.with_name("back")
    assert muni(world, "get", cap, back).code == 0
    assert back.read_bytes() == CONTENT
    assert muni(world, "get", cap).out == CONTENT


def test_quiet_says_nothing_but_the_result(world: FakeComposition, file: Path) -> None:
    done = muni(world, "-q", "put", file)
    assert not done.err
    got = muni(world, "--quiet", "get", done.text.strip())
    assert (got.out, got.err) == (CONTENT, "")


def test_put_with_json_is_one_document(world: FakeComposition, file: Path) -> None:
    for words in (["put", str(file), "--json"], ["--json", "put", str(file)]):
        done = muni(world, *words)
        (document,) = done.json["stored"]
        assert document["cap"].startswith("mun:file:read:")
        assert document["size_bytes"] == len(CONTENT)
        assert (document["path"], document["files"], document["placed"]) == (str(file), 1, 6)
        assert document["skipped"] == []
        assert not done.err
    assert document["new_bytes"] == 0
    assert document["present_bytes"] > len(CONTENT)


def test_put_takes_standard_input(world: FakeComposition) -> None:
    done = muni(world, "put", "-", stdin=CONTENT)
    assert muni(world, "get", done.text.strip()).out == CONTENT
    assert muni(world, "put", "-", "-").code == 2


def test_a_folder_is_one_capability_and_comes_back_whole(world: FakeComposition, tree: Path) -> None:
    cap = stored(world, tree)
    assert cap.startswith("mun:tree:read:")
    back = tree.with_name("back")
    done = muni(world, "get", cap, back, "--json")
    assert done.json["files"] == 2
    assert (back / "inner" / "a").read_bytes() == CONTENT[:100_000]
    assert (back / "link").readlink() == Path("b")


def test_several_paths_give_a_line_each_with_the_name(world: FakeComposition, file: Path, tree: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(CONTENT[:1000])
    done = muni(world, "put", other, tree, file, "-", stdin=b"x" * 1000)
    assert done.code == 0
    caps, names = zip(*(line.split("  ") for line in done.lines), strict=True)
    assert names == (str(other), str(tree), str(file), "-")
    assert muni(world, "get", caps[0]).out == CONTENT[:1000]
    assert muni(world, "get", caps[2]).out == CONTENT
    assert muni(world, "get", caps[3]).out == b"x" * 1000


def test_a_name_of_any_bytes_loses_no_capability(world: FakeComposition, file: Path) -> None:
    odd = file.with_name(os.fsdecode(b"no \xff text\n"))
    odd.write_bytes(CONTENT[:1000])
    done = muni(world, "put", odd, file)
    assert done.code == 0
    assert [line.split("  ")[1] for line in done.lines] == [
        str(file.with_name("no \\udcff text\\n")), str(file),
    ]  # fmt: skip
    named = muni(world, "put", odd, file, "--json").json["stored"][0]["path"]
    assert named == str(odd)


def test_one_of_several_that_fails_does_not_stop_the_others(
    world: FakeComposition, file: Path, tree: Path
) -> None:
    def meddle(grid: Grid) -> None:
        async def put_tree(*_: object, **__: object) -> object:
            raise FileFailed(path=str(tree), reason="it is gone")

        grid.put_tree = put_tree  # type: ignore[method-assign, assignment]  # the engine has its own tests

    world.meddle = meddle
    done = muni(world, "put", tree, file)
    assert done.code == 6
    assert f"{tree}: not stored: {tree}: it is gone" in done.err
    (line,) = done.lines
    assert line.endswith(f"  {file}")
    documents = muni(world, "put", tree, file, "--json").json["stored"]
    assert [document["cap"] is None for document in documents] == [True, False]
    assert documents[0]["error"]["code"] == "file-failed"
    alone = muni(world, "put", tree)
    assert alone.code == 6
    assert "muni: " in alone.err


def test_what_is_stored_is_told_even_if_the_rest_is_interrupted(
    world: FakeComposition, file: Path, tree: Path
) -> None:
    def meddle(grid: Grid) -> None:
        async def put_tree(*_: object, **__: object) -> object:
            raise KeyboardInterrupt

        grid.put_tree = put_tree  # type: ignore[method-assign, assignment]  # an interrupt just there

    world.meddle = meddle
    done = muni(world, "put", file, tree)
    assert done.code == 130
    assert done.lines[0].endswith(f"  {file}")
    assert "goes on from what is stored" in done.err


def test_options_reach_the_grid(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file, "--coding", "2/3", "--chunk", "64KiB", "--no-compress")
    shown = muni(world, "cap", "show", cap, "--json").json
    assert shown["coding"] == "rs-2-3"
    assert shown["size_bytes"] == len(CONTENT)
    assert (
        muni(world, "cap", "show", stored(world, file, "--coding", "rep-3"), "--json").json["coding"]
        == "rep-3"
    )


def test_impossible_codings_are_refused(world: FakeComposition, file: Path) -> None:
    for options in (["--coding", "6/4"], ["--happy", "7"], ["--chunk", "1KiB"], ["--placement", "pairs"]):
        done = muni(world, "put", file, *options)
        assert done.code == 2, options
        assert "these coding parameters cannot work" in done.err
    assert "64 KiB to 16 MiB" in muni(world, "put", file, "--chunk", "1KiB").err


def test_too_few_nodes_is_unavailable(world: FakeComposition, file: Path) -> None:
    for node in world.grid.nodes[:3]:
        node.faults.refuse = CapacityFull(1, 0)
    done = muni(world, "put", file)
    assert done.code == 3
    assert "5 distinct nodes must take a share" in done.err
    assert "node's capacity" in done.err, "why the others did not"
    assert world.grid.reserved_bytes == 0


def test_a_missing_path_is_noticed_before_anything_is_stored(world: FakeComposition, file: Path) -> None:
    done = muni(world, "put", file, file.with_name("missing"))
    assert done.code == 2
    assert "missing does not exist" in done.err
    assert not world.opened


def test_what_cannot_be_stored_is_left_out_and_told(world: FakeComposition, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    done = muni(world, "put", tree)
    assert done.code == 6
    assert "left out: pipe: neither a file" in done.err
    assert done.lines[0].startswith("mun:tree:read:")


# --- get


def test_a_range_is_half_open(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file, "--chunk", "64KiB")
    assert muni(world, "get", cap, "--range", "65530-65540").out == CONTENT[65530:65540]
    assert muni(world, "get", cap, "--range", "299999-").out == CONTENT[-1:]
    done = muni(world, "get", cap, "--range", "5-400000")
    assert done.code == 2
    assert "does not lie within 300000 bytes" in done.err


def test_a_capability_comes_from_standard_input_or_a_file(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file)
    note = file.with_name("note")
    note.write_text(f"  {cap}\n")
    assert muni(world, "get", "-", stdin=cap + "\n").out == CONTENT
    assert muni(world, "get", f"@{note}").out == CONTENT
    assert muni(world, "get", f"@{note}.missing").code == 6
    note.write_bytes(b"\xff\xfe")
    assert muni(world, "get", f"@{note}").code == 2


def test_a_typing_error_is_found_before_any_node_is_asked(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file)
    world.opened.clear()
    wrong = cap[:30] + ("a" if cap[30] != "a" else "b") + cap[31:]
    done = muni(world, "get", wrong)
    assert done.code == 2
    assert "not a valid capability" in done.err
    assert wrong[20:] not in done.err, "a capability is a secret, even one with an error"
    assert not world.opened


def test_a_file_is_not_replaced_unasked(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file)
    target = file.with_name("target")
    target.write_bytes(b"precious")
    done = muni(world, "get", cap, target)
    assert done.code == 2
    assert "--replace" in done.err
    assert target.read_bytes() == b"precious"
    assert muni(world, "get", cap, target, "--force").code == 0
    assert target.read_bytes() == CONTENT


def test_a_folder_is_not_replaced_unasked(world: FakeComposition, tree: Path) -> None:
    cap = stored(world, tree)
    target = tree.with_name("target")
    target.mkdir()
    assert muni(world, "get", cap, target).code == 0, "an empty folder is as good as none"
    (target / "precious").touch()
    done = muni(world, "get", cap, target)
    assert done.code == 2
    assert (target / "precious").exists()
    assert muni(world, "get", cap, target, "--force").code == 0
    assert not (target / "precious").exists()


def test_the_folders_one_stands_and_lives_in_are_never_replaced(
    world: FakeComposition, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap = stored(world, tree)
    home = tree.with_name("home")
    (home / "work" / "here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))  # where Path.home looks
    monkeypatch.chdir(home / "work" / "here")
    for target in (home, home / "work", Path("..")):
        done = muni(world, "get", cap, target, "--force")
        assert done.code == 2, target
        assert "holds" in done.err
    assert (home / "work" / "here").exists()


def test_what_cannot_be_meant_is_said(world: FakeComposition, file: Path, tree: Path) -> None:
    cap, tree_cap = stored(world, file), stored(world, tree)
    world.opened.clear()
    for words, says in [
        (["get", tree_cap], "say where to restore it"),
        (["get", tree_cap, str(file), "--force"], "is not a folder"),
        (["get", tree_cap, "new", "--range", "0-5"], "--range is for files"),
        (["get", cap, str(tree)], "is a folder"),
        (["get", cap, "--json"], "cannot hold content and a document"),
        (["get", cap, ""], "the target is empty"),
        (["put", str(file), ""], "a path is empty"),
    ]:
        done = muni(world, *words)
        assert done.code == 2, words
        assert says in done.err + done.text, words
    assert not world.opened


def test_a_verify_capability_does_not_read(world: FakeComposition, file: Path) -> None:
    weak = muni(world, "cap", "verify", stored(world, file)).text.strip()
    done = muni(world, "get", weak)
    assert done.code == 2
    assert "needs a read capability, but a verify capability was given" in done.err


def test_a_liar_is_named(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file)
    for node in world.grid.nodes:  # whichever is asked first: at most two, the others are honest
        node.faults.tamper = None
    liar = next(n for held in world.grid.holders().values() for n in held[0])  # type: ignore[index]
    liar.faults.tamper = lambda _, record: bytes(record[:-1]) + bytes((record[-1] ^ 1,))
    done = muni(world, "get", cap, file.with_name("back"), "--json")
    assert done.code == 0
    (name,) = done.json["liars"]
    told = muni(world, "get", cap)
    assert told.out == CONTENT
    assert f"node {name[:12]} served 1 false share" in told.err


def test_too_few_shares_leave_no_file(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file)
    for node in world.grid.nodes[:3]:
        node.faults.down = "switched off"
    target = file.with_name("target")
    done = muni(world, "get", cap, target)
    assert done.code == 3
    assert "muni check" in done.err
    assert {path.name for path in file.parent.iterdir()} == {"file"}


# --- check, cap


def test_check_tells_by_its_exit_code(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file)
    weak = muni(world, "cap", "verify", cap).text.strip()
    for words in (["check", cap], ["check", weak, "--verify"]):
        done = muni(world, *words)
        assert (done.code, done.lines[0].split(":")[0]) == (0, "healthy")
    world.grid.nodes[0].faults.down = "switched off"
    done = muni(world, "check", weak, "--json")
    assert done.code == 10
    assert (done.json["healthy"], done.json["recoverable"]) == (False, True)
    assert done.json["shares"]["node offline"] == 1
    for node in world.grid.nodes[:3]:
        node.faults.down = "switched off"
    done = muni(world, "check", cap)
    assert done.code == 11
    assert "NOT READABLE" in done.text


def test_only_verify_finds_damage(world: FakeComposition, file: Path) -> None:
    cap = stored(world, file)
    world.grid.damage(lambda key: key.number == 0)
    assert muni(world, "check", cap).code == 0
    assert muni(world, "check", cap, "--verify").code == 10


def test_a_weakened_capability_is_weak_for_good(world: FakeComposition, file: Path, tree: Path) -> None:
    for path, kind in ((file, "file"), (tree, "tree")):
        cap = stored(world, path)
        weak = muni(world, "cap", "verify", cap, "--json").json["cap"]
        assert weak.startswith(f"mun:{kind}:verify:")
        assert muni(world, "cap", "verify", "-", stdin=weak).text.strip() == weak


def test_cap_show_tells_what_it_is_and_no_secret(world: FakeComposition, file: Path, tree: Path) -> None:
    tiny = file.with_name("tiny")
    tiny.write_bytes(b"hello")
    large = file.with_name("large")
    large.write_bytes(CONTENT)
    caps = [
        stored(world, tiny),
        stored(world, file),
        stored(world, tree),
        stored(world, large, "--chunk", "64KiB"),
    ]
    caps += [muni(world, "cap", "verify", cap).text.strip() for cap in caps]
    for cap in caps:
        done = muni(world, "cap", "show", cap)
        _, kind, right, payload = cap.split(":")
        assert done.code == 0
        assert kind in done.lines[0]
        assert right in done.lines[1]
        assert payload not in done.text
        assert b"hello" not in done.out
    assert muni(world, "cap", "show", caps[0], "--json").json["size_bytes"] == 5


@pytest.mark.parametrize("volume", [False, True])
def test_what_cannot_fit_is_refused_before_anything_is_sent(tmp_path: Path, *, volume: bool) -> None:
    world = FakeComposition()
    for node in world.grid.nodes:
        node.capacity_bytes = 4_000_000
    with (tmp_path / "large").open("wb") as file:
        for _ in range(65):
            file.write(bytes(1 << 20))
    to = ["b:/"] if volume else []
    if volume:
        world.home = tmp_path / "home"
        assert muni(world, "identity", "new", "--unlocked").code == 0
        assert muni(world, "volume", "create", "b").code == 0
    done = muni(world, "put", tmp_path / "large", *to)
    assert done.code == 3
    assert "68157440 bytes do not fit" in done.err
    assert "try --force" in done.err
    assert world.grid.calls()["reserve"] == 0
    assert muni(world, "put", "--force", tmp_path / "large", *to).code == 0  # zeros compress well
