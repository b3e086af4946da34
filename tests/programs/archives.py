"""tar and rsync: many files in, and back as they were."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Final

from tests.programs.place import Failed, Place, run

_FOLDERS: Final = 100
_TRANSFERRED: Final = re.compile(r"Number of regular files transferred: ([\d,]+)")


def tar(place: Place) -> str:
    """Unpack a tree into the mount, mount it anew, pack it again, and compare with the first."""
    source = _tree(place, place.files)
    packed, again = place.folder / "there.tar", place.folder / "back.tar"
    run("tar", "-cf", packed, "-C", source, ".")
    with place.mounted("lazy_close") as mount:
        (mount / "tree").mkdir()
        run("tar", "-xpf", packed, "-C", mount / "tree")
        run("tar", "-df", packed, "-C", mount / "tree")
    with place.mounted() as mount:
        run("tar", "-df", packed, "-C", mount / "tree")
        run("tar", "-cf", again, "-C", mount / "tree", ".")
        back = place.fresh("back")
        run("tar", "-xpf", again, "-C", back)
        run("diff", "-r", "--no-dereference", "--exclude=pipe", source, back)  # diff cannot compare pipes
        _same_facts(source, back)
        run("rm", "-r", mount / "tree")
    return f"{place.files} files"


def rsync(place: Place) -> str:
    """Copy a tree twice: the second time nothing is copied; and once more after one file has changed."""
    source = _tree(place, max(1, place.files // 10))
    with place.mounted("lazy_close") as mount:
        target = mount / "synced"
        line = ("rsync", "-aHX", "--stats", "--delete", f"{source}/", f"{target}/")
        first = _transferred(run(*line))
        counts = [_transferred(run(*line))]
        (source / "00" / "0").write_bytes(b"another content, and longer than it was by far" * 9)
        counts.append(_transferred(run(*line)))
        run("rsync", "-aHXc", "--delete", f"{source}/", f"{target}/")
    with place.mounted() as mount:
        changes = run("rsync", "-aHXcni", "--delete", f"{source}/", f"{mount / 'synced'}/")
        counts.append(_transferred(run(*line[:-1], f"{mount / 'synced'}/")))
        run("rm", "-r", mount / "synced")
    if counts != [0, 1, 0] or changes:
        raise Failed(f"copied again {counts} instead of [0, 1, 0]; {changes}")
    return f"{first} files, then {counts}"


def _transferred(said: str) -> int:
    found = _TRANSFERRED.search(said)
    if found is None:
        raise Failed(f"rsync does not say how many files it has copied: {said}")
    return int(found[1].replace(",", ""))


def _tree(place: Place, files: int) -> Path:
    """Many small files and a few larger ones, links of both kinds, modes, and times with nanoseconds."""
    top, rng = place.fresh("tree"), random.Random(place.seed)
    for number in range(_FOLDERS):
        (top / f"{number:02}").mkdir()
    for number in range(files):
        path = top / f"{number % _FOLDERS:02}" / str(number // _FOLDERS)
        path.write_bytes(rng.randbytes(rng.choice((0, 40, 900, 3000, 9000)) + rng.randrange(50)))
        path.chmod(rng.choice((0o644, 0o600, 0o755, 0o444)))
        time_ns = rng.randrange(10**18, 16 * 10**17)
        os.utime(path, ns=(time_ns, time_ns))
    (top / "large").write_bytes(rng.randbytes(20_000_000))
    (top / "link").symlink_to("00/0")
    os.link(top / "00" / "0", top / "hard")
    os.mkfifo(top / "pipe")
    return top


def _same_facts(one: Path, other: Path) -> None:
    for path in one.rglob("*"):
        ours, theirs = path.lstat(), (other / path.relative_to(one)).lstat()
        facts = ["st_mode", "st_uid", "st_gid"] + ["st_size", "st_mtime"] * (not path.is_dir())
        for fact in facts:
            if int(getattr(ours, fact)) != int(getattr(theirs, fact)):
                raise Failed(f"{path.relative_to(one)}: {fact} was {getattr(ours, fact)}")
