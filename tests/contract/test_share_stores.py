"""Every ShareStore under the one suite, and what is particular to each."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore
from obstore.store import MemoryStore as ObstoreMemory
from obstore.store import ObjectStore as ObstoreStore

from muniment.errors import ConfigInvalid, DiskFull, FolderBusy, InternalError, ShareUnknown, StoreFailed
from muniment.ports import ForeignObject, ShareStore
from muniment.stores.disk import KernelDisk
from muniment.stores.memory import MemoryStore
from muniment.stores.object import ObjectStore, SpoolWriter
from muniment.stores.object_client import translated
from muniment.stores.posix import PosixStore
from muniment.testing.contracts.share_store import (
    Medium,
    ShareStoreContract,
    assert_absent,
    foreign_of,
    in_threads,
    put,
    read,
    share_key,
    shares_of,
)
from muniment.testing.crash import InterceptedDisk
from muniment.testing.disk_model import DiskModel
from muniment.testing.faulty_store import FaultyStore, StoreCall

KEY = share_key("some share", 7)


# --- posix ----------------------------------------------------------------------------------------


class Folder:
    keeps = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> PosixStore:
        return PosixStore(self.folder)

    def plant(self, name: str, content: bytes) -> bool:
        (self.folder / "shares" / name).write_bytes(content)
        return True

    def quarantined(self) -> list[bytes]:
        return [file.read_bytes() for file in (self.folder / "quarantine").iterdir()]

    def leftovers(self) -> int:
        return len(list((self.folder / "incoming").iterdir()))


class TestPosix(ShareStoreContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> Folder:
        return Folder(tmp_path / "store")

    def test_one_opener_at_a_time_in_this_process_and_others(self, medium: Folder) -> None:
        script = (
            "import sys; from pathlib import Path\n"
            "from muniment.errors import FolderBusy; from muniment.stores.posix import PosixStore\n"
            "try: PosixStore(Path(sys.argv[1])).close()\n"
            "except FolderBusy: print('busy')\n"
            "else: print('opened')\n"
        )

        def other_process() -> str:
            command = [sys.executable, "-c", script, str(medium.folder)]
            return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

        store = medium.open()
        with pytest.raises(FolderBusy) as caught:
            medium.open()
        assert caught.value.folder == str(medium.folder)
        assert other_process() == "busy"
        put(store, KEY, b"still works")
        store.close()
        assert other_process() == "opened"
        again = medium.open()
        assert read(again, KEY) == b"still works"
        again.close()

    def test_only_the_owner_may_look_and_only_own_names_appear(
        self, store: PosixStore, medium: Folder
    ) -> None:
        put(store, KEY, b"x")
        store.quarantine(KEY)
        put(store, KEY, b"x")
        store.create(KEY, 1)
        places = [medium.folder, *medium.folder.rglob("*")]
        assert {place.stat().st_mode & 0o777 for place in places if place.is_dir()} == {0o700}
        assert {place.stat().st_mode & 0o777 for place in places if place.is_file()} == {0o600}
        names = {str(place.relative_to(medium.folder)) for place in places if place.is_file()}
        assert names == {"lock", f"shares/{str(KEY)[0]}/{KEY}", f"quarantine/{KEY}.0", "incoming/2"}

    def test_links_pipes_and_folders_are_neither_followed_nor_trusted(
        self, store: PosixStore, medium: Folder, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"not a share")
        keys = [share_key(f"trap {number}") for number in range(4)]
        places = [medium.folder / "shares" / str(key)[0] / str(key) for key in keys]
        places[0].symlink_to(secret)
        os.mkfifo(places[1])
        places[2].mkdir()
        (places[2] / "inside").write_bytes(b"inside")
        places[3].symlink_to("nowhere")
        for key in keys:
            with pytest.raises(ShareUnknown):
                store.open(key)
        found = foreign_of(store)
        assert len(found) == 4
        for item in found:
            store.quarantine(item)
        assert shares_of(store) == {}
        assert secret.read_bytes() == b"not a share"
        aside = {place.name: place for place in (medium.folder / "quarantine").iterdir()}
        assert len(aside) == 4
        kept = aside[f"foreign.{str(keys[2])[0]}=2F{keys[2]}.0"]
        assert (kept / "inside").read_bytes() == b"inside"
        for key in keys:
            put(store, key, b"now a share")
            assert read(store, key) == b"now a share"

    def test_a_link_in_place_of_a_folder_keeps_the_store_closed(self, medium: Folder, tmp_path: Path) -> None:
        medium.open().close()
        (tmp_path / "elsewhere").mkdir()
        for name in ("shares/q", "incoming", "quarantine"):
            folder = medium.folder / name
            folder.rmdir()
            folder.symlink_to(tmp_path / "elsewhere")
            with pytest.raises(StoreFailed):
                medium.open()
            folder.unlink()
        medium.open().close()
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_the_store_itself_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "store").symlink_to(tmp_path / "disk")
        store = PosixStore(tmp_path / "store")
        put(store, KEY, b"x")
        store.close()
        assert (tmp_path / "disk/shares" / str(KEY)[0] / str(KEY)).read_bytes() == b"x"

    def test_names_that_are_not_text_are_reported_and_moved(self, store: PosixStore, medium: Folder) -> None:
        name = os.fsdecode(b"\xff\xfe" + b"x" * 200)
        assert medium.plant(name, b"odd")
        (found,) = foreign_of(store)
        assert found.name == "%FF%FE" + "x" * 200
        store.quarantine(found)
        (aside,) = (medium.folder / "quarantine").iterdir()
        assert re.fullmatch(r"foreign\.=FF=FEx{114}\.0", aside.name)
        assert medium.plant("%2e%2e", b"tricky")
        (found,) = foreign_of(store)
        store.quarantine(found)
        assert foreign_of(store) == []

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ".",
            "a/.",
            "..",
            "a/..",
            "a/../../lock",
            "%2e%2e",
            "a/%2e%2e",
            "%2Fetc",
            "A/x",
            "a/b/c",
            "a",
            "x%00y",
        ],
    )
    def test_a_foreign_name_never_leads_out_of_its_place(self, store: PosixStore, name: str) -> None:
        with pytest.raises(InternalError):
            store.quarantine(ForeignObject(name, 0))

    def test_incoming_is_wiped_at_open_but_folders_in_it_are_kept(self, medium: Folder) -> None:
        medium.open().close()
        (medium.folder / "incoming/17").write_bytes(b"torn")
        (medium.folder / "incoming/folder").mkdir()
        (medium.folder / "incoming/link").symlink_to(medium.folder)
        medium.open().close()
        assert medium.leftovers() == 0
        assert [place.name for place in (medium.folder / "quarantine").iterdir()] == [
            "foreign.incoming=2Ffolder.0"
        ]

    def test_a_replaced_or_deleted_share_still_reads_as_it_was_opened(self, store: PosixStore) -> None:
        put(store, KEY, b"old")
        reader = store.open(KEY)
        put(store, KEY, b"newer")
        store.delete(KEY)
        buffer = bytearray(8)
        assert reader.read_into(0, buffer) == 3
        assert buffer[:3] == b"old"
        reader.close()
        with pytest.raises(StoreFailed):
            reader.read_into(0, buffer)

    def test_a_missing_parent_is_a_failure(self, tmp_path: Path) -> None:
        with pytest.raises(StoreFailed) as caught:
            PosixStore(tmp_path / "missing" / "store")
        assert caught.value.where == str(tmp_path / "missing" / "store")

    def test_a_record_takes_no_more_room_than_announced(self, store: PosixStore, medium: Folder) -> None:
        writer = store.create(KEY, 1000)
        (file,) = (medium.folder / "incoming").iterdir()
        assert file.stat().st_size == 1000  # set aside at once
        writer.write(bytes(900))
        for _ in range(10):
            writer.write(bytes(900))
        assert file.stat().st_size == 1000
        writer.abort()

    def test_more_than_fits_is_refused_at_once(self, store: PosixStore, medium: Folder) -> None:
        with pytest.raises((DiskFull, StoreFailed)):
            store.create(KEY, 1 << 60)
        assert medium.leftovers() == 0

    def test_close_waits_for_the_calls_under_way(self, tmp_path: Path) -> None:
        flushing, go_on = threading.Event(), threading.Event()

        def pause(call: str) -> None:
            if call == "flush_file":
                flushing.set()
                assert go_on.wait(10)

        store = PosixStore(tmp_path / "store", InterceptedDisk(KernelDisk(), before=pause))
        closed = threading.Event()

        def work(thread: int) -> None:
            if thread == 0:
                put(store, KEY, b"whole")
            else:
                assert flushing.wait(10)
                if thread == 1:
                    store.close()
                    closed.set()
                else:
                    with pytest.raises(StoreFailed):
                        until_closed(store)
                    assert not closed.is_set()
                    go_on.set()

        in_threads(3, work)
        again = PosixStore(tmp_path / "store")
        assert read(again, KEY) == b"whole"
        again.close()


def until_closed(store: PosixStore) -> None:
    """Ask until a close has begun."""
    while True:
        store.free_bytes()


class ModelledFolder:
    """The disk model passes for a disk: the same suite over it."""

    keeps = True

    def __init__(self) -> None:
        self.disk = DiskModel()

    def open(self) -> PosixStore:
        return PosixStore(Path("/store"), self.disk)

    def plant(self, name: str, content: bytes) -> bool:
        folder = self.disk.open_folder(str(Path("/store/shares", name).parent), None)
        self.disk.write(self.disk.create_file(Path(name).name, folder), memoryview(content))
        return True

    def quarantined(self) -> list[bytes]:
        folder = self.disk.open_folder("/store/quarantine", None)
        found = []
        for entry in self.disk.entries(folder):
            buffer = memoryview(bytearray(entry.size_bytes))
            self.disk.read_into(self.disk.open_file(entry.name, folder), buffer, 0)
            found.append(bytes(buffer))
        return found

    def leftovers(self) -> int:
        return len(list(self.disk.entries(self.disk.open_folder("/store/incoming", None))))


class TestPosixOnModelledDisk(ShareStoreContract):
    @pytest.fixture
    def medium(self) -> Medium:
        return ModelledFolder()


# --- object stores --------------------------------------------------------------------------------


class Bucket:
    """An object store; each opening makes a new client."""

    def __init__(self, target: str | ObstoreStore, outside: ObstoreStore, spool: Path, keeps: bool) -> None:
        self.target, self.outside, self.spool, self.keeps = target, outside, spool, keeps

    def open(self) -> ObjectStore:
        return ObjectStore(self.target, self.spool)

    def plant(self, name: str, content: bytes) -> bool:
        obstore.put(self.outside, f"shares/{name}", content)
        return True

    def quarantined(self) -> list[bytes]:
        found = [item["path"] for page in obstore.list(self.outside, "quarantine") for item in page]
        return [bytes(obstore.get(self.outside, path).bytes()) for path in found]

    def leftovers(self) -> int:
        return len(list(self.spool.iterdir())) + sum(
            path.startswith(str(self.spool)) for path in open_files()
        )


def open_files() -> list[str]:
    """The paths behind this process's descriptors, those without a name among them."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(fd.readlink()))
        except FileNotFoundError:
            continue  # the one that lists them
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


class TestObjectInMemory(ShareStoreContract):
    @pytest.fixture
    def medium(self, spool: Path) -> Bucket:
        store = ObstoreMemory()
        return Bucket(store, store, spool, keeps=True)


class TestObjectInFolder(ShareStoreContract):
    @pytest.fixture
    def medium(self, spool: Path, tmp_path: Path) -> Bucket:
        folder = tmp_path / "objects"
        return Bucket(f"file://{folder}", LocalStore(folder, mkdir=True), spool, keeps=True)


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that speaks S3 (signed requests, ranges, pages, parts) and the folder of its one bucket."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    environment = os.environ | {
        "NANIO_DATA_DIR": str(folder),
        "NANIO_ACCESS_KEY": "access",
        "NANIO_SECRET_KEY": "secret of the server",
    }
    command = [sys.executable, "-m", "uvicorn", "nanio.app:build_app", "--factory", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--no-access-log"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            raise RuntimeError("the S3 server did not start")
        yield found[0], folder / "bucket"
    finally:
        server.terminate()
        server.communicate()


prefixes = count()


class TestObjectOnS3(ShareStoreContract):
    @pytest.fixture
    def medium(self, s3_server: tuple[str, Path], spool: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
        # The way an operator configures it: by environment.
        for name, value in {
            "AWS_ENDPOINT_URL": s3_server[0],
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "access",
            "AWS_SECRET_ACCESS_KEY": "secret of the server",
        }.items():
            monkeypatch.setenv(name, value)
        url = f"s3://bucket/node-{next(prefixes)}"
        return Bucket(url, obstore.store.from_url(url), spool, keeps=True)

    def test_wrong_credentials_and_buckets_are_found_at_once(
        self, medium: Bucket, spool: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(StoreFailed) as caught:
            ObjectStore("s3://no-such-bucket/x", spool)
        assert caught.value.where == "s3://no-such-bucket/x"
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StoreFailed, match="403"):
            medium.open()

    def test_a_scan_reads_page_after_page(
        self, store: ObjectStore, medium: Bucket, s3_server: tuple[str, Path]
    ) -> None:
        assert isinstance(medium.target, str)
        shares = s3_server[1] / medium.target.rpartition("/")[2] / "shares"
        shares.mkdir(parents=True)
        for item in range(1001):  # one more than a page
            (shares / f"{item:04}").write_bytes(b"xyz")
        assert sorted(item.name for item in foreign_of(store)) == [f"{item:04}" for item in range(1001)]


class TestObjectStore:
    """What no other store has."""

    def test_a_local_folder_is_flushed(
        self, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = ObjectStore(LocalStore(tmp_path / "objects", mkdir=True), spool)
        flushed: list[str] = []
        real = os.fsync

        def watched(fd: int) -> None:
            flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
            real(fd)

        # Only the object store's adapter for local folders flushes by itself, without the seam of PosixStore.
        monkeypatch.setattr(os, "fsync", watched)
        put(store, KEY, b"x")
        folder = tmp_path / "objects"
        fan = folder / "shares" / str(KEY)[0]
        assert flushed == [str(fan / str(KEY)), str(fan), str(folder / "shares"), str(folder)]
        flushed.clear()
        store.delete(KEY)
        assert flushed == [str(fan), str(folder / "shares"), str(folder)]
        store.close()

    @pytest.mark.parametrize(
        "url", ["nonsense", "xyz://bucket/", "memory:///", "file:///proc/none/of/this", "s3://"]
    )
    def test_a_url_that_cannot_work_is_a_configuration_error(self, spool: Path, url: str) -> None:
        with pytest.raises(ConfigInvalid):
            ObjectStore(url, spool)

    def test_without_obstore_it_says_what_to_install(
        self, spool: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "obstore", None)  # as if it were not installed
        with pytest.raises(ConfigInvalid, match="pip install obstore"):
            ObjectStore("file:///tmp", spool)

    def test_messages_hold_no_secret(self, spool: Path) -> None:
        with pytest.raises(ConfigInvalid) as caught:
            ObjectStore("xyz://user:password@host/x?sig=SECRET", spool)
        assert "SECRET" not in str(caught.value)
        assert "password" not in str(caught.value)

    def test_an_unreachable_store_fails_when_opened(self, spool: Path) -> None:
        target = obstore.store.S3Store(
            "bucket",
            endpoint="http://127.0.0.1:9",
            region="x",
            skip_signature=True,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        with pytest.raises(StoreFailed, match="obstore's S3Store"):
            ObjectStore(target, spool)

    def test_a_missing_spool_folder_is_a_failure(self, tmp_path: Path) -> None:
        store = ObjectStore(ObstoreMemory(), tmp_path / "missing")
        with pytest.raises(StoreFailed) as caught:
            store.create(KEY, 1)
        assert caught.value.where == str(tmp_path / "missing")
        store.close()

    def test_a_full_disk_under_a_local_folder_is_told_from_its_text(self) -> None:
        says = "Generic LocalFileSystem error: Unable to copy data: No space left on device (os error 28)"
        with pytest.raises(DiskFull), translated("there"):
            raise obstore.exceptions.GenericError(says)
        with pytest.raises(DiskFull), translated("there"):
            raise OSError(errno.ENOSPC, "No space left on device")
        with (
            pytest.raises(StoreFailed, match=r"there: Generic S3 error: GET https://host/x in 3 ms$"),
            translated("there"),
        ):
            raise obstore.exceptions.GenericError(
                "Generic S3 error: GET https://host/x?sig=SECRET in 3 ms\nx"
            )

    def test_a_full_spool_ends_the_write(self, spool: Path) -> None:
        store = ObjectStore(ObstoreMemory(), spool)
        writer = store.create(KEY, 3)
        assert isinstance(writer, SpoolWriter)
        assert writer._spooled is not None
        writer._spooled.close()
        # Every write there finds the disk full; the writer closes it.
        writer._spooled = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
        with pytest.raises(DiskFull) as caught:
            writer.write(b"abc")
        assert caught.value.where == str(spool)
        with pytest.raises(InternalError):
            store.commit([writer])
        assert_absent(store, KEY)
        store.close()

    def test_an_object_that_vanishes_while_it_is_read_is_a_failure(self, spool: Path) -> None:
        store = ObjectStore(ObstoreMemory(), spool)
        put(store, KEY, b"abc")
        reader = store.open(KEY)
        put(store, KEY, b"a")
        with pytest.raises(StoreFailed):
            reader.read_into(0, bytearray(3))
        store.delete(KEY)
        with pytest.raises(StoreFailed):
            reader.read_into(0, bytearray(1))
        store.close()


# --- memory, and the wrapper that fails on demand ---------------------------------------------------


class Memory:
    keeps = False

    def __init__(self) -> None:
        self.store = MemoryStore()

    def open(self) -> ShareStore:
        self.store = MemoryStore()
        return self.store

    def plant(self, name: str, content: bytes) -> bool:
        return False

    def quarantined(self) -> list[bytes]:
        return [record for records in self.store.quarantined.values() for record in records]

    def leftovers(self) -> int:
        return 0


class FaultyMemory(Memory):
    def open(self) -> ShareStore:
        return FaultyStore(super().open())


class TestMemory(ShareStoreContract):
    @pytest.fixture
    def medium(self) -> Medium:
        return Memory()


class TestFaulty(ShareStoreContract):
    @pytest.fixture
    def medium(self) -> Medium:
        return FaultyMemory()

    @pytest.mark.parametrize(
        "call",
        ["create", "write", "commit", "open", "read_into", "delete", "quarantine", "scan", "free_bytes"],
    )
    def test_the_scripted_call_fails_once(self, call: StoreCall) -> None:
        store = FaultyStore(MemoryStore())

        def all_calls() -> None:
            put(store, KEY, b"abc")
            assert read(store, KEY) == b"abc"
            list(store.scan())
            store.free_bytes()
            store.quarantine(KEY)
            store.delete(KEY)

        store.fail(call, DiskFull(where="there"), after=1)
        all_calls()
        with pytest.raises(DiskFull):
            all_calls()
        all_calls()
        store.fail(call, DiskFull(where="there"))
        store.heal()
        all_calls()

    def test_a_failed_commit_aborts_its_writers(self) -> None:
        store = FaultyStore(MemoryStore())
        store.fail("commit", DiskFull(where="there"))
        writer = store.create(KEY, 1)
        writer.write(b"x")
        with pytest.raises(DiskFull):
            store.commit([writer])
        with pytest.raises(InternalError):
            store.commit([writer])
        assert_absent(store, KEY)

    def test_a_damaged_byte_reads_inverted(self) -> None:
        store = FaultyStore(MemoryStore())
        put(store, KEY, b"abcd")
        store.damage(KEY, 2)
        assert read(store, KEY) == b"ab\x9cd"
        part = bytearray(2)
        assert store.open(KEY).read_into(2, part) == 2
        assert part == b"\x9cd"
        store.heal()
        assert read(store, KEY) == b"abcd"
