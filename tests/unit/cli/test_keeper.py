"""`muni keeper`: what it tells of a volume's log, and its metrics."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition
from tests.unit.cli.volume_support import Person, serve_log

from muniment.crypto.identity import Identity
from muniment.engine.check import Check
from muniment.engine.grid import Grid
from muniment.engine.keeping.duties import Duties
from muniment.errors import StoreFailed
from muniment.ids import id_text
from muniment.node.keepers import Post, run_keepers


@pytest.fixture
def world() -> FakeComposition:
    return FakeComposition()


@pytest.fixture
def anna(world: FakeComposition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Somebody with a volume."""
    serve_log(tmp_path / "log", monkeypatch)
    person = Person(world, tmp_path, "anna")
    person.create()
    return person


def test_once_archives_all_of_the_log_whatever_its_age_and_says_so(anna: Person) -> None:
    assert anna.muni("mkdir", "books:/new").code == 0
    looked = anna.muni("log", "archive", "books", "--look", "--json").json
    assert looked["archived"] == 0
    done = anna.muni("keeper", "once", "books")
    assert done.code == 0, done.text
    standing = re.search(r"log: (\d+) of (\d+) entries archived", done.text)
    assert standing is not None
    assert int(standing[1]) == int(standing[2]) >= looked["entries"]
    (kept,) = anna.muni("keeper", "once", "books", "--json").json["kept"]
    archive = kept["archive"]
    assert archive["archived"] == archive["entries"] >= looked["entries"]
    assert archive["tiles"] > 0
    assert (archive["weak_tiles"], archive["silent_nodes"]) == (0, 0)
    assert anna.muni("mkdir", "books:/newer").code == 0
    (kept,) = anna.muni("keeper", "once", "books", "--json").json["kept"]
    assert kept["archive"]["archived"] == kept["archive"]["entries"] > archive["entries"]


def test_once_says_where_the_log_is_not_on_the_grid(world: FakeComposition, anna: Person) -> None:
    for node in world.grid.nodes[1:]:
        node.faults.down = "switched off"
    done = anna.muni("keeper", "once", "books")
    assert done.code == 10
    assert "the log is not whole on the grid: see 'muni queue list', and run this again" in done.text


def test_once_does_not_call_good_what_no_scan_has_seen(
    anna: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    assert anna.muni("put", tmp_path / "file", "books:/").code == 0

    async def failing(*_: object, **__: object) -> None:
        raise StoreFailed(where="the book", reason="its disk is gone")

    monkeypatch.setattr(Check, "blobs", failing)
    done = anna.muni("keeper", "once", "books")
    assert done.code == 10
    assert "the scan is not finished: see 'muni queue list', and run this again" in done.text
    assert "its disk is gone" in anna.muni("queue", "list").text


def test_no_address_for_metrics_is_refused_before_anything_begins(anna: Person) -> None:
    for words in ("9421", "127.0.0.1:", ":1", "127.0.0.1:70000"):
        done = anna.muni("keeper", "run", "books", "--metrics", words)
        assert done.code == 2
        assert "give it as HOST:PORT" in done.err


async def _metrics(address: str) -> dict[str, float]:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("muniment_keeper_"))
    return {name.removeprefix("muniment_keeper_"): float(value) for name, _, value in lines}


def test_a_running_keeper_tells_its_metrics(world: FakeComposition, anna: Person, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 400)
    assert anna.muni("put", tmp_path / "file", "books:/file").code == 0
    assert anna.muni("keeper", "once", "books").code == 0  # so that the log is archived
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    async def main() -> tuple[str, dict[str, float]]:
        scanned, stop, posts = asyncio.Event(), asyncio.Event(), []

        def tell(post: Post) -> None:
            posts.append(post)
            scanned.set()

        def grid_of(account: Identity) -> AbstractAsyncContextManager[Grid]:
            return world.grid_of(account, anna.home, None)

        running = asyncio.create_task(
            run_keepers(anna.home, ["books"], grid_of, lambda: "", Duties(), tell, metrics=address, stop=stop)
        )
        await scanned.wait()
        while posts[0].archiver.standing is None:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        found = await _metrics(address)
        stop.set()
        await running
        return id_text(posts[0].known.volume)[:12], found

    volume, found = asyncio.run(main())
    of = f'volume="{volume}"'
    assert found[f'blobs{{condition="whole",{of}}}'] == 1
    assert found[f'blobs{{condition="lost",{of}}}'] == 0
    assert found[f"scans_total{{{of}}}"] == 1
    assert found[f"proofs_total{{{of}}}"] == 6
    assert 0 < found[f"log_archived_entries{{{of}}}"] <= found[f"log_entries{{{of}}}"]
    assert found[f"archive_weak_tiles{{{of}}}"] == 0
    assert found['jobs{kind="scan",state="waiting"}'] == 1
    assert found['jobs{kind="scan",state="aside"}'] == 0
