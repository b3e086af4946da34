"""git and make: what a programmer does all day."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.programs.place import Failed, Place, run

ROOT: Final = Path(__file__).parents[2]
_WORDS: Final = ("one", "two", "three", "four")
_MAKEFILE: Final = """
CFLAGS = -O1 -Wall -Werror
OBJECTS = main.o one.o two.o three.o four.o

sum: $(OBJECTS)
\t$(CC) -o $@ $(OBJECTS)

%.o: %.c words.h
\t$(CC) $(CFLAGS) -c -o $@ $<

clean:
\trm -f sum $(OBJECTS)
"""


def git(place: Place) -> str:
    """Clone this project's own repository, check it, change something, commit it, and clone the clone."""
    with place.mounted("lazy_close") as mount:
        clone, author = mount / "clone", ("-c", "user.name=anna", "-c", "user.email=anna@example.org")
        run("git", "clone", "--quiet", "--no-hardlinks", ROOT, clone)
        run("git", "fsck", "--full", "--strict", cwd=clone)
        if run("git", "status", "--porcelain", cwd=clone):
            raise Failed("git sees changes in what it has just written")
        (clone / "note").write_text("in the mount\n")
        run("git", "mv", "README.md", "READ.md", cwd=clone)
        run("git", "add", "--all", cwd=clone)
        run("git", *author, "commit", "--quiet", "--message", "A change", cwd=clone)
        run("git", "gc", "--quiet", cwd=clone)
        run("git", "fsck", "--full", cwd=clone)
        commits = run("git", "rev-list", "--count", "HEAD", cwd=clone).strip()
    with place.mounted() as mount:
        run("git", "fsck", "--full", cwd=mount / "clone")
        run("git", "clone", "--quiet", mount / "clone", mount / "again")
        if (mount / "again" / "note").read_text() != "in the mount\n":
            raise Failed("the clone of the clone is another")
        tracked = len(run("git", "ls-files", cwd=mount / "again").splitlines())
    return f"{commits} commits, {tracked} files, clean when mounted again"


def make(place: Place) -> str:
    """Build a program of five sources, see that nothing is built twice, change one, build that one."""
    with place.mounted() as mount:
        project = mount / "project"
        project.mkdir()
        _write_sources(project)
        run("make", "-j2", cwd=project)
        _expect(run(project / "sum", cwd=project), "10")
        if "up to date" not in run("make", cwd=project):
            raise Failed("make builds again what it has just built: times are not kept")
        (project / "two.c").write_text('#include "words.h"\nint two(void) { return 32; }\n')
        built = run("make", cwd=project)
        if built.count(" -c ") != 1:
            raise Failed(f"one source was changed, and make did: {built}")
        _expect(run(project / "sum", cwd=project), "40")
        run("make", "clean", cwd=project)
        if list(project.glob("*.o")):
            raise Failed("objects are still there after make clean")
    return "built, run, built in part, cleaned"


def _write_sources(project: Path) -> None:
    (project / "Makefile").write_text(_MAKEFILE)
    (project / "words.h").write_text("".join(f"int {word}(void);\n" for word in _WORDS))
    for number, word in enumerate(_WORDS, 1):
        (project / f"{word}.c").write_text(f'#include "words.h"\nint {word}(void) {{ return {number}; }}\n')
    total = " + ".join(f"{word}()" for word in _WORDS)
    main = (
        f'#include <stdio.h>\n#include "words.h"\nint main(void) {{ printf("%d\\n", {total}); return 0; }}\n'
    )
    (project / "main.c").write_text(main)


def _expect(found: str, wanted: str) -> None:
    if found.strip() != wanted:
        raise Failed(f"the program says {found.strip()}, not {wanted}")
