"""One byte flipped anywhere in what a member keeps of a volume, and files cut short: an audit finds it.

Whatever is flipped, the audit says that something is damaged, names a place and a consequence, and accuses
nobody of forgery.  It may call the files clean only if every value in every table, the tables themselves and
SQLite's own check are as before: then the byte was one that SQLite does not use.
"""

from __future__ import annotations

import asyncio
import base64
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from tests.thoroughness import along, chance, times
from tests.unit.audit.support import Files, lived

from muniment.audit.report import AuditReport, Verdict
from muniment.spec.checkpoint import decode_note

FLIPS = 40
MASKS = (0x01, 0x80, 0x20, 0xFF)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return asyncio.run(lived(tmp_path_factory.mktemp("whole")))


def contents(path: Path) -> object:
    """Everything that a SQLite file says; an error is unlike anything."""
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    try:
        tables = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
        names = [name.decode() for kind, name, _, _ in tables if kind == b"table"]
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
        marks = [
            connection.execute(f"PRAGMA {what}").fetchall() for what in ("user_version", "application_id")
        ]
        return tables, rows, marks, connection.execute("PRAGMA integrity_check").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return repr(error), random.random()
    finally:
        connection.close()


def pages(path: Path) -> tuple[int, int]:
    """Size and number of a file's pages."""
    size = int.from_bytes(path.read_bytes()[16:18], "big")
    return size, path.stat().st_size // size


def check_told(report: AuditReport) -> None:
    assert report.verdict is Verdict.DAMAGED, report.text()
    for finding in report.findings:
        assert finding.place
        assert finding.what
        assert finding.consequence


def flip(path: Path, at: int, mask: int) -> bool:
    """Flip bits of one byte; whether the file says something else then."""
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    return rewrite(path, bytes(data))


def rewrite(path: Path, data: bytes) -> bool:
    """Put other bytes in place; whether the file says something else then."""
    before = contents(path)
    path.write_bytes(data)
    differs = contents(path) != before
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    path.write_bytes(data)  # looking may have repaired it
    return differs


async def flip_and_audit(files: Files, path: Path, at: int, mask: int) -> bool:
    """Whether the audit found it; it must, if anything differs."""
    differs = flip(path, at, mask)
    report = await files.audit()
    if report.verdict is Verdict.CLEAN:
        assert not differs, f"byte {at} of {path.name} ^ {mask:#x}"
        return False
    check_told(report)
    return True


@pytest.mark.parametrize("part", range(times(1)))
@pytest.mark.parametrize("which", ["log", "view"])
async def test_a_byte_anywhere(whole: Files, tmp_path: Path, which: str, part: int) -> None:
    by = chance(f"{which} {part}")
    found = Counter[bool]()
    for _ in range(FLIPS):
        files = whole.copy(tmp_path / "copy")
        path = getattr(files, which)
        at, mask = by.randrange(path.stat().st_size), by.choice(MASKS)
        found[await flip_and_audit(files, path, at, mask)] += 1
    print(f"{which} {part}: {found[True]} found, {found[False]} in bytes that are not used")
    assert found[True] > 0


@pytest.mark.parametrize("which", ["log", "view"])
async def test_every_byte_of_the_header(whole: Files, tmp_path: Path, which: str) -> None:
    for at in along(0, 100, 9):
        files = whole.copy(tmp_path / "copy")
        await flip_and_audit(files, getattr(files, which), at, 0x04)


@pytest.mark.parametrize("which", ["log", "view"])
async def test_the_first_bytes_of_every_page(whole: Files, tmp_path: Path, which: str) -> None:
    """Its kind, its number of cells, where they are."""
    size, count = pages(getattr(whole, which))
    for page in chance("pages").sample(range(1, count), min(count - 1, times(3))):
        for at in (0, 1, 4, 6, 9, 13):
            files = whole.copy(tmp_path / "copy")
            await flip_and_audit(files, getattr(files, which), page * size + at, 0x02)


def column(path: Path, sql: str) -> list[bytes]:
    connection = sqlite3.connect(path)
    try:
        return [bytes(value) for (value,) in connection.execute(sql)]
    finally:
        connection.close()


REGIONS = {
    "entry": ("SELECT signed FROM entries WHERE length(signed) < 1500 ORDER BY idx", "entry "),
    "hash": ("SELECT hash FROM entries ORDER BY idx", ""),
    "node": ("SELECT hash FROM nodes", "tree node "),
    "checkpoint": ("SELECT checkpoint FROM head", "the stored checkpoint"),
}


@pytest.mark.parametrize("region", REGIONS)
async def test_a_byte_in_each_kind_of_value_is_found_in_its_place(
    whole: Files, tmp_path: Path, region: str
) -> None:
    sql, place = REGIONS[region]
    by = chance(region)
    values = column(whole.log, sql)
    for _ in range(times(10)):
        files = whole.copy(tmp_path / "copy")
        value = by.choice(values)
        data = bytearray(files.log.read_bytes())
        at = data.index(value)
        data[at + by.randrange(len(value))] ^= by.choice(MASKS)
        files.log.write_bytes(data)
        report = await files.audit(with_view=False)
        check_told(report)
        assert any(one.place.startswith(place) for one in report.findings), report.text()


async def test_a_byte_in_a_checkpoint_that_was_kept(whole: Files) -> None:
    for number, note in enumerate(whole.notes):
        for at in along(0, len(note), 37):
            flipped = bytearray(note)
            flipped[at] ^= 0x01
            notes = [*whole.notes[:number], bytes(flipped), *whole.notes[number + 1 :]]
            report = await whole.audit(notes=notes, with_view=False)
            check_told(report)
            assert report.findings[0].place == f"note {number}"


@pytest.mark.parametrize("which", ["log", "view"])
async def test_a_file_that_was_cut(whole: Files, tmp_path: Path, which: str) -> None:
    size, count = pages(getattr(whole, which))
    for length in [0, 1, 99, 100, size, *(size * at for at in range(2, count, 3)), size * count - 1]:
        files = whole.copy(tmp_path / "copy")
        path = getattr(files, which)
        differs = rewrite(path, path.read_bytes()[:length])
        report = await files.audit()
        if which == "view" and length < 2:
            # To SQLite an empty file: a new view, which lags behind and says nothing wrong.
            assert report.verdict is Verdict.CLEAN
            assert report.view is not None  # and is told
        elif report.verdict is Verdict.CLEAN:
            assert not differs  # bytes that were zero: SQLite reads what it does not find as zero
        else:
            check_told(report)


def altered(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE inodes SET mode = mode + 1 WHERE rowid_of_oldest", "view: inode"),
        ("UPDATE entries SET message = 'other' WHERE idx = 9", "view: entry 9"),
        ("UPDATE entries SET reached_ns = reached_ns + 1 WHERE idx = 4", "view: entry 4"),
        ("UPDATE entries SET touched = x'92929090' WHERE idx = 12", "view: entry"),
        ("DELETE FROM entries WHERE idx = 3", "view: entry 3"),
        (
            "UPDATE names SET valid_to = valid_to - 1 WHERE valid_to < 1000 AND valid_to > valid_from + 1",
            "view:",
        ),
        ("INSERT INTO xattrs VALUES (1, x'61', x'62', 2, 3)", "view: attribute of inode 1"),
        ("UPDATE inlines SET data = zeroblob(length(data)) WHERE id = 1", "view: extent"),
        ("UPDATE blobs SET key = zeroblob(32) WHERE id = 1", "view: extent"),
        ("UPDATE meta SET size = size + 1", "the view"),
        ("UPDATE meta SET size = size - 1", "view"),
        ("UPDATE meta SET size = 'many'", "the view's file"),
        ("UPDATE meta SET lanes = zeroblob(2048)", "the view's state hash"),
        ("UPDATE meta SET next_inode = next_inode + 1", "the view"),
        ("UPDATE inodes SET kind = 99 WHERE inode = 1", "view:"),
        ("UPDATE inodes SET mode = 'text' WHERE inode = 1", "view:"),
        ("UPDATE entries SET author = 7 WHERE idx = 2", "view: entry 2"),
        ("DROP INDEX names_open", "the view's file"),
        ("INSERT INTO snapshots VALUES (x'6161', 3)", "view: snapshot"),
    ],
)
async def test_a_view_that_was_changed_by_hand(
    whole: Files, tmp_path: Path, statement: str, place: str
) -> None:
    """Whole for SQLite, and another than the log's."""
    files = whole.copy(tmp_path / "copy")
    oldest = "inode = 1 AND valid_from = (SELECT min(valid_from) FROM inodes WHERE inode = 1)"
    altered(files.view, statement.replace("rowid_of_oldest", oldest))
    assert contents(files.view) != contents(whole.view)
    report = await files.audit()
    check_told(report)
    assert any(one.place.startswith(place) for one in report.findings), report.text()


async def test_a_log_that_was_changed_by_hand(whole: Files, tmp_path: Path) -> None:
    for statement, place in [
        ("DELETE FROM entries WHERE idx = 7", "entry 7"),
        ("DELETE FROM entries WHERE idx > 20", "the stored checkpoint"),
        ("DELETE FROM nodes WHERE level = 2 AND idx = 1", "tree node 2/1"),
        ("UPDATE entries SET idx = 1 << 50 WHERE idx = 30", "entry 30"),
        ("DELETE FROM head", "the stored checkpoint"),
        ("DELETE FROM entries", "the log"),
        ("CREATE TABLE other (x)", "the log's file"),
    ]:
        files = whole.copy(tmp_path / "copy")
        altered(files.log, statement)
        report = await files.audit()
        check_told(report)
        assert any(one.place.startswith(place) for one in report.findings), report.text()


async def test_a_cosignature_of_a_stranger(whole: Files) -> None:
    note = decode_note(whole.notes[-1])
    line = note.signatures[-1]
    text = whole.notes[-1].decode()
    held = base64.b64encode(line.key_id + line.signature).decode()
    other = base64.b64encode(bytes(4) + line.signature).decode()
    report = await whole.audit(notes=[text.replace(held, other).encode()], with_view=False)
    check_told(report)
    assert "no member's key" in report.findings[0].what
