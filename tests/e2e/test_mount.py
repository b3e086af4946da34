"""A volume mounted by the program over node processes: a tree there and back, others beside it, its end."""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.mounting import library, needs_mounts
from tests.e2e.muni_command import User

from muniment.gateways.mount.places import find_mounted

RNG = random.Random(6)
HELPER = "muniment.node.mount_helper"


pytestmark = needs_mounts


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with library(tmp_path_factory.mktemp("mount")) as made:
        make_tree(made.user.home / "tree")
        yield made.user


def typed(user: User, line: str) -> str:
    done = user.shell(line)
    assert done.code == 0, done.err
    return done.text


def make_tree(top: Path) -> None:
    sizes = {
        "empty": 0,
        "tiny": 7,
        "inline": 2048,
        "small": 20_000,
        "sub/large": 5_000_000,
        "sub/x/deep": 70_000,
    }
    for name, size in sizes.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(RNG.randbytes(size))
    (top / "link").symlink_to("sub/large")
    os.link(top / "small", top / "sub" / "same")
    os.mkfifo(top / "pipe")
    (top / "tiny").chmod(0o640)
    Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe not utf-8")).write_bytes(b"named by bytes")
    os.utime(top / "sub", ns=(10**18, 10**18 + 123_456_789))


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """All that a copy must keep."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        target = str(path.readlink()) if path.is_symlink() else ""
        links = status.st_nlink if not path.is_dir() else 0
        key = os.fsdecode(os.fsencode(path.relative_to(top)))
        found[key] = (status.st_mode, status.st_uid, status.st_mtime_ns, links, content, target)
    return found


@contextlib.contextmanager
def mounted(user: User, name: str = "books", *options: str) -> Iterator[Path]:
    folder = user.home / "mounted"
    typed(user, " ".join(["muni", "mount", *options, name, "mounted"]))
    try:
        yield folder
    finally:
        typed(user, "muni umount mounted")
    assert find_mounted(folder) is None
    assert not list(folder.iterdir())


def test_a_tree_is_copied_in_and_there_when_it_is_mounted_again(user: User) -> None:
    with mounted(user) as folder:
        subprocess.run(["cp", "-a", user.home / "tree", folder / "copy"], check=True, timeout=60)
        assert facts(folder / "copy") == facts(user.home / "tree")
        assert "sub" in typed(user, "muni ls books:/copy").split("\n")
        typed(user, "muni cat books:/copy/sub/large | cmp - tree/sub/large")
        typed(user, "muni put tree/small books:/copy/from-outside")
        assert "from-outside" in os.listdir(folder / "copy")  # noqa: PTH208 - looking asks for what is new
        assert filecmp.cmp(folder / "copy" / "from-outside", user.home / "tree" / "small", shallow=False)
        (folder / "copy" / "from-outside").unlink()
    with mounted(user) as folder:
        assert facts(folder / "copy") == facts(user.home / "tree")
        assert typed(user, "muni ls books:/copy").count("outside") == 0


def test_the_past_is_mounted_beside_the_present_and_cannot_be_changed(user: User) -> None:
    typed(user, "echo first | muni put - books:/note && muni snapshot books: then")
    with mounted(user) as folder:
        (folder / "note").write_text("second\n")
        past = user.home / "past"
        past.mkdir()
        typed(user, "muni mount --at then books past")
        try:
            assert (past / "note").read_text() == "first\n"
            with pytest.raises(OSError, match="Read-only"):
                (past / "note").write_text("forged")
        finally:
            typed(user, "muni umount past")
        assert (folder / "note").read_text() == "second\n"
        assert typed(user, "muni cat books:/note") == "second"


def test_the_past_is_looked_at_in_place(user: User) -> None:
    typed(user, "echo first | muni put - books:/page && muni snapshot books: before")
    with mounted(user) as folder:
        (folder / "page").write_text("second\n")
        (folder / "page").rename(folder / "leaf")
        at, versions = folder / ".muniment" / "at", folder / ".muniment" / "versions" / "leaf"
        assert (at / "before" / "page").read_text() == "first\n"
        assert "before" in os.listdir(at)  # noqa: PTH208 - the plain call
        assert not (at / "before" / "leaf").exists()
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        texts = [path.read_text() for path in sorted(versions.iterdir(), key=lambda path: int(path.name))]
        assert [text for text in texts if text] == ["first\n", "second\n"]
        assert ".muniment" not in os.listdir(folder)  # noqa: PTH208 - the plain call
        with pytest.raises(OSError, match="Read-only"):
            (at / "before" / "page").write_text("forged")
        with pytest.raises(OSError, match="Read-only"):
            (at / "before" / "page").unlink()
        subprocess.run(["cp", "-a", at / "before" / "page", folder / "page"], check=True, timeout=30)
        assert (folder / "page").read_text() == "first\n"


def test_fstab_mounts_through_its_helper(user: User) -> None:
    folder = user.home / "fstab"
    folder.mkdir()
    options = f"rw,noauto,_netdev,relatime,home={user.home / 'muniment'}"
    with user.start(sys.executable, "-m", HELPER, "books", folder, "-o", options) as helper:
        _, said = helper.communicate(timeout=60)
    assert helper.returncode == 0, said
    found = find_mounted(folder)
    assert found is not None
    assert found.source == "muniment:books"
    typed(user, f"muni umount {folder}")
    with user.start(sys.executable, "-m", HELPER, "books", folder, "-o", "nosymfollow") as helper:
        _, said = helper.communicate(timeout=60)
    assert helper.returncode == 2
    assert b"nosymfollow" in said


def test_a_signal_saves_everything_and_leaves_no_dead_mount(user: User) -> None:
    folder = user.home / "signalled"
    folder.mkdir()
    with user.starting(
        "mount", "--foreground", "-o", "linger=60,lazy_close", "books", "signalled"
    ) as process:
        assert process.stdout is not None
        assert "mounted" in str(process.stdout.readline())
        (folder / "late").write_bytes(b"written and not closed for long")
        os.mkdir(folder / "made")  # noqa: PTH102 - the plain call
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert find_mounted(folder) is None
    assert typed(user, "muni cat books:/late") == "written and not closed for long"
    assert "made" in typed(user, "muni ls books:")


def test_what_somebody_uses_is_not_unmounted_unless_he_says_so(user: User) -> None:
    with mounted(user) as folder:
        (folder / "held").write_text("x")
        with (folder / "held").open() as held:
            done = user.muni("umount", "mounted")
            assert done.code == 2
            assert "busy" in done.err
            assert held.read() == "x"


def test_what_is_taken_away_lazily_goes_at_once_and_who_uses_it_goes_on(user: User) -> None:
    folder = user.home / "mounted"
    with user.starting("mount", "--foreground", "books", "mounted") as first:
        assert first.stdout is not None
        first.stdout.readline()
        with (folder / "lazy").open("wb", buffering=0) as held:
            held.write(b"before ")
            typed(user, "muni umount --lazy mounted")
            assert first.poll() is None
            assert find_mounted(folder) is None
            held.write(b"and after")
            typed(user, "muni mount books mounted")
            second = find_mounted(folder)
            first.send_signal(signal.SIGTERM)  # it ends though it is used, and takes no other one with it
            assert first.wait(30) == 0
            with contextlib.suppress(OSError):  # nobody serves it any more
                held.close()
    assert find_mounted(folder) == second
    assert (folder / "lazy").read_bytes() == b"before and after"
    typed(user, "muni umount mounted")


def test_a_folder_is_mounted_at_through_a_link(user: User) -> None:
    (user.home / "real").mkdir()
    (user.home / "link").symlink_to("real")
    typed(user, "muni mount books link")
    assert find_mounted(user.home / "real") == find_mounted(user.home / "link")
    typed(user, "muni umount link")
    assert find_mounted(user.home / "real") is None


def test_a_dead_mount_is_taken_away_by_the_next(user: User) -> None:
    folder = user.home / "mounted"
    with user.starting("mount", "--foreground", "-o", "sync", "books", "mounted") as process:
        assert process.stdout is not None
        process.stdout.readline()
        (folder / "durable").mkdir()
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(folder)  # which the kernel asks; attributes it may still know
    with mounted(user) as again:
        assert (again / "durable").is_dir()
