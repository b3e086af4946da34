"""Configuration of a node, an introducer or a log service: one TOML file in its folder, checked whole.

The structs are the schema: names, types, bounds and defaults stand here and nowhere else.  A mistake is one
`ConfigInvalid` that names the file and the key.  docs/node.md section 2 explains each key to operators.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
import tomli_w

from muniment.durable_file import failed, flush, write_whole
from muniment.errors import ConfigInvalid, MunimentError
from muniment.ids import ID_BYTES, AccountId, NodeId, id_from_text
from muniment.node.folder import FolderLock, make_identity
from muniment.spec.address import PeerAddress, PeerKind, parse_address
from muniment.spec.record import ADDRESS_CHARS_MAX, ADDRESSES_MAX, ZONE_CHARS_MAX
from muniment.spec.wire import IdText

KEY_FILE: Final = "key"
NODE_FILE: Final = "node.toml"
INTRODUCER_FILE: Final = "introducer.toml"
LOG_FILE: Final = "log.toml"
LEDGER_FILE: Final = "ledger.sqlite"
LOGS_FOLDER: Final = "logs"
ROSTER_FILE: Final = "roster.json"
STORE_FOLDER: Final = "store"
SPOOL_FOLDER: Final = "spool"
TLS_FOLDER: Final = "tls"
POSIX: Final = "posix"

_DAY_S: Final = 86400
_YEARS_S: Final = 10 * 366 * _DAY_S

Host = Annotated[str, msgspec.Meta(min_length=1, max_length=ADDRESS_CHARS_MAX)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Address = Annotated[str, msgspec.Meta(max_length=ADDRESS_CHARS_MAX)]
Quota = Annotated[int, msgspec.Meta(ge=-1)]
"""Bytes; -1 is no quota."""


class _Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base: immutable, and an unknown key is a mistake."""


class InvitedAccount(_Settings, frozen=True):
    """One account the node serves."""

    account: IdText
    name: str = ""
    quota_bytes: Quota = -1


class Policy(_Settings, frozen=True):
    """Whom the node serves.

    Attributes:
        mode: `open` serves every account, `invited` only those listed.
        quota_bytes: quota of accounts that are not listed (mode `open`).
        accounts: the invited, or in mode `open` those with a quota of their own.
    """

    mode: Literal["open", "invited"] = "open"
    quota_bytes: Quota = -1
    accounts: list[InvitedAccount] = []


class Times(_Settings, frozen=True):
    """How long things last, in seconds.

    Attributes:
        reservation_s: a promise of space waits this long for its upload.
        lease_s: a lease given by reserve or put, and to a share found without an owner.
        trash_grace_s: from trash or expiry of a lease to the purge.
        record_s: lifetime of the node's signed record; renewed after a third of it.
        request_s: deadline of one request.
        stop_grace_s: requests under way at a graceful stop may take this long to finish.
        scrub_s: every share is read again once in this time.
    """

    reservation_s: Annotated[int, msgspec.Meta(ge=1, le=_DAY_S)] = 600
    lease_s: Annotated[int, msgspec.Meta(ge=1, le=_YEARS_S)] = 31 * _DAY_S
    trash_grace_s: Annotated[int, msgspec.Meta(ge=0, le=_YEARS_S)] = 7 * _DAY_S
    record_s: Annotated[int, msgspec.Meta(ge=3, le=366 * _DAY_S)] = 3600
    request_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 120
    stop_grace_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 10
    scrub_s: Annotated[int, msgspec.Meta(ge=1, le=_YEARS_S)] = 30 * _DAY_S


class Limits(_Settings, frozen=True):
    """Bounds on memory and work.

    Attributes:
        requests: requests served at once; more are answered `overloaded`.
        threads: threads that read, write and hash.
        reservations: promises of space that wait at once.
        reconcile_bytes_per_s: how fast shares found without a ledger entry are read at most.
        scrub_bytes_per_s: how fast shares are read again at most.
    """

    requests: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    reservations: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 100_000
    reconcile_bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 50_000_000
    scrub_bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 20_000_000


class NodeConfig(_Settings, frozen=True):
    """All of `node.toml`.

    Attributes:
        host: where to listen.
        port: 0 lets the system choose at each start.
        advertise: `host:port` under which others reach the node; default is where it listens.
        zone: failure zone; empty where unknown.
        capacity_bytes: what the node gives; real bytes of share records.
        price: micro-credits for one GiB and 30 days.
        store: `posix` (a folder in the node's folder) or the URL of an object store.
        introducers: `mun:introducer:...` addresses to announce to.
        metrics: `host:port` where `GET /metrics` is answered, without TLS or account; empty for nowhere.
    """

    capacity_bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    host: Host = "127.0.0.1"
    port: Port = 0
    advertise: Annotated[list[Address], msgspec.Meta(max_length=ADDRESSES_MAX)] = []
    zone: Annotated[str, msgspec.Meta(max_length=ZONE_CHARS_MAX)] = ""
    price: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    store: Annotated[str, msgspec.Meta(pattern=r"^posix$|^[a-z][a-z0-9+.-]*://")] = POSIX
    introducers: Annotated[list[str], msgspec.Meta(max_length=16)] = []
    metrics: Address = ""
    policy: Policy = Policy()
    times: Times = Times()
    limits: Limits = Limits()


class IntroducerConfig(_Settings, frozen=True):
    """All of `introducer.toml`; `host`, `port` and `advertise` as in `NodeConfig`.

    Attributes:
        records: nodes kept at most.
        record_s: longest lifetime of a record that is accepted.
        requests: requests served at once, waiting clients included.
        stop_grace_s: requests under way at a graceful stop may take this long to finish.
        metrics: as in `NodeConfig`.
    """

    host: Host = "127.0.0.1"
    port: Port = 0
    advertise: Annotated[list[Address], msgspec.Meta(max_length=ADDRESSES_MAX)] = []
    records: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 2000
    record_s: Annotated[int, msgspec.Meta(ge=60, le=366 * _DAY_S)] = 7 * _DAY_S
    requests: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    stop_grace_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 10
    metrics: Address = ""


class LogConfig(_Settings, frozen=True):
    """All of `log.toml`; `host`, `port` and `advertise` as in `NodeConfig`.

    Attributes:
        founders: members (`muni identity show`) who may found volumes here; empty for everybody.
        volumes: logs kept at most.
        restoring: take entries of long ago, while members send again what a lost service had.
        requests: requests served at once, waiting members included.
        stop_grace_s: requests under way at a graceful stop may take this long to finish.
        metrics: as in `NodeConfig`.
    """

    host: Host = "127.0.0.1"
    port: Port = 0
    advertise: Annotated[list[Address], msgspec.Meta(max_length=ADDRESSES_MAX)] = []
    founders: Annotated[list[IdText], msgspec.Meta(max_length=10_000)] = []
    volumes: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    restoring: bool = False
    requests: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    stop_grace_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 10
    metrics: Address = ""


_Config = TypeVar("_Config", NodeConfig, IntroducerConfig, LogConfig)
AnyConfig = NodeConfig | IntroducerConfig | LogConfig
_FILES: Final[dict[type[AnyConfig], str]] = {
    NodeConfig: NODE_FILE,
    IntroducerConfig: INTRODUCER_FILE,
    LogConfig: LOG_FILE,
}


def load_node_config(folder: Path) -> NodeConfig:
    """Read and check `node.toml`.  Raises: ConfigInvalid."""
    path = folder / NODE_FILE
    return check_node_config(_load(path, NodeConfig), path)


def load_introducer_config(folder: Path) -> IntroducerConfig:
    """Read and check `introducer.toml`.  Raises: ConfigInvalid."""
    path = folder / INTRODUCER_FILE
    config = _load(path, IntroducerConfig)
    _check_reachable(config, path)
    return config


def load_log_config(folder: Path) -> LogConfig:
    """Read and check `log.toml`.  Raises: ConfigInvalid."""
    path = folder / LOG_FILE
    return check_log_config(_load(path, LogConfig), path)


def check_log_config(config: LogConfig, path: Path) -> LogConfig:
    """What types cannot say.  Raises: ConfigInvalid."""
    _check_reachable(config, path)
    for index, text in enumerate(config.founders):
        _check(path, f"founders[{index}]", id_from_text, text)
    return config


def check_node_config(config: NodeConfig, path: Path) -> NodeConfig:
    """What types cannot say: addresses, account ids, and settings that contradict each other.

    Raises: ConfigInvalid.
    """
    _check_reachable(config, path)
    for index, text in enumerate(config.introducers):
        _check(path, f"introducers[{index}]", _introducer, text)
    seen: set[AccountId] = set()
    for index, invited in enumerate(config.policy.accounts):
        key = f"policy.accounts[{index}].account"
        account = AccountId(_check(path, key, id_from_text, invited.account))
        if account in seen:
            raise ConfigInvalid(where=f"{path}: {key}", reason="this account is listed twice")
        seen.add(account)
    if config.policy.mode == "invited" and config.policy.quota_bytes != -1:
        raise ConfigInvalid(
            where=f"{path}: policy.quota_bytes",
            reason="has no meaning in mode 'invited': give it per account",
        )
    return config


def init_folder(folder: Path, config: _Config, entropy: Callable[[int], bytes]) -> NodeId:
    """Make the folder of a new node, introducer or log service: its key (0600) and its configuration.

    The configuration file is written last, so a folder that has one is whole.  An interrupted attempt may be
    repeated in the same folder; any other folder that is not empty is refused.

    Returns: the identity made.
    Raises: ConfigInvalid: the folder is not empty, or the configuration is wrong; FolderBusy; DiskFull;
        StoreFailed.
    """
    name = _FILES[type(config)]
    config = _converted(msgspec.to_builtins(config), type(config), folder / name)
    match config:
        case NodeConfig():
            check_node_config(config, folder / name)
        case LogConfig():
            check_log_config(config, folder / name)
        case IntroducerConfig():
            _check_reachable(config, folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(where=str(folder), reason=error.strerror or str(error)) from error
    lock = FolderLock(folder)
    try:
        leftovers = {KEY_FILE, f"{KEY_FILE}.new", f"{name}.new"}
        if any(entry.name not in leftovers for entry in folder.iterdir()):
            raise ConfigInvalid(where=str(folder), reason="the folder is not empty")
        identity = make_identity(folder / KEY_FILE, entropy)
        write_whole(folder / name, _encode(config))
        flush(folder.parent)
    except OSError as error:
        raise failed(folder, error) from error
    finally:
        lock.close()
    return identity.node


def advertised(config: AnyConfig, port: int) -> tuple[str, ...]:
    """The addresses others use, once the port is known."""
    if config.advertise:
        return tuple(config.advertise)
    host = f"[{config.host}]" if ":" in config.host else config.host
    return (f"{host}:{port}",)


def _encode(config: AnyConfig) -> bytes:
    text = "# docs/node.md explains every key.  Times are in seconds, sizes in bytes, and -1 is no quota.\n"
    return (text + tomli_w.dumps(msgspec.to_builtins(config))).encode()


def _load(path: Path, kind: type[_Config]) -> _Config:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigInvalid(where=str(path), reason=f"missing; run 'muni {path.stem} init' first") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(where=str(path), reason=str(error)) from error
    return _converted(table, kind, path)


def _converted(table: object, kind: type[_Config], path: Path) -> _Config:
    """The settings a table holds, every bound checked.  Raises: ConfigInvalid: names the key."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at ")
        key = place.strip("`").removeprefix("$").removeprefix(".")
        raise ConfigInvalid(where=f"{path}: {key}" if key else str(path), reason=_plain(text)) from error


def _plain(text: str) -> str:
    """A validation message in an operator's words, without object and field names in backquotes."""
    for technical, plain in (
        (r"Object contains unknown field `(.*)`", r"unknown key '\1'"),
        (r"Object missing required field `(.*)`", r"the key '\1' is missing"),
    ):
        text = re.sub(technical, plain, text)
    return text.replace("`", "'")


def _check_reachable(config: AnyConfig, path: Path) -> None:
    for index, text in enumerate(config.advertise):
        _check(path, f"advertise[{index}]", _host_port, text)
    if config.host in ("0.0.0.0", "::") and not config.advertise:  # noqa: S104 - compared, not bound
        raise ConfigInvalid(where=f"{path}: advertise", reason=f"needed, since host is {config.host}")
    if config.metrics:
        _check(path, "metrics", _host_port, config.metrics)


def _introducer(text: str) -> PeerAddress:
    return parse_address(text, PeerKind.INTRODUCER)


def _host_port(text: str) -> PeerAddress:
    """Whether an address is one that people can pass on, seen in one of their kind."""
    return parse_address(str(PeerAddress(PeerKind.NODE, NodeId(bytes(ID_BYTES)), text)), PeerKind.NODE)


_Value = TypeVar("_Value")


def _check(path: Path, key: str, parse: Callable[[str], _Value], text: str) -> _Value:
    try:
        return parse(text)
    except MunimentError as error:
        raise ConfigInvalid(where=f"{path}: {key}", reason=str(error)) from error
