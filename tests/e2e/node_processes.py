"""Nodes and introducers as processes of their own, and a plain HTTPS client to poke at them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tests.e2e.muni_command import PATIENCE_S, ROOT
from tests.e2e.nursery import Child

from muniment.crypto.identity import Identity
from muniment.crypto.tokens import issue_token
from muniment.ids import NodeId
from muniment.net.server import free_port
from muniment.net.tls import client_context
from muniment.node.compose import init_introducer, init_node
from muniment.node.config import IntroducerConfig, NodeConfig
from muniment.spec import wire
from muniment.spec.address import PeerAddress, parse_address
from muniment.testing.sample_blob import SampleBlob

ACCOUNT = Identity.from_seed(b"a" * 32)
_RUN = "import sys; from tests.e2e.nursery import run_composed; run_composed(*sys.argv[1:])"


@dataclass
class Running:
    """One process and where it listens."""

    process: Child | subprocess.Popen[str]
    address: PeerAddress

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


def start(what: str, folder: Path) -> subprocess.Popen[str]:
    """Run what is in a folder in a process that is started as every other, not forked."""
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, what, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def running(what: str, folder: Path) -> Iterator[Running]:
    """Run what is in a folder; whatever the test leaves is killed."""
    nothing, (out, its_out), (err, its_err) = os.open(os.devnull, os.O_RDONLY), os.pipe(), os.pipe()
    with (
        os.fdopen(out) as told,
        os.fdopen(err) as errors,
        Child(["compose", what, str(folder)], os.environ, ROOT, (nothing, its_out, its_err)) as process,
    ):
        line = told.readline().strip()
        assert line, errors.read()
        yield Running(process, parse_address(line))


def running_node(
    folder: Path, config: NodeConfig | None = None
) -> contextlib.AbstractContextManager[Running]:
    if not folder.exists():
        init_node(folder, config or NodeConfig(capacity_bytes=100 << 20))
    return running("run_node", folder)


def running_introducer(folder: Path) -> contextlib.AbstractContextManager[Running]:
    """Run the introducer in a folder, which is made if need be; it keeps its port over restarts."""
    if not folder.exists():
        init_introducer(folder, IntroducerConfig(port=free_port("127.0.0.1")))
    return running("run_introducer", folder)


class Plain:
    """One connection of `http.client`, which does as it is told."""

    def __init__(self, address: PeerAddress, account: Identity = ACCOUNT) -> None:
        self.node, self.account = address.node, account
        host, _, port = address.host_port.rpartition(":")
        self.connection = http.client.HTTPSConnection(host, int(port), context=client_context(), timeout=30)

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def headers(self, *, at_s: float = 0.0, node: NodeId | None = None) -> dict[str, str]:
        token = issue_token(self.account, node or self.node, now_s=time.time() + at_s)
        return {"Authorization": f"Bearer {token}"}

    def ask(
        self, method: str, path: str, body: msgspec.Struct | bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """One request with a good token; its status and body."""
        if isinstance(body, msgspec.Struct):
            body = msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, {**self.headers(), **named})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def reserve(self, blob: SampleBlob, *numbers: int) -> list[str]:
        claims = [wire.Claim(str(blob.key(n)).split(".")[0], n, len(blob.records[n])) for n in numbers]
        return self._outcomes(*self.ask("POST", "/v1/reserve", wire.ReserveRequest(claims)))

    def put(self, blob: SampleBlob, *numbers: int) -> list[str]:
        body = b"".join(blob.name.blob + blob.records[n] for n in numbers)
        return self._outcomes(*self.ask("PUT", "/v1/shares", body, Muniment_Shares=str(len(numbers))))

    def get(self, blob: SampleBlob, number: int) -> tuple[int, bytes]:
        return self.ask("GET", share_path(blob, number))

    def usage(self) -> wire.AccountUsage:
        status, body = self.ask("GET", "/v1/usage")
        assert status == 200, body
        return msgspec.json.decode(body, type=wire.AccountUsage)

    def begin_put(self, blob: SampleBlob, number: int, send: int) -> bytes:
        """Send the head of a put and the first `send` bytes of its body; returns the rest."""
        body = blob.name.blob + blob.records[number]
        self.connection.putrequest("PUT", "/v1/shares")
        for name, value in {
            **self.headers(),
            "Muniment-Shares": "1",
            "Content-Length": str(len(body)),
        }.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        self.connection.send(body[:send])
        return body[send:]

    @staticmethod
    def _outcomes(status: int, body: bytes) -> list[str]:
        assert status == 200, body
        return [outcome.result for outcome in msgspec.json.decode(body, type=wire.Outcomes).outcomes]


def share_path(blob: SampleBlob, number: int) -> str:
    return "/v1/shares/" + str(blob.key(number)).replace(".", "/")


def problem(answer: tuple[int, bytes]) -> tuple[int, str]:
    """Status and code of an error answer."""
    status, body = answer
    return status, msgspec.json.decode(body, type=wire.Problem).code


def eventually(holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait until something is so; processes need their time."""
    until_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until_s, "it never came true"
        time.sleep(0.01)


async def in_time(holds: Callable[[], Awaitable[bool]]) -> None:
    """As `eventually`, while the tasks of this process go on."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - a node sets no event of ours
            await asyncio.sleep(0.01)
