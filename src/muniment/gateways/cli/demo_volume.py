"""The demo's second act: a volume with three members, votes, edits at once, a removal, the past, an audit.

Anna, Bert and Carl each have a home, an identity and a replica of the log of their own, as on three machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from muniment.audit.report import Verdict
from muniment.errors import InternalError, NotMember, OperationRejected
from muniment.gateways.cli import demo_tree
from muniment.gateways.cli.context import Context
from muniment.gateways.cli.demo_grid import DemoGrid
from muniment.gateways.cli.show import count_text
from muniment.ids import MemberId
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.spec.operation import ROOT

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume
    from muniment.engine.volume_files import VolumeFiles

NAME: Final = "books"
"""What every member calls it."""

_POLICY: Final = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "2/4", 3, 4 << 20)
"""Any 2 of 4 shares: one of the six nodes is dead by now, and another one lies."""

_FILES: Final = 40
_EDITS: Final = 10


class Story(Protocol):
    """Where what happened is told."""

    def tell(self, what: str, result: str, **facts: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class _Desk:
    """One member at work."""

    name: str
    home: Path
    opened: OpenVolume
    files: VolumeFiles

    @property
    def id(self) -> MemberId:
        return self.opened.held.member


def unlocked() -> str:
    """The passphrase of all identities here."""
    return ""


async def play_volume(context: Context, grid: DemoGrid, place: Path, story: Story) -> None:
    """Everything from the founding to the audit.  Raises: InternalError: something is not as it must be."""
    begun = time.monotonic()
    act = _Act(context, grid, place, story)
    await act.found()
    async with act.desk("anna") as anna, act.desk("bert") as bert, act.desk("carl") as carl:
        await act.vote_in(anna, bert, carl)
        before = await act.fill(anna)
        await act.edit_at_once(anna, bert, carl)
        await act.remove_bert(anna, bert, carl)
        await act.restore(anna, carl, before)
    await act.audit()
    story.tell(
        "volume took", f"{time.monotonic() - begun:.1f} s", volume_s=round(time.monotonic() - begun, 3)
    )


class _Act:
    """What is done, in order."""

    def __init__(self, context: Context, grid: DemoGrid, place: Path, story: Story) -> None:
        self._context, self._grid, self._place, self._story = context, grid, place, story

    def _home(self, name: str) -> Path:
        return self._place / name

    async def found(self) -> None:
        """Anna makes the volume; Bert and Carl ask to join."""
        composition = self._context.composition
        self._context.remark("a volume: Anna founds it, Bert and Carl ask to join")
        for name in ("anna", "bert", "carl"):
            composition.make_identity(self._home(name), "")
        await composition.create_volume(
            self._home("anna"), NAME, self._grid.log.address, _POLICY, own_name="Anna", passphrase=unlocked
        )
        async with composition.open_volume(self._home("anna"), NAME, unlocked) as opened:
            invitation = composition.volume_cap(opened, None)
        for name in ("bert", "carl"):
            await composition.join_volume(
                self._home(name),
                invitation,
                name=NAME,
                role=Role.OWNER,
                own_name=name.title(),
                note="",
                passphrase=unlocked,
            )

    @contextlib.asynccontextmanager
    async def desk(self, name: str) -> AsyncIterator[_Desk]:
        """A member's volume and files."""
        home = self._home(name)
        opening = self._context.composition.open_files(home, NAME, self._grid.address, unlocked)
        async with opening as (opened, files):
            yield _Desk(name, home, opened, files)

    async def vote_in(self, anna: _Desk, bert: _Desk, carl: _Desk) -> None:
        """Anna alone is all owners; then two of two must agree."""
        await anna.opened.members.accept(bert.id)
        await anna.opened.members.accept(carl.id)
        await bert.opened.volume.sync()
        if carl.id in bert.opened.volume.membership.members:
            raise InternalError(reason="one of two owners was enough for a majority")
        await bert.opened.members.accept(carl.id)
        await carl.opened.volume.sync()
        if carl.id not in carl.opened.volume.membership.members:
            raise InternalError(reason="two of two owners were not enough")
        self._story.tell("members", "Anna, then Bert by 1 vote of 1, then Carl by 2 of 2", members=3)

    async def fill(self, anna: _Desk) -> dict[str, tuple[object, ...]]:
        """A tree, and a name for the state that will be yesterday's."""
        source = self._place / "books"
        await asyncio.to_thread(demo_tree.make_books, source, _FILES)
        begun = time.monotonic()
        stored = await anna.files.put_tree(source, b"ledger", message="the books of 2026")
        await anna.files.snapshot(b"yesterday")
        took_s = time.monotonic() - begun
        self._story.tell(
            "volume filled",
            f"{count_text(stored.files, 'file')} in one signed transaction, {took_s:.2f} s",
            volume_files=stored.files,
        )
        return await asyncio.to_thread(demo_tree.fingerprint, source)

    async def edit_at_once(self, *desks: _Desk) -> None:
        """All write at the same time, and all of them the same file too."""
        self._context.remark("three members edit at once")
        for desk in desks:
            await desk.opened.volume.sync()

        async def edit(desk: _Desk) -> int:
            for number in range(_EDITS):
                await desk.files.put(f"{desk.name} {number}".encode(), f"{desk.name}-{number}".encode())
            await desk.files.put(desk.name.encode(), b"shared")
            return await desk.opened.volume.sync()

        await asyncio.gather(*map(edit, desks))
        for desk in desks:
            await desk.opened.volume.sync()
        states = {desk.opened.volume.view.state_hash().digest() for desk in desks}
        history = await desks[0].files.history(b"shared")
        if len(states) != 1 or len(history) != len(desks):
            raise InternalError(reason="the members do not see the same tree")
        self._story.tell(
            "edited at once",
            f"{len(desks)} members, {len(desks) * (_EDITS + 1)} edits, one tree; "
            f"of 'shared' all {len(history)} versions are kept",
            edits=len(desks) * (_EDITS + 1),
        )

    async def remove_bert(self, anna: _Desk, bert: _Desk, carl: _Desk) -> None:
        """Bert deletes everything, and is voted out; new keys follow."""
        names = [one.path for one in await bert.files.listing(b"")]
        await bert.files.remove(*names, recursive=True)
        for desk in (anna, carl):
            await desk.opened.volume.sync()
            await desk.opened.members.kick(bert.id)
        await carl.opened.volume.sync()
        await carl.files.put(b"for members only", b"secret")
        try:
            await bert.files.put(b"still here?", b"mine")
        except (NotMember, OperationRejected):
            pass
        else:
            raise InternalError(reason="a removed member could write")
        await bert.opened.volume.sync()
        if bert.opened.volume.view.reading().child(ROOT, b"secret") is not None:
            raise InternalError(reason="a removed member could read")
        self._story.tell(
            "kicked",
            "Bert, who deleted everything, by 2 votes of 3; he can neither write nor read what comes after",
            epoch=carl.opened.volume.membership.epoch,
        )

    async def restore(self, anna: _Desk, carl: _Desk, before: dict[str, tuple[object, ...]]) -> None:
        """Yesterday's tree again, read by another member."""
        await anna.opened.volume.sync()
        at = dict(anna.opened.volume.view.snapshots())[b"yesterday"]
        await anna.files.restore(b"ledger", at, message="Bert was wrong")
        await carl.opened.volume.sync()
        back = self._place / "ledger"
        await carl.files.get_tree(b"ledger", back)
        if await asyncio.to_thread(demo_tree.fingerprint, back) != before:
            raise InternalError(reason="yesterday's tree is not what it was")
        self._story.tell("restored", "the tree of the snapshot 'yesterday', identical, in one transaction")

    async def audit(self) -> None:
        """Clean, until a byte is flipped behind Carl's back."""
        composition, home = self._context.composition, self._home("carl")
        report = await composition.audit(
            home, NAME, self._grid.address, unlocked, ask_nodes=False, deep=False
        )
        if report.verdict is not Verdict.CLEAN:
            raise InternalError(reason=f"the audit of an honest volume says {report.text()}")
        (known,) = composition.volumes(home)
        await asyncio.to_thread(demo_tree.flip_byte, known.folder / "log.sqlite")
        caught = await composition.audit(
            home, NAME, self._grid.address, unlocked, ask_nodes=False, deep=False
        )
        if caught.verdict is Verdict.CLEAN:
            raise InternalError(reason="the audit did not see a flipped byte")
        self._story.tell(
            "audited",
            f"clean: {report.signatures} signatures and {report.view_rows} rows; "
            f"then a byte of Carl's log was flipped: {caught.verdict.value}, {caught.findings[0].place}",
            audit=report.verdict.value,
            audit_after_flip=caught.verdict.value,
        )
