"""What stands at the end of each command's help: a line to type, and which exit codes are its own."""

from __future__ import annotations

from typing import Final

import click

EXAMPLES: Final[dict[str, str]] = {
    "demo": "muni demo --keep",
    "put": "muni put letter.pdf > letter.cap;  muni put -r 2026 books:/",
    "get": "muni get @letter.cap letter.pdf;  muni get -r books:/2026 back --at yesterday",
    "check": "muni check --verify @letter.cap;  muni check books:/2026",
    "repair": "muni repair --below 6 @letter.cap",
    "usage": "muni usage;  muni usage books",
    "cap verify": "muni cap verify @letter.cap > letter.verify-cap",
    "cap show": "muni cap show @letter.cap",
    "grid join": "muni grid join mun:introducer:ID@HOST:PORT",
    "grid account": "muni grid account",
    "grid status": "muni grid status --json",
    "identity new": "muni identity new",
    "identity show": "muni identity show",
    "identity passwd": "muni identity passwd",
    "identity export": "muni identity export --output /media/safe/seed",
    "volume create": "muni volume create books --log mun:log:ID@HOST:PORT --quorum two-thirds",
    "volume list": "muni volume list",
    "volume join": "muni volume join @invitation --own-name bert --role reader",
    "volume info": "muni volume info books",
    "volume move": "muni volume move books mun:log:ID@HOST:PORT",
    "volume cap": "muni volume cap books --right verify > books.cap",
    "volume checkpoints": "muni volume checkpoints books --export seen",
    "volume compare": "muni volume compare books seen",
    "volume snapshot-view": "muni volume snapshot-view books",
    "volume fetch": "muni volume fetch books",
    "member list": "muni member list books",
    "member invite": "muni member invite books",
    "member join": "muni member join books --role owner",
    "member accept": "muni member accept books i7tdsmih --role writer",
    "member kick": "muni member kick books bert",
    "member leave": "muni member leave books",
    "member policy": "muni member policy books --quorum all",
    "member rotate": "muni member rotate books",
    "ls": "muni ls -l books:/2026 --at '2h ago'",
    "tree": "muni tree books:",
    "cat": "muni cat books:/2026/note.txt --at 17",
    "stat": "muni stat books:/2026/note.txt",
    "du": "muni du -s 'books:/*'",
    "find": "muni find books: --name '*.tif'",
    "mkdir": "muni mkdir -p books:/2027/scans",
    "rmdir": "muni rmdir books:/2027",
    "cp": "muni cp -r books:/2026 books:/copy",
    "mv": "muni mv 'books:/*.tif' books:/scans",
    "rm": "muni rm -rn books:/copy",
    "ln": "muni ln -s scans/a.tif books:/2026/first",
    "chmod": "muni chmod -R go-w books:/2026",
    "touch": "muni touch books:/2026/note.txt",
    "history": "muni history books:/2026/note.txt --limit 5",
    "diff": "muni diff books: yesterday now",
    "restore": "muni restore -n books:/2026 --at 17",
    "snapshot": "muni snapshot books: year-end",
    "retention set": "muni retention set books:/2026 --keep 3y",
    "retention show": "muni retention show books:",
    "hold on": "muni hold on books:/2026/contract --reason 'case 7'",
    "hold off": "muni hold off books:/2026/contract --reason 'case 7 is closed'",
    "prune": "muni prune -n books",
    "share": "muni share books:/2026/scans > scans.cap",
    "mount": "muni mount books ~/books;  muni mount books ~/then --at yesterday",
    "umount": "muni umount ~/books",
    "node init": "muni node init node1 --capacity 500GB --zone house1",
    "node run": "muni node run node1",
    "node status": "muni node status node1",
    "node drain": "muni node drain node1",
    "keeper run": "muni keeper run books",
    "keeper once": "muni keeper once books",
    "keeper log": "muni keeper log books",
    "keeper account": "muni keeper account books",
    "queue list": "muni queue list",
    "queue show": "muni queue show 17",
    "queue retry": "muni queue retry 17",
    "queue drop": "muni queue drop 17",
    "introducer init": "muni introducer init intro",
    "introducer run": "muni introducer run intro",
    "log init": "muni log init log",
    "log run": "muni log run log",
    "log backup": "muni log backup log /backup/log",
    "log rehost": "muni log rehost books log2; muni log rehost --from-grid @books.cap log2",
    "log archive": "muni log archive books",
    "log audit": "muni log audit log --json",
    "audit": "muni audit --deep books",
    "evidence verify": "muni evidence verify evidence-1f0c52b0a8d14e73",
    "witness run": "muni witness run --once books",
    "shell": "muni shell books",
    "version": "muni version -v",
}
"""Command lines by the command's words; several are divided by `;`."""

_EXIT_CODES: Final = {
    "check": "10 readable, not every share in place; 11 not readable",
    "repair": "10 something is still missing; 11 not readable",
    "audit": "12 damaged; 13 forged",
    "volume compare": "5 the log service has shown two logs",
    "witness run": "5 a log contradicts itself",
    "put": "6 something was left out",
    "get": "6 something was not restored",
    "shell": "that of the last command",
}
"""What a command's exit codes say besides those of `muni --help`."""


def with_example(command: click.Command, name: str) -> click.Command:
    """The command, its help ending in an example and exit codes; those of a group too."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_example(inner, f"{name} {inner.name}")
        return command
    before = command.epilog or ""
    if name in EXAMPLES and "Example:" not in before:
        lines = "\n".join(f"  {line.strip()}" for line in EXAMPLES[name].split(";"))
        own = f"; {_EXIT_CODES[name]}" if name in _EXIT_CODES else ""
        codes = f"Exit codes: 0 done{own}; others as in 'muni --help'."
        command.epilog = f"{before}\n\n\b\nExample:\n{lines}\n\n{codes}".lstrip("\n")
    return command
