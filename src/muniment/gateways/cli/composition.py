"""What the command line needs of the composition root, which lies in a layer above it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from muniment.audit.report import AuditReport
    from muniment.audit.service_report import ServiceReport
    from muniment.core.keeping.job import KindCount
    from muniment.crypto.member import MemberSecret
    from muniment.engine.grid import Grid
    from muniment.engine.keeping.archive import LogArchiver, Standing
    from muniment.engine.keeping.duties import Duties
    from muniment.engine.keeping.keeper import Keeper
    from muniment.engine.keeping.restore import Restored
    from muniment.engine.opened import KnownVolume, OpenVolume
    from muniment.engine.policy import Policy
    from muniment.engine.usage import AccountUsages
    from muniment.engine.volume_files import VolumeFiles
    from muniment.engine.witness import Cosigned, Trouble
    from muniment.fs.options import Options
    from muniment.ids import AccountId, BlobId, VolumeId
    from muniment.ports import Sighting, VisibleQueue
    from muniment.spec.act import Role, VolumePolicy
    from muniment.spec.volume_cap import Right
    from muniment.spec.wire import NodeStatus

    TellCosigned = Callable[[KnownVolume, Cosigned | Trouble], None]

Passphrase = Callable[[], str]
"""Asks for the identity's passphrase, when it is needed."""

Ready = Callable[[str], None]
"""Told the address as soon as the process serves."""


@dataclass(frozen=True, slots=True)
class NewNode:
    """What `node init` decides.

    Attributes:
        capacity_bytes: what the node gives.
        host: where to listen.
        port: where to listen; 0 finds a free one, which the node then keeps.
        advertise: `host:port` for others; empty where that is the same.
        zone: failure zone; empty where unknown.
        store: `posix` or an object store's URL.
        introducers: their addresses.
        invited: (account, quota in bytes or -1); any entry makes the node serve those accounts only.
    """

    capacity_bytes: int
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    zone: str = ""
    store: str = "posix"
    introducers: tuple[str, ...] = ()
    invited: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What `mount` decides.

    Attributes:
        volume: by the user's name.
        folder: where.
        options: of the file system.
        at: the entry whose state is shown; None: the present.
        kernel: what it is told by name: `allow_other` lets other users in, `suid` and `dev` let bits s and
            devices of the volume work, `noexec` lets no program run.
        names_s: so long the kernel keeps names and attributes.
    """

    volume: str
    folder: Path
    options: Options
    at: Callable[[OpenVolume], Awaitable[int | None]]
    kernel: frozenset[str]
    names_s: float


class FromGrid(Protocol):
    """A log that was restored from the grid into a service's folder.

    Attributes:
        volume: whose log it is.
        entries: that are in it now.
        restored: from what.
        kept: the volume in this home, if it was not known before.
    """

    @property
    def volume(self) -> VolumeId: ...
    @property
    def entries(self) -> int: ...
    @property
    def restored(self) -> Restored: ...
    @property
    def kept(self) -> KnownVolume | None: ...


class LogArchive(Protocol):
    """A volume's archive after a round.

    Attributes:
        known: the volume.
        account: under which the tiles lie.
        standing: how far it is.
    """

    @property
    def known(self) -> KnownVolume: ...
    @property
    def account(self) -> AccountId: ...
    @property
    def standing(self) -> Standing: ...


class KeeperPost(Protocol):
    """A keeper at its volume.

    Attributes:
        known: the volume.
        keeper: keeps its content.
        archiver: keeps its log.
    """

    @property
    def known(self) -> KnownVolume: ...
    @property
    def keeper(self) -> Keeper: ...
    @property
    def archiver(self) -> LogArchiver: ...


class Composition(Protocol):
    """Makes the parts of a process; `muniment.node.main` has it."""

    def init_node(self, folder: Path, new: NewNode) -> str:
        """Make a node's folder; returns its address."""
        ...

    def init_introducer(self, folder: Path, *, host: str, port: int, advertise: str) -> str:
        """Make an introducer's folder; returns its address."""
        ...

    def init_log(self, folder: Path, *, host: str, port: int, advertise: str, founders: list[str]) -> str:
        """Make a log service's folder; returns its address."""
        ...

    def run_log(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    def run_node(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    def run_introducer(self, folder: Path, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT."""
        ...

    def set_draining(self, folder: Path, *, draining: bool) -> None:
        """Tell the running node of a folder whether it is to be drained.

        Raises: ConfigInvalid: it does not run.
        """
        ...

    async def node_status(self, target: str) -> tuple[str, NodeStatus]:
        """Ask a running node, named by its address or its folder on this machine; with its address."""
        ...

    def open_grid(
        self, home: Path, roster: str | None, policy: Policy | None = None
    ) -> AbstractAsyncContextManager[Grid]:
        """The grid that `roster` names, or this home has joined.  Raises: GridUnknown, RosterEmpty."""
        ...

    def has_identity(self, home: Path) -> bool:
        """Whether the home has one."""
        ...

    def identity_locked(self, home: Path) -> bool:
        """Whether using it needs a passphrase.  Raises: ConfigInvalid: there is none."""
        ...

    def identity(self, home: Path, passphrase: Passphrase) -> MemberSecret:
        """The home's identity.  Raises: ConfigInvalid: none yet; PassphraseWrong."""
        ...

    def make_identity(self, home: Path, passphrase: str, seed: bytes | None = None) -> MemberSecret:
        """Make the home's identity; an empty passphrase leaves it unlocked."""
        ...

    def change_passphrase(self, home: Path, old: Passphrase, new: str) -> None:
        """Lock the identity by another passphrase."""
        ...

    def volumes(self, home: Path) -> list[KnownVolume]:
        """All that the home knows, by name."""
        ...

    async def create_volume(
        self, home: Path, name: str, log: str, policy: VolumePolicy, *, own_name: str, passphrase: Passphrase
    ) -> KnownVolume:
        """Found a volume at a log service, or with its log on this machine (`local`)."""
        ...

    async def join_volume(
        self,
        home: Path,
        text: str,
        *,
        name: str | None,
        role: Role,
        own_name: str,
        note: str,
        passphrase: Passphrase,
    ) -> KnownVolume:
        """Ask for membership by an invitation, or use a volume by a capability."""
        ...

    def volume_cap(self, opened: OpenVolume, right: Right | None) -> str:
        """The text of a capability of what is held, or (None) of an invitation.

        Raises: NotCapable: it grants less; InvalidRequest: nobody else can reach the log.
        """
        ...

    def open_volume(
        self, home: Path, name: str, passphrase: Passphrase
    ) -> AbstractAsyncContextManager[OpenVolume]:
        """A volume in step with its log, without the grid.  Raises: VolumeUnknown, LogForked."""
        ...

    def open_offline(
        self, home: Path, name: str, passphrase: Passphrase
    ) -> AbstractAsyncContextManager[OpenVolume]:
        """A volume as far as its log was followed before.  Raises: VolumeUnknown."""
        ...

    async def fetch_volume(self, home: Path, name: str, passphrase: Passphrase) -> int:
        """Have a volume's whole log here, where it began with a view snapshot; returns its entries.

        0: nothing was missing.  Raises: as `open_volume`.
        """
        ...

    async def audit(
        self,
        home: Path,
        name: str,
        roster: str | None,
        passphrase: Passphrase,
        *,
        ask_nodes: bool,
        deep: bool,
    ) -> AuditReport:
        """Audit what the home has of a volume, and with `ask_nodes` its blobs on the grid, if there is one.

        Raises: VolumeUnknown, PassphraseWrong.
        """
        ...

    async def audit_logs(self, folder: Path) -> ServiceReport:
        """Audit all logs of a service's folder.  Raises: ConfigInvalid: it is none; DiskFull, StoreFailed."""
        ...

    def backup_logs(self, folder: Path, target: Path) -> list[Path]:
        """Copy all logs of a service's folder; returns the copies."""
        ...

    def rehost(self, home: Path, name: str, folder: Path) -> int:
        """Put a home's replica into the log service of a folder; returns its entries.

        Raises: VolumeUnknown; FolderBusy: the service runs; InvalidRequest: it has another history.
        """
        ...

    async def rehost_from_grid(
        self,
        home: Path,
        roster: str | None,
        text: str,
        folder: Path,
        passphrase: Passphrase,
        *,
        name: str | None,
        incomplete: bool,
        told: Callable[[int], None],
    ) -> FromGrid:
        """Put the log of a volume, or of a capability, into a service's folder from the tiles at the nodes.

        Raises: LogIncomplete; InvalidCap, VolumeUnknown, NotCapable; FolderBusy: the service runs;
            InvalidRequest: this machine has another history; GridUnknown, RosterEmpty.
        """
        ...

    async def archive_log(
        self, home: Path, name: str, roster: str | None, passphrase: Passphrase, *, write: bool
    ) -> LogArchive:
        """Archive all that is in a volume's log, or (not `write`) look how far its archive is.

        Raises: VolumeUnknown, PassphraseWrong; LogForked; NotHappy; HistoryMissing; GridUnknown, RosterEmpty.
        """
        ...

    async def move_volume(self, home: Path, name: str, log: str, passphrase: Passphrase) -> KnownVolume:
        """Follow another log service from now on, if it continues what was seen.

        Raises: VolumeUnknown, LogForked; as `open_volume`.
        """
        ...

    async def cosign_once(
        self, home: Path, names: Sequence[str], passphrase: Passphrase, tell: TellCosigned
    ) -> None:
        """Cosign the newest checkpoint of each volume's log, telling of each.

        Raises: VolumeUnknown, PassphraseWrong, NotCapable, InvalidRequest, FolderBusy: before anything is.
        """
        ...

    def run_witness(
        self, home: Path, names: Sequence[str], passphrase: Passphrase, tell: TellCosigned
    ) -> bool:
        """Cosign these volumes' logs until SIGTERM, SIGINT, or all are refused; returns whether one is.

        Raises: as `cosign_once`; StoreFailed, DiskFull.
        """
        ...

    def names(self, home: Path, name: str, folder: bytes) -> list[tuple[bytes, bool]]:
        """What a folder of a volume holds as far as its log was followed, and which of it are folders.

        Cheap: neither the log service nor the grid is asked.  Raises: VolumeUnknown, PathUnknown,
            InvalidRequest: it is no folder.
        """
        ...

    async def mount(
        self,
        home: Path,
        roster: str | None,
        request: MountRequest,
        passphrase: Passphrase,
        ready: Callable[[Path], None],
    ) -> None:
        """Serve a volume at a folder until it is unmounted; cancelled, save everything and unmount it.

        Args:
            ready: called when it is mounted, with a file for what happens later.
        Raises: VolumeUnknown, PassphraseWrong; InvalidRequest: the folder cannot be used; ConfigInvalid: this
            machine cannot mount; GridUnknown, RosterEmpty.
        """
        ...

    def check_mounts(self) -> None:
        """Raises: ConfigInvalid: this machine cannot mount; says what to type."""
        ...

    async def unmount(self, home: Path, folder: Path, *, lazy: bool) -> None:
        """Take a mount away, and wait until all of it is saved.

        Args:
            lazy: do it though somebody uses it, and wait for nothing.
        Raises: InvalidRequest: no volume is mounted there, or somebody uses it; ConfigInvalid.
        """
        ...

    def open_files(
        self, home: Path, name: str, roster: str | None, passphrase: Passphrase
    ) -> AbstractAsyncContextManager[tuple[OpenVolume, VolumeFiles]]:
        """The same with the grid that has its content."""
        ...

    async def usage(
        self, home: Path, roster: str | None, name: str | None, passphrase: Passphrase
    ) -> list[AccountUsages]:
        """What the home's account uses on each node, and those of a volume if one is named.

        Raises: VolumeUnknown, PassphraseWrong; GridUnknown, RosterEmpty.
        """
        ...

    async def sightings(self, known: KnownVolume, blobs: Sequence[BlobId]) -> Sequence[Sequence[Sighting]]:
        """What a keeper of this home remembers of each blob's shares; nothing where there is none.

        Raises: UnknownVersion, StoreFailed.
        """
        ...

    def keeper_accounts(self, home: Path, name: str, passphrase: Passphrase) -> dict[str, str]:
        """The accounts under which this home keeps a volume: `keeper` its content, `archive` its log.

        Raises: VolumeUnknown, PassphraseWrong.
        """
        ...

    async def keep_once(
        self, home: Path, names: Sequence[str], roster: str | None, passphrase: Passphrase, duties: Duties
    ) -> Sequence[tuple[KeeperPost, KindCount]]:
        """Scan these volumes once and do what is due; returns what was done, and the repairs still open.

        Raises: VolumeUnknown, PassphraseWrong; LogForked; RosterEmpty; FolderBusy: another keeper of this
            home has one of them; StoreFailed, DiskFull.
        """
        ...

    def run_keepers(
        self,
        home: Path,
        names: Sequence[str],
        roster: str | None,
        passphrase: Passphrase,
        duties: Duties,
        tell: Callable[[KeeperPost], None],
        metrics: str = "",
    ) -> None:
        """Keep these volumes until SIGTERM or SIGINT, telling of each scan.

        Args:
            metrics: `host:port` where they are served; empty for nowhere.
        Raises: as `keep_once`; ConfigInvalid: nothing can be served there.
        """
        ...

    def open_queue(self, home: Path) -> AbstractContextManager[VisibleQueue]:
        """The queue of a home's keeper, or an empty one.  Raises: UnknownVersion, StoreFailed."""
        ...

    def default_home(self) -> Path:
        """The user's folder where none is named."""
        ...

    def join_grid(self, home: Path, roster: str) -> str:
        """Remember a grid in a home; returns what was remembered."""
        ...

    def account(self, home: Path) -> str:
        """This home's account id; makes the account on first use."""
        ...
