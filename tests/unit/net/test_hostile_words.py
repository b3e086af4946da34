"""Words of the other side, and secrets of ours, that no parser and no log may stumble over."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import msgspec
import pytest

from muniment.crypto.identity import Identity
from muniment.errors import BodyTooLarge, PinMismatch
from muniment.ids import NodeId
from muniment.net.account_tokens import AccountToken
from muniment.net.channel import Exchange
from muniment.net.http import Request
from muniment.net.tls import check_pin
from muniment.spec.wire import NodeStatus, RosterAnswer
from muniment.testing.virtual_time import StepClock

ACCOUNT, NODE = Identity(bytes(32)), Identity(bytes(range(32)))


class NoBody:
    """A request body that is never read."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError

    def __call__(self) -> Awaitable[bytes]:
        raise AssertionError


@dataclass
class Sent:
    """Headers that would print themselves."""

    headers: dict[str, str]

    def get(self, key: str, default: str | None = None) -> str | None:
        return self.headers.get(key, default)


def request(**headers: str) -> Request:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("PUT", "/x", {}, Sent(sent), {}, NoBody(), 1000)


@pytest.mark.parametrize("length", ["0" * 5000 + "3", "9" * 5000, "1001", "-1", "x", "٣"])
async def test_a_length_that_is_no_length_is_refused_unread(length: str) -> None:
    with pytest.raises(BodyTooLarge):
        [_ async for _ in request(content_length=length).pieces()]


@pytest.mark.parametrize("date", [None, "", "x", "Mon, 01 Jan 99999999999 00:00:00 GMT"])
def test_a_date_that_is_none_corrects_no_token(date: str | None) -> None:
    assert AccountToken(ACCOUNT, NODE.node, StepClock()).correct(date) is False


def test_a_token_is_not_printed_with_the_request_that_carries_it() -> None:
    token = AccountToken(ACCOUNT, NODE.node, StepClock())
    secret = token.header()["Authorization"].removeprefix("Bearer ")
    for thing in (token, Exchange("GET", "/x", headers=token.header()), request(authorization=secret)):
        assert secret not in repr(thing)


@pytest.mark.parametrize("presented", [None, b"", b"no certificate"])
def test_a_certificate_that_cannot_be_read_is_not_the_nodes(presented: bytes | None) -> None:
    class Connection(ssl.SSLSocket):
        def __init__(self) -> None: ...

        def __del__(self) -> None: ...

        def getpeercert(self, binary_form: bool = False) -> bytes | None:  # type: ignore[override]
            return presented

    with pytest.raises(PinMismatch) as caught:
        check_pin(Connection(), NODE.node, "127.0.0.1:1")
    assert caught.value.got == NodeId(bytes(32))


@pytest.mark.parametrize("epoch", ["a" * 65, "ü", "a b", "a\r\nx: y", "a&version=0"])
def test_an_epoch_is_something_that_can_be_asked_with(epoch: str) -> None:
    body = msgspec.json.encode({"epoch": epoch, "version": 0, "full": True, "records": []})
    with pytest.raises(msgspec.ValidationError, match="epoch"):
        msgspec.json.decode(body, type=RosterAnswer)


def test_a_version_of_a_program_is_a_word() -> None:
    status = NodeStatus("", "x" * 65, 0, 0, 0, 0, 0, 0, reconciled=True)
    with pytest.raises(msgspec.ValidationError, match="version"):
        msgspec.json.decode(msgspec.json.encode(status), type=NodeStatus)
