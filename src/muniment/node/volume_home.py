"""A user's identity and volumes in his home folder.

identity.key                 his seed, locked by a passphrase (docs/spec/key_file.md)
volumes/<VolumeId>/
volume.json                name, log service and its key, with a checksum over all of it
secret                     a capability's text, mode 0600; missing where the identity is the member
log.sqlite                 replica of the log: as precious as the log service's own copy
view.sqlite                what the log folds to; may be deleted
handed-over                up to which entry keepers have what this home stored; may be deleted
logs/, log.key               logs that this machine itself orders, and the key that signs them
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from muniment.crypto.hashing import derive
from muniment.crypto.key_file import is_locked, lock_seed, unlock_seed
from muniment.crypto.member import MemberSecret, ReadSecret, VerifySecret
from muniment.durable_file import failed, flush, write_whole
from muniment.engine.opened import LOCAL, Holding, KnownVolume, OpenVolume
from muniment.errors import (
    ConfigInvalid,
    InvalidCap,
    InvalidRequest,
    MunimentError,
    NotCapable,
    StoreFailed,
    VolumeUnknown,
)
from muniment.ids import MemberId, VolumeId, id_from_text, id_text
from muniment.private_file import read_private
from muniment.spec import tags
from muniment.spec.address import PeerKind, parse_address
from muniment.spec.volume_cap import Invitation, Right, VolumeCap, parse_volume_cap, volume_cap_text
from muniment.spec.wire import IdText

IDENTITY_FILE: Final = "identity.key"
VOLUMES_FOLDER: Final = "volumes"
SETTINGS_FILE: Final = "volume.json"
SECRET_FILE: Final = "secret"  # noqa: S105 - the name of a file
REPLICA_FILE: Final = "log.sqlite"
VIEW_FILE: Final = "view.sqlite"
CHECKPOINTS_FOLDER: Final = "checkpoints"
LOCAL_KEY_FILE: Final = "log.key"
LOCAL_LOGS_FOLDER: Final = "logs"
"""Of the log service on this machine."""

_REFUSED_FILE: Final = "refused"
_HANDED_OVER_FILE: Final = "handed-over"
_PREFIX_CHARS_MIN: Final = 6
_CHECK_BYTES: Final = 8
_NOT_IN_NAMES: Final = frozenset(":/")
"""A command line has VOL:/path."""

Passphrase = Callable[[], str]
"""Asks for the identity's passphrase, when it is needed."""


class _Settings(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """volume.json.

    Attributes:
        log: `mun:log:...`, or `local`.
        log_key: Ed25519, hex; signs the checkpoints that are accepted.
        former_log_keys: of the services that had the log before, hex; theirs are kept, and audited.
        check: of all the others, hex; empty in files of homes that were made before there was one.
    """

    format: Literal[1]
    volume: IdText
    name: str
    log: str
    log_key: str
    former_log_keys: list[str] = []
    check: str = ""

    def checksum(self) -> str:
        plain = msgspec.json.encode(msgspec.structs.replace(self, check=""))
        return derive(tags.VOLUME_SETTINGS, plain)[:_CHECK_BYTES].hex()


# --- identity -------------------------------------------------------------------------------------


def has_identity(home: Path) -> bool:
    """Whether the home has an identity."""
    return (home / IDENTITY_FILE).exists()


def make_identity(home: Path, passphrase: str, seed: bytes | None = None) -> MemberSecret:
    """Make the home's identity, or keep the one of a seed; empty passphrase: not locked.

    Raises: InvalidRequest: there is one already; DiskFull, StoreFailed.
    """
    if has_identity(home):
        raise InvalidRequest(reason="this home has an identity already; 'muni identity show' prints it")
    secret = MemberSecret.generate(os.urandom) if seed is None else MemberSecret(seed)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise failed(home, error) from error
    _write_identity(home, secret.seed, passphrase)
    return secret


def read_identity(home: Path, passphrase: Passphrase) -> MemberSecret:
    """The home's identity.

    Args:
        passphrase: asked only if the file is locked.
    Raises: ConfigInvalid: there is none, it is damaged or readable by others; PassphraseWrong.
    """
    path = home / IDENTITY_FILE
    try:
        data = read_private(path)
    except FileNotFoundError as error:
        reason = "there is no identity yet; make one with 'muni identity new'"
        raise ConfigInvalid(where=str(path), reason=reason) from error
    except OSError as error:
        raise failed(path, error) from error
    return MemberSecret(unlock_seed(data, passphrase() if is_locked(data) else "", file=str(path)))


def change_passphrase(home: Path, old: Passphrase, new: str) -> None:
    """Lock the identity by another passphrase.  Raises: as `read_identity`."""
    _write_identity(home, read_identity(home, old).seed, new)


def identity_locked(home: Path) -> bool:
    """Whether using the identity needs a passphrase.  Raises: ConfigInvalid: there is none."""
    path = home / IDENTITY_FILE
    try:
        return is_locked(path.read_bytes())
    except OSError as error:
        raise ConfigInvalid(where=str(path), reason="make an identity with 'muni identity new'") from error


def _write_identity(home: Path, seed: bytes, passphrase: str) -> None:
    write_whole(home / IDENTITY_FILE, lock_seed(seed, passphrase, entropy=os.urandom), mode=0o600)


# --- volumes --------------------------------------------------------------------------------------


def volumes(home: Path, *, damaged: bool = False) -> list[KnownVolume]:
    """All volumes of a home, by name.

    Args:
        damaged: leave out those whose settings are damaged.
    Raises: ConfigInvalid: some are.
    """
    found = []
    for folder in _folders(home):
        try:
            found.append(_known(folder))
        except ConfigInvalid:
            if not damaged:
                raise
    return sorted(found, key=lambda one: (one.name, one.volume))


def _folders(home: Path) -> list[Path]:
    folder = home / VOLUMES_FOLDER
    return (
        sorted(one for one in folder.iterdir() if (one / SETTINGS_FILE).exists()) if folder.exists() else []
    )


def find_volume(home: Path, text: str, *, damaged: bool = False) -> KnownVolume:
    """The volume of this name, or whose id begins so.

    Args:
        damaged: look for it though the settings of another one are damaged.
    Raises: VolumeUnknown; InvalidRequest: several have the name; ConfigInvalid.
    """
    known = volumes(home, damaged=damaged)
    found = [one for one in known if one.name == text] or [
        one for one in known if len(text) >= _PREFIX_CHARS_MIN and id_text(one.volume).startswith(text)
    ]
    if not found:
        raise VolumeUnknown(volume=text)
    if len(found) > 1:
        ids = ", ".join(id_text(one.volume)[:12] for one in found)
        raise InvalidRequest(reason=f"several volumes are called {text!r}: use one of the ids {ids}")
    return found[0]


def check_name(home: Path, name: str, volume: VolumeId | None = None) -> None:
    """Raise InvalidRequest if a volume, `volume` or a new one, cannot be called so in this home."""
    if not name or not name.isprintable() or name[0] in "-@. " or _NOT_IN_NAMES & set(name):
        raise InvalidRequest(reason=f"{name!r} is no name for a volume: no ':' or '/', nor '-@.' in front")
    if any(one.name == name and one.volume != volume for one in volumes(home)):
        raise InvalidRequest(reason=f"another volume is called {name!r} here; choose another name")


def keep_volume(
    home: Path, volume: VolumeId, name: str, log: str, log_key: bytes, cap: VolumeCap | None
) -> KnownVolume:
    """Remember a volume, durably.

    Args:
        cap: what is held of it; None where the home's identity is the member.
    Raises: InvalidRequest: no name, or another volume's; DiskFull, StoreFailed.
    """
    check_name(home, name, volume)
    folder = home / VOLUMES_FOLDER / id_text(volume)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.parent.mkdir(exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        if cap is not None:
            write_whole(folder / SECRET_FILE, f"{volume_cap_text(cap)}\n".encode(), mode=0o600)
        else:
            (folder / SECRET_FILE).unlink(missing_ok=True)
        settings = _Settings(1, id_text(volume), name, log, log_key.hex())
        _write_settings(folder, settings)
        flush(folder.parent)
    except OSError as error:
        raise failed(folder, error) from error
    return _known(folder)


def move_kept(known: KnownVolume, log: str, log_key: bytes) -> KnownVolume:
    """Remember another log service, which is not refused for what the old one did."""
    former = [key for key in (*known.former_log_keys, known.log_key) if key != log_key]
    former_texts = [key.hex() for key in dict.fromkeys(former)]
    settings = _Settings(1, id_text(known.volume), known.name, log, log_key.hex(), former_texts)
    _write_settings(known.folder, settings)
    (known.folder / _REFUSED_FILE).unlink(missing_ok=True)
    return _known(known.folder)


def holding(home: Path, known: KnownVolume, passphrase: Passphrase) -> Holding:
    """What the user holds of a volume: a capability's secret, else his identity.

    Raises: InvalidCap, MalformedRecord: it is damaged; ConfigInvalid: it is readable by others, or another's;
        as `read_identity`.
    """
    path = known.folder / SECRET_FILE
    try:
        text = read_private(path).decode("ascii")
    except FileNotFoundError:
        return read_identity(home, passphrase)
    except UnicodeDecodeError:
        raise InvalidCap(reason="it has characters that are none of a capability") from None
    except OSError as error:
        raise ConfigInvalid(where=str(path), reason=f"it cannot be read: {type(error).__name__}") from None
    cap = parse_volume_cap(text)
    if not isinstance(cap, VolumeCap) or cap.volume != known.volume:
        raise ConfigInvalid(where=str(path), reason="this is not a capability of this volume")
    return secret_of(cap)


def secret_file(home: Path, known: KnownVolume) -> Path:
    """The file that `holding` reads."""
    path = known.folder / SECRET_FILE
    return path if path.exists() else home / IDENTITY_FILE


def secret_of(cap: VolumeCap) -> Holding:
    """The secret in a capability."""
    match cap.right:
        case Right.WRITE:
            return MemberSecret(cap.seed)
        case Right.READ:
            return ReadSecret(cap.member, cap.seed)
        case Right.VERIFY:
            return VerifySecret(cap.member, cap.seed)


def weakened(held: Holding, right: Right) -> tuple[MemberId, bytes]:
    """The member and the seed of a right, out of what is held.  Raises: NotCapable: it grants less."""
    levels: dict[Right, MemberSecret | ReadSecret | VerifySecret] = {}
    if isinstance(held, MemberSecret):
        levels[Right.WRITE] = held
        held = held.read
    if isinstance(held, ReadSecret):
        levels[Right.READ] = held
        held = held.verify
    levels[Right.VERIFY] = held
    if right not in levels:
        raise NotCapable(needed=f"volume {right.value}", given=f"volume {next(iter(levels)).value}")
    return levels[right].member, levels[right].seed


def cap_of(opened: OpenVolume, right: Right | None) -> str:
    """A capability's text of what is held of a volume; None: the invitation.

    Raises: NotCapable: it grants less; InvalidRequest: nobody else can reach a log on this machine.
    """
    if opened.known.log == LOCAL:
        reason = "its log is on this machine only; 'muni log rehost' moves it to a log service"
        raise InvalidRequest(reason=reason)
    log = parse_address(opened.known.log, PeerKind.LOG)
    if right is None:
        return volume_cap_text(Invitation(opened.known.volume, log))
    member, seed = weakened(opened.held, right)
    return volume_cap_text(VolumeCap(right, opened.known.volume, log, member, seed))


def keep_evidence(known: KnownVolume, evidence: bytes) -> str:
    """Store evidence against a volume's log service, which is refused from then on; returns the file's path.

    Raises: DiskFull, StoreFailed.
    """
    path = known.folder / f"evidence-{hashlib.sha256(evidence).hexdigest()[:16]}"
    write_whole(path, evidence)
    write_whole(known.folder / _REFUSED_FILE, f"{path.name}\n".encode())
    return str(path)


def refused(known: KnownVolume) -> str:
    """The evidence for which a volume's log service is refused; empty if it is not.  Raises: StoreFailed."""
    path = known.folder / _REFUSED_FILE
    try:
        return str(known.folder / path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreFailed(where=str(path), reason=str(error)) from error


def handed_over(known: KnownVolume) -> int:
    """Up to which entry this home has left to keepers what it stored; 0 if that is not known."""
    try:
        return int((known.folder / _HANDED_OVER_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError):  # it is begun again
        return 0


def keep_handed_over(known: KnownVolume, size: int) -> None:
    """Remember it.  Raises: DiskFull, StoreFailed."""
    write_whole(known.folder / _HANDED_OVER_FILE, f"{size}\n".encode())


def damaged_settings(home: Path, text: str) -> tuple[VolumeId, ConfigInvalid] | None:
    """The volume that may be meant by a name or the beginning of an id, and whose settings are damaged.

    Returns: its id, as its folder says, and what is wrong; None if no settings are damaged.
    """
    found: list[tuple[bool, VolumeId, ConfigInvalid]] = []
    for one in _folders(home):
        try:
            _known(one)
        except ConfigInvalid as error:
            try:
                said = msgspec.json.decode((one / SETTINGS_FILE).read_bytes(), type=_Settings).name
            except (OSError, msgspec.DecodeError):
                said = ""  # the name itself may be what is damaged
            meant = said == text or (len(text) >= _PREFIX_CHARS_MIN and one.name.startswith(text))
            found.append((not meant, VolumeId(id_from_text(one.name)), error))
    return min(found, key=lambda one: one[:2])[1:] if found else None


def _write_settings(folder: Path, settings: _Settings) -> None:
    checked = msgspec.structs.replace(settings, check=settings.checksum())
    write_whole(folder / SETTINGS_FILE, msgspec.json.format(msgspec.json.encode(checked)))


def _known(folder: Path) -> KnownVolume:
    path = folder / SETTINGS_FILE
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=_Settings)
        volume, key = VolumeId(id_from_text(settings.volume)), bytes.fromhex(settings.log_key)
        former = tuple(map(bytes.fromhex, settings.former_log_keys))
    except (OSError, msgspec.DecodeError, ValueError, MunimentError) as error:
        raise ConfigInvalid(where=str(path), reason=str(error)) from error
    if settings.check and not hmac.compare_digest(settings.check, settings.checksum()):
        reason = (
            "its checksum is another one: it is damaged, or was changed by hand; restore it from a backup, "
            "or move its folder away and use 'muni volume join'"
        )
        raise ConfigInvalid(where=str(path), reason=reason)
    if folder.name != id_text(volume):
        raise ConfigInvalid(where=str(path), reason="it is of another volume than its folder")
    return KnownVolume(volume, settings.name, settings.log, key, folder, former)
