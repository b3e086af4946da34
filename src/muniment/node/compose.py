"""The composition root: the one place that picks drivers and wires processes together.

    init_node, run_node                a node in its folder
    init_introducer, run_introducer    an introducer in its folder
    init_log, run_log                  a log service in its folder
    open_grid, open_sync_grid          a client's grid

A process owns what it opens in this order and gives it back in the opposite one: lock of the folder, store,
ledger, threads, server, background tasks.  Graceful stop: leave the introducers, let running requests
finish, end the tasks, close.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import random
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from muniment.crypto.hashing import derive
from muniment.crypto.identity import Identity
from muniment.crypto.records import record_text
from muniment.durable_file import failed
from muniment.errors import ConfigInvalid, LocalError
from muniment.ids import NodeId, id_from_text
from muniment.net.introducer_client import HttpIntroducer
from muniment.net.server import HttpServer, free_port
from muniment.net.tls import server_files
from muniment.node import config as files
from muniment.node.admission import Admission
from muniment.node.announcer import Announcer, OwnRecord, Wait
from muniment.node.api import NodeApi
from muniment.node.books import Books
from muniment.node.clock import SystemClock
from muniment.node.config import (
    IntroducerConfig,
    LogConfig,
    NodeConfig,
    advertised,
    load_introducer_config,
    load_log_config,
    load_node_config,
)
from muniment.node.draining import follow, is_draining
from muniment.node.folder import FolderLock, read_identity
from muniment.node.gate import Gate
from muniment.node.home import CACHE_FOLDER, account_identity, chosen_roster, default_home, known_nodes_file
from muniment.node.housekeeping import Housekeeping
from muniment.node.introducer import IntroducerService, RosterFile
from muniment.node.introducer_api import IntroducerApi
from muniment.node.ledger import Ledger
from muniment.node.readings import introducer_readings, log_readings, node_readings
from muniment.node.service import NodeService
from muniment.ports import BlobCache, ShareStore
from muniment.spec.address import PeerAddress, PeerKind, parse_address
from muniment.spec.record import PROTOCOL_VERSION, NodeRecord
from muniment.spec.tags import ACCOUNT_CONVERGENCE
from muniment.stores.object import ObjectStore
from muniment.stores.posix import PosixStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muniment.engine.grid import Grid
    from muniment.engine.policy import Policy
    from muniment.engine.sync import SyncGrid
    from muniment.net.metrics import Metrics
    from muniment.net.reading import Reading

Ready = Callable[[PeerAddress], None]
"""Told once, when the process answers requests: the address to pass on."""

_ANSWER_BYTES_MAX: Final = 256 << 20
_WITHDRAW_S: Final = 2.0
_EXPIRE_S: Final = 5.0
_OPEN_FILES: Final = 16384
"""Wanted at least: every share of a put has a file open until its group is committed."""

_log = logging.getLogger(__name__)


def program_version() -> str:
    """The installed version of Muniment."""
    return importlib.metadata.version("muniment")


def run_process(main: Coroutine[object, object, None]) -> None:
    """Run a node's or introducer's main to its end, on uvloop."""
    uvloop.run(main)


# --- node -------------------------------------------------------------------------------------


def init_node(folder: Path, config: NodeConfig) -> NodeId:
    """Make a node's folder; the node is not started.

    Raises: ConfigInvalid: the folder is not empty or the configuration wrong; FolderBusy; DiskFull;
        StoreFailed.
    """
    return files.init_folder(folder, config, os.urandom)


async def run_node(
    folder: Path,
    *,
    ready: Ready | None = None,
    stop: asyncio.Event | None = None,
    service_type: type[NodeService] = NodeService,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then end gracefully.

    Args:
        service_type: what answers; tests and the demo run a node that lies.

    Raises: ConfigInvalid, FolderBusy, StoreFailed, DiskFull, UnknownVersion: it could not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        stopping = stop_signals(stack, stop)
        stack.callback(FolderLock(folder).close)
        config, identity = load_node_config(folder), read_identity(folder / files.KEY_FILE)
        _allow_open_files()
        clock = SystemClock()
        store = _open_store(folder, config)
        stack.callback(store.close)
        ledger = Ledger(folder / files.LEDGER_FILE)
        stack.callback(ledger.close)
        pool = ThreadPoolExecutor(config.limits.threads, thread_name_prefix="node")
        stack.callback(pool.shutdown)
        port = config.port or free_port(config.host)
        record = OwnRecord(identity, _node_record(config, identity, port), config.times.record_s, clock)
        admission = Admission(config.policy)
        books = Books(config, admission, ledger, clock)
        version = program_version()
        service = service_type(version, config.capacity_bytes, books, store, clock, record.text)
        metrics = await _metrics(stack, config, lambda: node_readings(service))
        api = NodeApi(
            service,
            Gate(identity.node, admission, clock),
            pool,
            version=version,
            request_s=config.times.request_s,
            answer_bytes_max=_ANSWER_BYTES_MAX,
        )
        certificate, key = _tls_files(folder, identity)
        server = HttpServer(
            api.router(),
            host=config.host,
            port=port,
            certificate=certificate,
            key=key,
            requests_max=config.limits.requests,
            meter=metrics,
        )
        wait = Wait()
        announcer = _announcer(stack, config, record, wait)

        def drain(draining: bool) -> None:
            if books.draining != draining:
                _log.info("node %s", "is drained from now on" if draining else "takes shares again")
                books.draining = draining
                record.set_draining(draining=draining)
                wait.end()

        drain(is_draining(folder))  # before the first answer
        housekeeping = Housekeeping(config, service, store, ledger, clock, pool)
        await _listen(server, stack, config.times.stop_grace_s)
        address = PeerAddress(PeerKind.NODE, identity.node, advertised(config, port)[0])
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(housekeeping.run()),
                tasks.create_task(announcer.run()),
                tasks.create_task(follow(folder, drain), name="draining"),
            ]
            _log.info("node %s serves", address)
            if ready is not None:
                ready(address)
            await stopping.wait()
            _log.info("node stops")
            for task in background:
                task.cancel()
        await announcer.withdraw(_WITHDRAW_S)


def _node_record(config: NodeConfig, identity: Identity, port: int) -> NodeRecord:
    return NodeRecord(
        node=identity.node,
        public_key=identity.public_key,
        addresses=advertised(config, port),
        zone=config.zone,
        capacity_bytes=config.capacity_bytes,
        price=config.price,
        protocols=(PROTOCOL_VERSION,),
        issued_s=0,
        expires_s=0,
    )


def _open_store(folder: Path, config: NodeConfig) -> ShareStore:
    if config.store == files.POSIX:
        return PosixStore(folder / files.STORE_FOLDER)
    spool = folder / files.SPOOL_FOLDER
    spool.mkdir(exist_ok=True)
    return ObjectStore(config.store, spool)


def _announcer(
    stack: contextlib.AsyncExitStack, config: NodeConfig, record: OwnRecord, wait: Wait
) -> Announcer:
    introducers = {
        text: HttpIntroducer(parse_address(text, PeerKind.INTRODUCER)) for text in config.introducers
    }
    for introducer in introducers.values():
        stack.push_async_callback(introducer.aclose)

    async def announce(address: str, signed: bytes) -> None:
        await introducers[address].announce(record_text(signed))

    return Announcer(
        record,
        config.introducers,
        config.times.record_s / 3,
        announce,
        chance=random.SystemRandom().random,
        sleep=wait.sleep,
    )


# --- introducer -------------------------------------------------------------------------------


def init_introducer(folder: Path, config: IntroducerConfig) -> NodeId:
    """Make an introducer's folder; it is not started.  Raises: as `init_node`."""
    return files.init_folder(folder, config, os.urandom)


async def run_introducer(
    folder: Path, *, ready: Ready | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then end gracefully.

    Raises: ConfigInvalid, FolderBusy, StoreFailed, DiskFull: it could not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        stopping = stop_signals(stack, stop)
        stack.callback(FolderLock(folder).close)
        config, identity = load_introducer_config(folder), read_identity(folder / files.KEY_FILE)
        _allow_open_files()
        service = IntroducerService(os.urandom(8).hex(), config.records, config.record_s, SystemClock())
        file = RosterFile(folder / files.ROSTER_FILE, service)
        file.load()
        metrics = await _metrics(stack, config, lambda: introducer_readings(service))
        port = config.port or free_port(config.host)
        certificate, key = _tls_files(folder, identity)
        server = HttpServer(
            IntroducerApi(service, file, version=program_version()).router(),
            host=config.host,
            port=port,
            certificate=certificate,
            key=key,
            requests_max=config.requests,
            meter=metrics,
        )
        await _listen(server, stack, config.stop_grace_s)
        stack.callback(service.release_waiting)  # runs before the server waits for its requests
        address = PeerAddress(PeerKind.INTRODUCER, identity.node, advertised(config, port)[0])
        async with asyncio.TaskGroup() as tasks:
            expiry = tasks.create_task(_expire_records(service, file))
            _log.info("introducer %s serves", address)
            if ready is not None:
                ready(address)
            await stopping.wait()
            _log.info("introducer stops")
            expiry.cancel()


# --- log service ------------------------------------------------------------------------------


def init_log(folder: Path, config: LogConfig) -> NodeId:
    """Make a log service's folder; it is not started.  Raises: as `init_node`."""
    return files.init_folder(folder, config, os.urandom)


async def run_log(folder: Path, *, ready: Ready | None = None, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then end gracefully.

    Raises: ConfigInvalid, FolderBusy, StoreFailed, DiskFull: it could not start.
    """
    from muniment.node.log_api import LogApi
    from muniment.node.log_host import LogHost

    async with contextlib.AsyncExitStack() as stack:
        stopping = stop_signals(stack, stop)
        stack.callback(FolderLock(folder).close)
        config, identity = load_log_config(folder), read_identity(folder / files.KEY_FILE)
        _allow_open_files()
        founders = {id_from_text(text) for text in config.founders}
        host = LogHost(
            folder / files.LOGS_FOLDER,
            identity,
            SystemClock(),
            may_found=lambda member: not founders or member in founders,
            volumes_max=config.volumes,
            restoring=config.restoring,
        )
        stack.push_async_callback(host.aclose)
        metrics = await _metrics(stack, config, lambda: log_readings(host.statistics()))
        port = config.port or free_port(config.host)
        certificate, key = _tls_files(folder, identity)
        server = HttpServer(
            LogApi(host, version=program_version()).router(),
            host=config.host,
            port=port,
            certificate=certificate,
            key=key,
            requests_max=config.requests,
            meter=metrics,
        )
        await _listen(server, stack, config.stop_grace_s)
        stack.callback(host.release_waiting)  # runs before the server waits for its requests
        address = PeerAddress(PeerKind.LOG, identity.node, advertised(config, port)[0])
        _log.info("log service %s serves", address)
        if ready is not None:
            ready(address)
        await stopping.wait()
        _log.info("log service stops")


async def _expire_records(service: IntroducerService, file: RosterFile) -> None:
    while True:
        await asyncio.sleep(_EXPIRE_S)
        if service.expire():
            await file.save()


# --- client -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_grid(
    home: Path | None = None,
    roster: str | None = None,
    policy: Policy | None = None,
    *,
    account: Identity | None = None,
    cache_bytes: int = 0,
) -> AsyncIterator[Grid]:
    """A client's grid with its account key, closed at the end.

    Args:
        home: the client's folder, made on first use; holds the account key (0600).  None for the user's own.
        roster: `mun:introducer:...` or the path of a roster file; None for the one that MUNIMENT_GRID names
            or the home has joined.
        policy: how files are stored; None for the defaults.
        account: whose leases it takes; None for the home's own.
        cache_bytes: blobs that were read are kept, still sealed, in `cache` in the home, which takes up so
            much at most; 0: neither kept nor looked for there.

    Raises: GridUnknown: none is joined; ConfigInvalid: the key or roster file; RosterEmpty: nobody knows any
        node.
    """
    grid, connector = _client(home, roster, policy, account, cache_bytes)
    try:
        async with grid:
            yield grid
    finally:
        connector.close()


@contextlib.contextmanager
def open_sync_grid(
    home: Path | None = None,
    roster: str | None = None,
    policy: Policy | None = None,
    *,
    cache_bytes: int = 0,
) -> Iterator[SyncGrid]:
    """As `open_grid`, for programs without an event loop."""
    from muniment.engine.sync import SyncGrid

    connectors: list[contextlib.ExitStack] = []

    def make() -> Grid:
        grid, connector = _client(home, roster, policy, None, cache_bytes)
        connectors.append(connector)
        return grid

    try:
        with SyncGrid(make, loop_factory=uvloop.new_event_loop) as grid:
            yield grid
    finally:
        for connector in connectors:
            connector.close()


def _client(
    home: Path | None,
    roster: str | None,
    policy: Policy | None,
    account: Identity | None,
    cache_bytes: int = 0,
) -> tuple[Grid, contextlib.ExitStack]:
    """A grid that is not started, and what must be closed after it."""
    # A node process must not load the engine (NumPy, the erasure kernels): it has 80 MB.
    from muniment.discovery.introducer import IntroducerRoster
    from muniment.discovery.roster_file import FileRoster
    from muniment.engine.grid import Grid
    from muniment.net.http_client import HttpConnector
    from muniment.node.beside import Beside

    home = home or default_home()
    where = roster or chosen_roster(home)
    identity, clock = account or account_identity(home), SystemClock()
    connector = HttpConnector(identity, clock)

    async def resolve(address: PeerAddress) -> str:
        node = connector(NodeRecord(address.node, b"", (address.host_port,), "", 0, 0, (), 0, 0))
        try:
            return (await node.info()).record
        finally:
            await node.aclose()

    source: FileRoster | IntroducerRoster
    if where.startswith("mun:"):
        address = parse_address(where, PeerKind.INTRODUCER)
        cache, chance = known_nodes_file(home, address.node), random.SystemRandom().random
        source = IntroducerRoster(where, HttpIntroducer(address), resolve, clock, cache=cache, chance=chance)
    else:
        source = FileRoster(Path(where), resolve, clock)
    secret = derive(ACCOUNT_CONVERGENCE, identity.seed)
    with contextlib.ExitStack() as stack:
        stack.callback(connector.close)
        if account is not None:  # a keeper's: others may keep the same volume elsewhere
            return Grid(source, connector, clock, secret, policy, alone=_never_alone), stack.pop_all()
        beside = stack.enter_context(contextlib.closing(Beside(home)))
        blobs = _cache(home, cache_bytes, stack) if cache_bytes else None
        grid = Grid(source, connector, clock, secret, policy, cache=blobs, alone=beside.alone)
        return grid, stack.pop_all()


def _cache(home: Path, cache_bytes: int, stack: contextlib.ExitStack) -> BlobCache | None:
    """The home's cache of blobs; None, and a line in the log, where its disk has no place for one."""
    from muniment.caches.folder import FolderBlobCache

    try:
        return stack.enter_context(contextlib.closing(FolderBlobCache(home / CACHE_FOLDER, cache_bytes)))
    except LocalError as error:
        _log.warning("there is no cache on disk: %s", error)
        return None


def _never_alone() -> contextlib.AbstractContextManager[bool]:
    return contextlib.nullcontext(False)


# --- processes --------------------------------------------------------------------------------


async def _listen(server: HttpServer, stack: contextlib.AsyncExitStack, grace_s: float) -> None:
    try:
        await server.start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigInvalid(where=f"host and port ({server.address})", reason=reason) from error
    stack.push_async_callback(server.stop, grace_s)


async def _metrics(
    stack: contextlib.AsyncExitStack, config: files.AnyConfig, readings: Callable[[], Iterable[Reading]]
) -> Metrics | None:
    """What counts the requests, and tells that and these readings where the operator wants it.

    Else None, and the library is not even imported.
    """
    return await serve_metrics(stack, config.metrics, readings) if config.metrics else None


async def serve_metrics(
    stack: contextlib.AsyncExitStack, address: str, readings: Callable[[], Iterable[Reading]]
) -> Metrics:
    """Tell these readings at an address until the stack is closed.  Raises: ConfigInvalid: it cannot be."""
    from muniment.net.metrics import Metrics
    from muniment.net.metrics_server import MetricsServer

    metrics = Metrics(program_version())
    metrics.read(readings)
    server = MetricsServer(address, metrics.text)
    try:
        await server.start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigInvalid(where=f"metrics ({address})", reason=reason) from error
    stack.push_async_callback(server.aclose)
    return metrics


def _tls_files(folder: Path, identity: Identity) -> tuple[Path, Path]:
    tls = folder / files.TLS_FOLDER
    try:
        tls.mkdir(mode=0o700, exist_ok=True)
        return server_files(identity, tls)
    except OSError as error:
        raise failed(tls, error) from error


def stop_signals(stack: contextlib.AsyncExitStack, stop: asyncio.Event | None) -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process the hard way."""
    stopping = stop or asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        stopping.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
        stack.callback(loop.remove_signal_handler, number)
    return stopping


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
