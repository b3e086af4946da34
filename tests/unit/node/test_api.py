"""Handlers without a network: parsing, tokens, and that the description tells all of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.node.support import ALICE, Bench, framed, identity, make_bench, make_blob, node_record

from muniment.crypto.records import record_text, sign_record
from muniment.crypto.tokens import issue_token
from muniment.errors import (
    AccountRefused,
    BodyTooLarge,
    CapacityFull,
    ClockSkewed,
    DiskFull,
    InternalError,
    InvalidRequest,
    Overloaded,
    QuotaFull,
    RangeOutOfBounds,
    ReservationMissing,
    ShareUnknown,
    TokenRejected,
)
from muniment.ids import BlobId, ShareKey, ShareNumber, id_text
from muniment.net.http import Request, Response
from muniment.net.problem import PEER_LEAVES, STATUS, status_of
from muniment.node.admission import Admission
from muniment.node.api import NodeApi
from muniment.node.budget import Budget
from muniment.node.calls import CALLS
from muniment.node.config import InvitedAccount, Policy
from muniment.node.gate import Gate
from muniment.node.introducer import IntroducerService, RosterFile
from muniment.node.introducer_api import CALLS as INTRODUCER_CALLS
from muniment.node.introducer_api import IntroducerApi
from muniment.node.openapi import EVERY_CALL
from muniment.ports import ShareWriter, StoredShare
from muniment.spec import wire
from muniment.spec.limits import CHALLENGES_MAX, PUT_BODY_BYTES_MAX, TOKEN_SKEW_S_MAX

NODE, ACCOUNT = identity(1), identity(2)


class Pieces:
    """A request body in pieces; may break off with an error."""

    def __init__(self, pieces: Sequence[bytes], then: BaseException | None = None) -> None:
        self._pieces, self._then = pieces, then

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._then is not None:
            raise self._then

    async def __call__(self) -> bytes:
        return b"".join([piece async for piece in self])


class Sent:
    """Headers of a request."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def get(self, key: str, default: str | None = None) -> str | None:
        return self._headers.get(key, default)


class Client:
    """Calls handlers as the server does."""

    def __init__(self, bench: Bench, pool: Executor, policy: Policy | None = None) -> None:
        self.bench = bench
        gate = Gate(NODE.node, Admission(policy or Policy()), bench.clock)
        self.api = NodeApi(bench.service, gate, pool, version="0", request_s=60, answer_bytes_max=1 << 30)
        self.router = self.api.router()

    def token(self, *, at_s: float = 0.0, life_s: int = 300, node: bytes | None = None) -> str:
        now_s = self.bench.clock.now_s() + at_s
        return issue_token(ACCOUNT, node or NODE.node, now_s=now_s, lifetime_s=life_s)  # type: ignore[arg-type]

    async def call(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | bytes | Pieces = b"",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Response:
        found = self.router.find(method, path)
        assert not isinstance(found, int)
        route, params = found
        if isinstance(body, msgspec.Struct):
            body = msgspec.json.encode(body)
        pieces = Pieces([body]) if isinstance(body, bytes) else body
        sent = {"authorization": f"Bearer {token or self.token()}", **(headers or {})}
        request = Request(method, path, query or {}, Sent(sent), params, pieces, route.body_bytes_max)
        return await route.handler(request)

    async def json(self, kind: type[Any], *args: Any, **named: Any) -> Any:
        return msgspec.json.decode((await self.call(*args, **named)).body, type=kind)


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def client(tmp_path: Path, pool: Executor) -> Iterator[Client]:
    bench = make_bench(tmp_path, capacity_bytes=50_000_000)
    yield Client(bench, pool)
    bench.ledger.close()


def names(*keys: Any) -> wire.ShareNames:
    return wire.ShareNames([wire.ShareName(id_text(key.blob), key.number) for key in keys])


async def store(client: Client, blob: Any, *numbers: int) -> None:
    claims = [wire.Claim(id_text(blob.name.blob), n, len(blob.records[n])) for n in numbers]
    await client.json(wire.Outcomes, "POST", "/v1/reserve", wire.ReserveRequest(claims))
    answer = await client.json(
        wire.Outcomes,
        "PUT",
        "/v1/shares",
        framed(blob, *numbers),
        headers={"muniment-shares": str(len(numbers))},
    )
    assert [outcome.result for outcome in answer.outcomes] == ["held"] * len(numbers)


# --- shares -----------------------------------------------------------------------------------


async def test_shares_go_in_and_come_out(client: Client) -> None:
    blob = make_blob()
    await store(client, blob, 0, 2)
    whole = await client.call("GET", f"/v1/shares/{id_text(blob.name.blob)}/2")
    assert (whole.status, whole.body) == (200, blob.records[2])
    read = await client.call("POST", "/v1/shares/read", names(blob.key(2), blob.key(1), blob.key(0)))
    size = len(blob.records[0]).to_bytes(4, "big")
    assert read.body == size + blob.records[2] + b"\xff\xff\xff\xff" + size + blob.records[0]
    have = await client.json(
        wire.HaveAnswer, "POST", "/v1/have", wire.HaveRequest([id_text(blob.name.blob), id_text(ALICE)])
    )
    assert have.numbers == [[0, 2], []]


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=100-", 100, None), ("bytes=-7", -7, None),
     ("bytes=5-99999999", 5, None)],
)  # fmt: skip
async def test_a_range_is_answered_with_its_place(
    client: Client, header: str, start: int, stop: int | None
) -> None:
    blob = make_blob()
    await store(client, blob, 0)
    path, record = f"/v1/shares/{id_text(blob.name.blob)}/0", blob.records[0]
    answer = await client.call("GET", path, headers={"range": header})
    assert (answer.status, answer.body) == (206, record[start:stop])
    first = start % len(record)
    last = first + len(answer.body) - 1
    assert answer.headers == (("content-range", f"bytes {first}-{last}/{len(record)}"),)


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=a-b", "nonsense"])
async def test_a_range_the_node_does_not_know_gets_the_whole_share(client: Client, header: str) -> None:
    blob = make_blob()
    await store(client, blob, 0)
    answer = await client.call("GET", f"/v1/shares/{id_text(blob.name.blob)}/0", headers={"range": header})
    assert (answer.status, answer.body) == (200, blob.records[0])


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=5-4"])
async def test_a_range_outside_the_share_is_refused(client: Client, header: str) -> None:
    blob = make_blob()
    await store(client, blob, 0)
    with pytest.raises(RangeOutOfBounds):
        await client.call("GET", f"/v1/shares/{id_text(blob.name.blob)}/0", headers={"range": header})


async def test_a_read_that_would_be_too_large_is_refused(client: Client) -> None:
    blob = make_blob(length=3_000_000, k=1, n=3)
    await store(client, blob, 0, 1, 2)
    assert len((await client.call("POST", "/v1/shares/read", names(blob.key(0), blob.key(1)))).body) > 6e6
    with pytest.raises(InvalidRequest, match="8388608"):
        await client.call("POST", "/v1/shares/read", names(*(blob.key(n) for n in range(3))))


async def test_a_large_put_is_fed_on_the_way_and_never_held_whole(client: Client) -> None:
    blob = make_blob(length=6_000_000, k=1, n=1)
    claim = wire.Claim(id_text(blob.name.blob), 0, len(blob.records[0]))
    await client.call("POST", "/v1/reserve", wire.ReserveRequest([claim]))
    body, fed = framed(blob, 0), spy_on_feeds(client.bench)
    pieces = Pieces([body[at : at + 100_000] for at in range(0, len(body), 100_000)])
    await client.call("PUT", "/v1/shares", pieces, headers={"muniment-shares": "1"})
    assert sum(map(sum, fed)) == len(body)
    assert max(map(sum, fed)) < 1_500_000


async def test_a_client_that_vanishes_leaves_nothing_reserved(client: Client) -> None:
    blob = make_blob()
    claim = wire.Claim(id_text(blob.name.blob), 0, len(blob.records[0]))
    await client.call("POST", "/v1/reserve", wire.ReserveRequest([claim]))
    with pytest.raises(ConnectionResetError):
        await client.call(
            "PUT",
            "/v1/shares",
            Pieces([framed(blob, 0)[:1000]], ConnectionResetError()),
            headers={"muniment-shares": "1"},
        )
    with pytest.raises(asyncio.CancelledError):
        await client.call(
            "PUT",
            "/v1/shares",
            Pieces([framed(blob, 0)[:60]], asyncio.CancelledError()),
            headers={"muniment-shares": "1"},
        )
    # It was not yet looked at when it broke off, so its reservation waits for the next attempt.
    assert client.bench.sums()[0] == 0
    await client.call("POST", "/v1/release", names(blob.key(0)))
    assert client.bench.sums() == (0, 0, 0)


def spy_on_feeds(bench: Bench) -> list[list[int]]:
    """The sizes of the pieces in each feed from now on."""
    fed: list[list[int]] = []
    begin = bench.service.begin_put

    def spying(account: Any, count: int, *, reserving: bool = False) -> Any:
        receiver = begin(account, count, reserving=reserving)
        feed = receiver.feed

        def noted(pieces: Sequence[bytes | memoryview]) -> None:
            fed.append([len(piece) for piece in pieces])
            feed(pieces)

        receiver.feed = noted  # type: ignore[method-assign]
        return receiver

    bench.service.begin_put = spying  # type: ignore[method-assign]
    return fed


async def reserve(client: Client, blob: Any, *numbers: int) -> None:
    claims = [wire.Claim(id_text(blob.name.blob), n, len(blob.records[n])) for n in numbers]
    await client.call("POST", "/v1/reserve", wire.ReserveRequest(claims))


def named(blob: Any, *numbers: int) -> dict[str, str]:
    """The headers of a put that names its shares."""
    texts = [str(blob.key(number)) for number in numbers]
    size = str(len(framed(blob, *numbers)))
    return {"muniment-shares": str(len(texts)), "muniment-names": ",".join(texts), "content-length": size}


async def test_a_small_put_that_names_its_shares_is_taken_whole(client: Client) -> None:
    blob = make_blob(length=600_000)
    await reserve(client, blob, 0, 1)
    body, fed = framed(blob, 0, 1), spy_on_feeds(client.bench)
    pieces = Pieces([body[at : at + 10_000] for at in range(0, len(body), 10_000)])
    answer = await client.json(wire.Outcomes, "PUT", "/v1/shares", pieces, headers=named(blob, 0, 1))
    assert [outcome.result for outcome in answer.outcomes] == ["held", "held"]
    assert fed == [[len(body)]]


@pytest.mark.parametrize("end", [ConnectionResetError(), asyncio.CancelledError()])
async def test_what_a_put_named_is_released_when_it_breaks_off(
    client: Client, pool: Executor, end: BaseException
) -> None:
    blob = make_blob()
    await reserve(client, blob, 0, 1, 2)
    pieces = Pieces([framed(blob, 0, 1)[:1000]], end)
    with pytest.raises(type(end)):
        await client.call("PUT", "/v1/shares", pieces, headers=named(blob, 0, 1))
    pool.shutdown()  # waits for what was begun
    assert client.bench.sums() == (0, len(blob.records[2]), 0)


async def test_puts_are_taken_in_pieces_while_others_take_the_memory(client: Client) -> None:
    blob = make_blob(length=3_000_000, k=1, n=12)
    numbers = range(12)
    await reserve(client, blob, *numbers)
    fed, gate = spy_on_feeds(client.bench), asyncio.Event()

    class Slow(Pieces):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await gate.wait()
            async for piece in super().__aiter__():
                yield piece

    def halves(number: int) -> Slow:
        body = framed(blob, number)
        return Slow([body[:1_000_000], body[1_000_000:]])

    puts = [
        asyncio.create_task(client.call("PUT", "/v1/shares", halves(n), headers=named(blob, n)))
        for n in numbers
    ]
    await asyncio.sleep(0)
    gate.set()
    answers = [msgspec.json.decode((await put).body, type=wire.Outcomes) for put in puts]
    assert [answer.outcomes[0].result for answer in answers] == ["held"] * 12
    size = len(framed(blob, 0))
    whole = (32 << 20) // size
    fed = [sizes for sizes in fed if sizes]
    assert sorted(sum(sizes) for sizes in fed) == [size] * 12
    assert sorted(len(sizes) for sizes in fed) == [1] * whole + [2] * (12 - whole)


@pytest.mark.parametrize(
    "text", ["", "x", "a.0", "a" * 52 + ".256", "a" * 52, ",".join(["a" * 52 + ".0"] * 17)]
)
async def test_names_that_are_none_are_refused(client: Client, text: str) -> None:
    headers = {"muniment-shares": "1", "muniment-names": text, "content-length": "100"}
    with pytest.raises(InvalidRequest, match="Muniment-Names"):
        await client.call("PUT", "/v1/shares", bytes(100), headers=headers)
    assert client.bench.sums() == (0, 0, 0)


async def test_a_put_that_outlives_the_node_ends_with_its_own_error(client: Client, pool: Executor) -> None:
    pool.shutdown()
    with pytest.raises(ConnectionResetError):
        await client.call(
            "PUT", "/v1/shares", Pieces([], ConnectionResetError()), headers={"muniment-shares": "1"}
        )


async def test_a_body_over_its_limit_is_refused(client: Client) -> None:
    with pytest.raises(BodyTooLarge):
        await client.call("POST", "/v1/have", b"x" * ((1 << 20) + 1))
    with pytest.raises(BodyTooLarge):
        await client.call(
            "PUT",
            "/v1/shares",
            headers={"muniment-shares": "1", "content-length": str(PUT_BODY_BYTES_MAX + 1)},
        )


@pytest.mark.parametrize("count", ["", "-1", "1025", "x", "1.5"])
async def test_a_put_says_how_many_shares_it_has(client: Client, count: str) -> None:
    with pytest.raises(InvalidRequest, match="Muniment-Shares"):
        await client.call("PUT", "/v1/shares", headers={"muniment-shares": count})


async def test_refusals_carry_the_whole_problem(client: Client) -> None:
    blob = make_blob()
    answer = await client.json(
        wire.Outcomes, "PUT", "/v1/shares", framed(blob, 0), headers={"muniment-shares": "1"}
    )
    (outcome,) = answer.outcomes
    assert outcome.result == "refused"
    assert outcome.problem.code == ReservationMissing.code
    assert outcome.problem.facts["share"] == 0


async def test_a_disk_that_is_full_is_told_without_its_path(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def full(key: ShareKey, size_bytes: int) -> ShareWriter:
        raise DiskFull(where="/srv/disk7")

    blob = make_blob()
    claims = [wire.Claim(id_text(blob.name.blob), n, len(blob.records[n])) for n in (0, 1)]
    await client.call("POST", "/v1/reserve", wire.ReserveRequest(claims))
    client.bench.store.create = full  # type: ignore[method-assign]
    answer = await client.call("PUT", "/v1/shares", framed(blob, 0, 1), headers={"muniment-shares": "2"})
    outcomes = msgspec.json.decode(answer.body, type=wire.Outcomes).outcomes
    assert [outcome.problem and outcome.problem.code for outcome in outcomes] == [DiskFull.code] * 2
    assert b"disk7" not in answer.body
    assert [record.getMessage().count("/srv/disk7") for record in caplog.records] == [1]


async def test_leaves_and_proofs_are_the_same_message(client: Client) -> None:
    blob = make_blob(length=100_000)
    await store(client, blob, 1)
    path = f"/v1/shares/{id_text(blob.name.blob)}/1/leaves"
    leaves = await client.json(wire.ProveAnswer, "GET", path, query={"first": "1", "count": "2"})
    challenges = [wire.Challenge(id_text(blob.name.blob), 1, leaf) for leaf in (1, 2, 9)]
    proven = await client.json(wire.ProveAnswer, "POST", "/v1/prove", wire.ProveRequest(challenges))
    assert proven.proofs == [*leaves.proofs, wire.Proof()]
    with pytest.raises(ShareUnknown):
        await client.call("GET", f"/v1/shares/{id_text(blob.name.blob)}/0/leaves")


async def test_more_challenges_than_an_answer_has_room_for_are_refused(client: Client) -> None:
    challenge = wire.Challenge(id_text(ALICE), 0, 0)
    most = wire.ProveRequest([challenge] * CHALLENGES_MAX)
    answer = await client.json(wire.ProveAnswer, "POST", "/v1/prove", most)
    assert answer.proofs == [wire.Proof()] * CHALLENGES_MAX
    with pytest.raises(InvalidRequest, match=str(CHALLENGES_MAX)):
        await client.call("POST", "/v1/prove", wire.ProveRequest([challenge] * (CHALLENGES_MAX + 1)))


async def test_an_accounts_own_view(client: Client) -> None:
    blob = make_blob()
    await store(client, blob, 0, 1, 2)
    key = f"{id_text(blob.name.blob)}.0"
    page = await client.json(wire.ShareList, "GET", "/v1/shares", query={"after": key, "limit": "1"})
    assert [row.number for row in page.shares] == [1]
    usage = await client.json(wire.AccountUsage, "GET", "/v1/usage")
    assert usage.share_count == 3
    lease = wire.LeaseRequest(names(blob.key(0)).shares, 10**8)
    assert (await client.json(wire.Flags, "POST", "/v1/lease", lease)).done == [True]
    assert (await client.json(wire.Flags, "POST", "/v1/trash", names(blob.key(0)))).done == [True]
    assert (await client.json(wire.QuarantineList, "GET", "/v1/quarantine")).shares == []
    info = await client.json(wire.NodeStatus, "GET", "/v1/info")
    assert (info.record, info.share_count) == ("record", 3)


async def test_all_that_is_damaged_is_listed_page_by_page(client: Client) -> None:
    blob = make_blob()
    keys = sorted(ShareKey(BlobId(bytes([at]) * 32), ShareNumber(n)) for at in range(5) for n in range(201))
    client.bench.ledger.store(
        ACCOUNT.account, [StoredShare(key, len(blob.records[0])) for key in keys], expires_s=9, now_s=1
    )
    client.bench.ledger.lose(keys, reason="missing from the store", now_s=2)
    listed, query = list[str](), dict[str, str]()
    while page := (await client.json(wire.QuarantineList, "GET", "/v1/quarantine", query=query)).shares:
        assert len(page) == min(1000, len(keys) - len(listed))
        listed += [f"{row.blob}.{row.number}" for row in page]
        query = {"after": listed[-1]}
    assert listed == [str(key) for key in keys]
    page = await client.json(wire.QuarantineList, "GET", "/v1/quarantine", query={"limit": "2"})
    assert [row.number for row in page.shares] == [0, 1]


@pytest.mark.parametrize("path", ["/v1/shares", "/v1/quarantine"])
@pytest.mark.parametrize(
    ("query", "name"),
    [({"after": "x"}, "after"), ({"after": "a" * 52 + ".256"}, "after"), ({"limit": "0"}, "limit"),
     ({"limit": "many"}, "limit")],
)  # fmt: skip
async def test_a_query_that_does_not_fit_is_named(
    client: Client, path: str, query: dict[str, str], name: str
) -> None:
    with pytest.raises(InvalidRequest, match=name):
        await client.call("GET", path, query=query)


@pytest.mark.parametrize("path", ["/v1/shares/x/0", f"/v1/shares/{'a' * 52}/x", f"/v1/shares/{'a' * 52}/256"])
async def test_a_path_that_names_no_share_is_refused(client: Client, path: str) -> None:
    with pytest.raises(InvalidRequest):
        await client.call("GET", path)


# --- tokens -----------------------------------------------------------------------------------

GUARDED = [call for call in CALLS if not call.unguarded]


@pytest.mark.parametrize("call", GUARDED, ids=[call.name for call in GUARDED])
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer not.a.token"])
async def test_every_guarded_call_asks_for_a_token_first(client: Client, call: Any, header: str) -> None:
    path = call.path.replace("{blob}", "a" * 52).replace("{number}", "0")
    with pytest.raises(TokenRejected):
        await client.call(call.method, path, headers={"authorization": header})


async def test_a_token_for_another_node_is_refused(client: Client) -> None:
    with pytest.raises(TokenRejected, match="another node"):
        await client.call("GET", "/v1/usage", token=client.token(node=identity(9).node))


async def test_a_token_ends_even_when_it_was_seen_before(client: Client) -> None:
    token = client.token(life_s=60)
    await client.call("GET", "/v1/usage", token=token)
    client.bench.clock.advance(59)
    await client.call("GET", "/v1/usage", token=token)
    client.bench.clock.advance(1)
    with pytest.raises(TokenRejected, match="expired"):
        await client.call("GET", "/v1/usage", token=token)


async def test_a_clock_that_is_off_is_said_to_be(client: Client) -> None:
    for at_s in (TOKEN_SKEW_S_MAX + 5, -300 - TOKEN_SKEW_S_MAX - 5):
        with pytest.raises(ClockSkewed):
            await client.call("GET", "/v1/usage", token=client.token(at_s=at_s))


async def test_accounts_that_are_not_invited_are_refused(tmp_path: Path, pool: Executor) -> None:
    bench = make_bench(tmp_path)
    invited = Policy(mode="invited", accounts=[InvitedAccount(account=id_text(ALICE))])
    with pytest.raises(AccountRefused):
        await Client(bench, pool, invited).call("GET", "/v1/usage")
    welcome = Policy(mode="invited", accounts=[InvitedAccount(account=id_text(ACCOUNT.account))])
    assert (await Client(bench, pool, welcome).call("GET", "/v1/usage")).status == 200
    bench.ledger.close()


async def test_verified_tokens_are_kept_but_not_without_end(client: Client) -> None:
    gate = Gate(NODE.node, Admission(Policy()), client.bench.clock, tokens_kept=3)
    for at_s in range(6):
        token = client.token(at_s=-at_s)
        request = Request("GET", "/", {}, Sent({"authorization": f"Bearer {token}"}), {}, Pieces([]), 0)
        assert gate.account(request) == gate.account(request) == ACCOUNT.account
    assert len(gate._verified) == 3


# --- budget -----------------------------------------------------------------------------------


def test_a_budget_is_shared_and_given_back() -> None:
    budget = Budget(100)
    with budget.spend(60):
        with pytest.raises(Overloaded), budget.spend(41):
            pass
        with budget.spend(40):
            pass
    with contextlib.ExitStack() as alone:
        alone.enter_context(budget.spend(500))  # a request may have what its own limit allows
        with pytest.raises(Overloaded):
            alone.enter_context(budget.spend(1))
    with budget.spend(100):
        pass


# --- description ------------------------------------------------------------------------------


async def description(client: Client) -> Any:
    return json.loads((await client.call("GET", "/v1/openapi.json")).body)


async def test_every_call_is_described_with_its_answers(client: Client) -> None:
    document = await description(client)
    described = {
        (operation["operationId"], method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert described == {(call.name, call.method, call.path) for call in CALLS}
    for call in CALLS:
        operation = document["paths"][call.path][call.method.lower()]
        expected = {call.status, *call.extra, *(status_of(leaf) for leaf in call.errors)}
        assert {int(status) for status in operation["responses"]} >= expected | {400, 413, 500, 503, 504, 507}
        assert ("401" in operation["responses"]) is not call.unguarded
        assert operation["security"] == ([] if call.unguarded else [{"account": []}])


def test_a_client_believes_every_error_that_is_described() -> None:
    described = {leaf for call in (*CALLS, *INTRODUCER_CALLS) for leaf in call.errors} | {*EVERY_CALL}
    described |= {TokenRejected, ClockSkewed, AccountRefused}
    described |= {ReservationMissing, CapacityFull, QuotaFull}  # of single shares
    assert described - {InternalError} <= PEER_LEAVES


async def test_every_schema_that_is_named_is_there(client: Client) -> None:
    document = await description(client)
    text = json.dumps(document)
    for part in text.split('"$ref": "')[1:]:
        name = part.split('"')[0].removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"]


def test_the_wire_page_lists_every_call_code_and_status() -> None:
    page = (Path(__file__).parents[3] / "docs" / "spec" / "wire.md").read_text()
    for call in (*CALLS, *INTRODUCER_CALLS):
        assert f"`{call.method} {call.path}`" in page, call.name
    for leaf, status in STATUS.items():
        assert f"| `{leaf.code}` | {status} | {leaf.retry.value} |" in page, leaf.code


# --- introducer -------------------------------------------------------------------------------


async def introduce(api: IntroducerApi, method: str, path: str, body: bytes = b"", **query: str) -> Response:
    found = api.router().find(method, path)
    assert not isinstance(found, int)
    route, params = found
    request = Request(method, path, query, Sent({}), params, Pieces([body]), route.body_bytes_max)
    return await route.handler(request)


async def test_an_announced_record_is_on_disk_before_it_is_answered(tmp_path: Path, client: Client) -> None:
    clock = client.bench.clock
    service = IntroducerService("run", 10, 86400, clock)
    api = IntroducerApi(service, RosterFile(tmp_path / "roster.json", service), version="0")
    signed = sign_record(NODE, node_record(NODE, issued_s=clock.now_s()))
    body = msgspec.json.encode(wire.Announcement(record_text(signed)))
    answer = await introduce(api, "POST", "/v1/announce", body)
    assert answer.status == 204
    assert record_text(signed) in (tmp_path / "roster.json").read_text()
    roster = await introduce(api, "GET", "/v1/roster", epoch="", version="0", wait_s="0")
    assert msgspec.json.decode(roster.body, type=wire.RosterAnswer).records == [record_text(signed)]
    with pytest.raises(InvalidRequest):
        await introduce(api, "GET", "/v1/roster", wait_s="61")
    described = await introduce(api, "GET", "/v1/openapi.json")
    assert set(json.loads(described.body)["paths"]) == {call.path for call in INTRODUCER_CALLS}
