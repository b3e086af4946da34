"""Changes of names: what the state forbids is not sent, unless what is known here is old."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from tests.unit.volume.support import world

from muniment.engine.volume_names import VolumeNames
from muniment.errors import MunimentError, OperationRejected, PathUnknown
from muniment.spec.act import Role


async def test_a_mistake_does_not_stand_in_the_log_for_ever() -> None:
    async with world() as grid:
        anna = await grid.member("anna")
        names = VolumeNames(anna)
        await names.make_folder(b"a")
        await names.make_folder(b"a/b")
        await names.snapshot(b"then")
        size = grid.store.size
        with pytest.raises(OperationRejected, match=r"this: b: the name is taken \(exists\)"):
            await names.make_folder(b"a/b")
        with pytest.raises(OperationRejected, match="this: a: the folder is not empty"):
            await names.remove(b"a")
        with pytest.raises(OperationRejected, match=r"this: a: .*into-itself"):
            await names.move(b"a", b"a/b")
        with pytest.raises(OperationRejected, match="this: then: a snapshot has that name"):
            await names.snapshot(b"then")
        with pytest.raises(OperationRejected, match="this: c: a folder has one name only"):
            await names.link(b"a", b"c")
        with pytest.raises(PathUnknown, match="there is no /a/x in the volume"):
            await names.find(b"a/x")
        assert grid.store.size == size


async def test_what_others_have_done_meanwhile_is_looked_up_first() -> None:
    async with world() as grid:
        anna = await grid.member("anna")
        bert = await grid.join("bert", Role.WRITER, anna)
        await VolumeNames(anna).make_folder(b"shared")
        await bert.sync()
        await VolumeNames(anna).remove(b"shared")
        made = await VolumeNames(bert).make_folder(b"shared")  # bert had not seen that it was gone
        (entry,) = bert.view.entries(made.index, made.index + 1)
        assert entry.rejection is None


async def test_an_error_names_the_path_from_the_root() -> None:
    async with world() as grid:
        names = VolumeNames(await grid.member("anna"))
        await names.make_folder(b"a/b", parents=True)
        for path in b"a/b/c", b"x", b"x/y/z":
            with pytest.raises(MunimentError) as caught:
                await names.find(path)
            assert PurePosixPath(str(caught.value.facts()["path"])).is_absolute()
