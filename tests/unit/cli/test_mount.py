"""`muni mount` on the command line: what its options mean, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni

from muniment.errors import ConfigInvalid
from muniment.fs.options import Options
from muniment.gateways.mount.machine import check_machine


def asked(*words: str) -> Options:
    world = FakeComposition()
    done = muni(world, "mount", "b:", "folder", "--foreground", *words)
    assert done.code == 0, done.err
    (request,) = world.mounts
    assert (request.volume, request.folder) == ("b", Path("folder"))
    return request.options


def test_options_mean_what_they_say() -> None:
    assert asked() == Options()
    assert asked("-o", "ro,noauto") == Options(read_only=True)
    assert asked("--read-only") == Options(read_only=True)
    assert asked("--at", "3").read_only
    assert asked("-o", "locks=volume").shared_locks
    assert not asked("-o", "locks=volume,locks=mount").shared_locks
    many = asked(
        "-o",
        "sync,lax",
        "-o",
        "lazy_close,dirty=8MiB,cache=1g,deadline=2.5,linger=0,writeback=1",
        "-o",
        "disk_cache=0",
    )
    assert many == Options(
        sync=True,
        strict=False,
        durable_close=False,
        dirty_bytes=8 << 20,
        cache_bytes=1 << 30,
        disk_cache_bytes=0,
        deadline_s=2.5,
        linger_s=0.0,
        writeback_s=1.0,
    )


def test_what_the_kernel_is_told() -> None:
    world = FakeComposition()
    assert muni(world, "mount", "b", "folder", "--foreground", "-o", "allow_other,names=7").code == 0
    assert world.mounts[0].names_s == 7.0
    assert world.mounts[0].kernel == {"allow_other"}
    words = ["--allow-other", "-o", "suid,dev,noexec,nodev,exec,noexec"]
    assert muni(world, "mount", "b", "folder", "--foreground", *words).code == 0
    assert world.mounts[1].kernel == {"allow_other", "suid", "noexec"}
    assert muni(world, "mount", "b", "folder", "--foreground").code == 0
    assert not world.mounts[2].kernel


@pytest.mark.parametrize(
    "option",
    [
        *("nonsense", "dirty=much", "dirty=0", "sync=1", "locks=all"),
        *("deadline", "deadline=0", "deadline=nan", "writeback=0", "linger=inf", "names=-1", "names=inf"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(option: str) -> None:
    done = muni(FakeComposition(), "mount", "b", "folder", "--foreground", "-o", option)
    assert done.code == 2
    assert "muni mount --help" in done.err


def test_what_is_missing_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched: a test cannot take the helper or the device from the machine.
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigInvalid, match="apt-get install fuse3"):
        check_machine()
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/fusermount3")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigInvalid, match="modprobe fuse"):
        check_machine()


def test_a_failure_to_mount_is_told_as_any_other() -> None:
    class Broken(FakeComposition):
        async def mount(self, *_: object) -> None:
            await asyncio.sleep(0)
            raise ConfigInvalid(where="/dev/fuse", reason="it is not there")

    done = muni(Broken(), "mount", "b", "folder", "--foreground")
    assert done.code == 6
    assert "/dev/fuse: it is not there" in done.err
