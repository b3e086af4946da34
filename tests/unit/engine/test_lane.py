"""One node's lane: natural batching, limits, withdrawal, overload, and every way a request can end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from muniment.crypto.identity import Identity
from muniment.engine.jobs import (
    Answer,
    ClaimJob,
    Done,
    Failed,
    FetchJob,
    Found,
    Got,
    Job,
    LocateJob,
    ReleaseJob,
    SendJob,
    Withdrawn,
)
from muniment.engine.lane import Lane
from muniment.engine.policy import Limits
from muniment.errors import (
    CapacityFull,
    InternalError,
    NodeUnreachable,
    Overloaded,
    ProtocolViolation,
    ShareUnknown,
)
from muniment.ports import Accepted, Held, PutOutcome, Refused, ReserveOutcome, ShareUpload
from muniment.spec.limits import KIB
from muniment.testing.fake_node import FakeConnection, FakeNode
from muniment.testing.sample_blob import SampleBlob, sample_blob
from muniment.testing.virtual_time import LoopClock, run_virtual

LIMITS = Limits(put_bytes=100 * KIB, get_bytes=50 * KIB, small_share_bytes=10 * KIB)
ACCOUNT = Identity.from_seed(b"a" * 32).account


class Bench:
    """A lane to a fake node, and the answers of every job."""

    def __init__(self) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.node = FakeNode(Identity.from_seed(b"n" * 32), self.clock)
        self.connection = FakeConnection(self.node, ACCOUNT)
        self.lane = Lane(self.connection, LIMITS)
        self.answers: dict[str, Answer] = {}
        self._heard = asyncio.Event()

    def hear(self, name: str) -> Callable[[Answer], None]:
        def done(answer: Answer) -> None:
            assert name not in self.answers, "a job answered twice"
            self.answers[name] = answer
            self._heard.set()

        return done

    def claim(self, name: str, blob: SampleBlob, number: int = 0) -> ClaimJob:
        job = ClaimJob(self.hear(name), blob.claim(number))
        self.lane.claim(job)
        return job

    def send(self, name: str, blob: SampleBlob, number: int = 0) -> SendJob:
        job = SendJob(self.hear(name), blob.upload(number), size_bytes=len(blob.records[number]))
        self.lane.send(job)
        return job

    def fetch(self, name: str, blob: SampleBlob, number: int = 0, *, alone: bool = False) -> FetchJob:
        shape = blob.name.shape
        job = FetchJob(
            self.hear(name),
            blob.key(number),
            memoryview(bytearray(shape.head_bytes)),
            memoryview(bytearray(shape.share_bytes)),
            size_bytes=shape.record_bytes,
        )
        self.lane.fetch(job, alone=alone)
        return job

    async def store(self, blob: SampleBlob) -> None:
        await self.connection.reserve([blob.claim(0)])
        await self.connection.put([blob.upload(0)])

    async def until(self, *names: str) -> None:
        while not all(name in self.answers for name in names):
            self._heard.clear()
            await self._heard.wait()


def on_bench(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test with a bench in virtual time; closes the lane."""

    def run() -> None:
        async def main() -> None:
            bench = Bench()
            try:
                await test(bench)
            finally:
                await bench.lane.aclose()
            assert bench.connection.closed

        run_virtual(main())

    run.__name__ = test.__name__
    return run


def blobs(count: int, *, length: int = 2000) -> list[SampleBlob]:
    return [sample_blob(i, length=length, k=1, n=1) for i in range(count)]


@on_bench
async def test_jobs_of_one_turn_go_in_one_request(bench: Bench) -> None:
    for at, blob in enumerate(blobs(5)):
        bench.claim(f"c{at}", blob)
    await bench.until("c4")
    assert bench.node.calls["reserve"] == 1
    assert all(isinstance(answer, Accepted) for answer in bench.answers.values())


@on_bench
async def test_what_piles_up_during_a_request_goes_in_the_next(bench: Bench) -> None:
    bench.node.faults.delay_s["reserve"] = 1.0
    first, *rest = blobs(8)
    bench.claim("first", first)
    await asyncio.sleep(0.5)
    for at, blob in enumerate(rest):
        bench.claim(f"c{at}", blob)
        await asyncio.sleep(0.05)
    await bench.until("first", "c6")
    assert bench.node.calls["reserve"] == 2


@on_bench
async def test_puts_are_bounded_in_bytes_and_in_number(bench: Bench) -> None:
    bench.node.faults.delay_s["put"] = 1.0
    shares = blobs(9, length=40 * KIB)
    await bench.connection.reserve([blob.claim(0) for blob in shares])
    for at, blob in enumerate(shares):
        bench.send(f"s{at}", blob)
    await asyncio.sleep(0.5)
    assert bench.node.calls["put"] == 2  # two at once, two shares of 40 KiB in each
    assert bench.node.items["put"] == 4
    await bench.until(*(f"s{at}" for at in range(9)))
    assert bench.node.calls["put"] == 5
    assert all(answer == Held() for answer in bench.answers.values())


@on_bench
async def test_a_share_larger_than_the_limit_goes_alone(bench: Bench) -> None:
    shares = [*blobs(1, length=300 * KIB), *blobs(2)]
    await bench.connection.reserve([blob.claim(0) for blob in shares])
    for at, blob in enumerate(shares):
        bench.send(f"s{at}", blob)
    await bench.until("s0", "s1", "s2")
    assert bench.node.calls["put"] == 2


@on_bench
async def test_claims_wait_while_sends_are_queued(bench: Bench) -> None:
    bench.node.faults.delay_s["put"] = 1.0
    shares = blobs(5, length=90 * KIB)
    await bench.connection.reserve([blob.claim(0) for blob in shares])
    before = bench.node.calls["reserve"]
    for at, blob in enumerate(shares):
        bench.send(f"s{at}", blob)
    await asyncio.sleep(0)
    bench.claim("claim", sample_blob(99))
    await asyncio.sleep(1.5)  # two sent, two under way, one queued
    assert bench.node.calls["reserve"] == before
    await bench.until("claim")
    assert "s4" not in bench.answers  # asked as soon as another could be sent, not after everything
    await bench.until("s4")


@on_bench
async def test_claims_wait_while_nothing_they_grant_could_be_sent(bench: Bench) -> None:
    bench.node.faults.delay_s["put"] = 1.0
    first, second, *rest = blobs(5, length=90 * KIB)
    await bench.connection.reserve([first.claim(0), second.claim(0)])
    before = bench.node.calls["reserve"]
    bench.send("first", first)
    await asyncio.sleep(0.5)
    bench.send("second", second)
    for at, blob in enumerate(rest):
        await asyncio.sleep(0.1)
        bench.claim(f"c{at}", blob)
    await asyncio.sleep(0.1)
    assert bench.node.calls["reserve"] == before  # two under way
    await bench.until("c0", "c1", "c2")
    assert bench.node.calls["reserve"] == before + 1
    assert "second" not in bench.answers  # one was through
    await bench.until("second")


@on_bench
async def test_small_shares_are_read_in_batches_and_large_ones_alone(bench: Bench) -> None:
    small, large = blobs(4), blobs(2, length=40 * KIB)
    for blob in (*small, *large):
        await bench.store(blob)
    jobs = [bench.fetch(f"f{at}", blob) for at, blob in enumerate((*small, *large))]
    await bench.until(*(f"f{at}" for at in range(6)))
    assert (bench.node.calls["get_many"], bench.node.calls["get"]) == (1, 2)
    for job, blob in zip(jobs, (*small, *large), strict=True):
        assert bytes(job.head) + bytes(job.data) == blob.records[0]
    bench.fetch("alone", small[0], alone=True)
    await bench.until("alone")
    assert bench.node.calls["get"] == 3


@on_bench
async def test_what_the_node_lacks_is_unknown(bench: Bench) -> None:
    bench.fetch("small", sample_blob(1, length=100))
    bench.fetch("large", sample_blob(2, length=100 * KIB))
    await bench.until("small", "large")
    for answer in bench.answers.values():
        assert isinstance(answer, Failed)
        assert isinstance(answer.error, ShareUnknown)
    assert not bench.lane.avoided(upload=False)  # an honest answer


@on_bench
async def test_a_record_of_the_wrong_size_is_a_violation(bench: Bench) -> None:
    blob = sample_blob(1, length=100, k=1, n=1)
    await bench.store(blob)
    bench.node.faults.tamper = lambda key, record: record[:-1]
    job = bench.fetch("f", blob)
    await bench.until("f")
    answer = bench.answers["f"]
    assert isinstance(answer, Failed)
    assert isinstance(answer.error, ProtocolViolation)
    assert not any(job.data)


@on_bench
async def test_look_ups_of_many_blobs_are_one_request(bench: Bench) -> None:
    known, unknown = sample_blob(1, k=1, n=1), sample_blob(2)
    await bench.store(known)
    for name, blob in (("known", known), ("unknown", unknown), ("again", known)):
        bench.lane.locate(LocateJob(bench.hear(name), blob.name.blob))
    await bench.until("again")
    assert bench.node.calls["have"] == 1
    assert bench.answers["known"] == bench.answers["again"] == Found(frozenset({known.key(0).number}))
    assert bench.answers["unknown"] == Found(frozenset())


@on_bench
async def test_releases_are_heard(bench: Bench) -> None:
    blob = sample_blob(1)
    await bench.connection.reserve([blob.claim(0), blob.claim(1)])
    for number in (0, 1):
        bench.lane.release(ReleaseJob(bench.hear(f"r{number}"), blob.key(number)))
    await bench.until("r1")
    assert bench.answers == {"r0": Done(), "r1": Done()}
    assert bench.node.calls["release"] == 1
    assert bench.node.reserved_bytes == 0


@on_bench
async def test_a_queued_job_is_withdrawn_without_being_asked(bench: Bench) -> None:
    job = bench.claim("c", sample_blob(1))
    bench.lane.withdraw(job)
    assert bench.answers == {}  # never from within the call
    await bench.until("c")
    assert bench.answers["c"] == Withdrawn()
    bench.lane.withdraw(job)
    await asyncio.sleep(1)
    assert bench.node.calls["reserve"] == 0


@on_bench
async def test_a_put_is_broken_off_when_nobody_wants_any_of_it(bench: Bench) -> None:
    bench.node.faults.delay_s["put"] = 10.0
    shares = blobs(2)
    await bench.connection.reserve([blob.claim(0) for blob in shares])
    first, second = (bench.send(f"s{at}", blob) for at, blob in enumerate(shares))
    await asyncio.sleep(1)
    bench.lane.withdraw(first)
    await asyncio.sleep(1)
    assert bench.answers == {}  # the other share of the same request is still wanted
    bench.lane.withdraw(second)
    await bench.until("s0", "s1")
    assert asyncio.get_running_loop().time() < 3
    assert bench.answers == {"s0": Withdrawn(), "s1": Withdrawn()}
    assert bench.node.reserved_bytes == 0


@on_bench
async def test_a_request_withdrawn_before_its_task_ran_still_answers(bench: Bench) -> None:
    blob = blobs(1, length=40 * KIB)[0]
    await bench.store(blob)
    job = bench.fetch("f", blob)
    bench.lane._pump()  # the task exists and has not taken its first step
    bench.lane.withdraw(job)
    await bench.until("f")
    assert bench.answers["f"] == Withdrawn()
    bench.fetch("next", blob)
    await bench.until("next")
    assert bench.answers["next"] == Got()


@on_bench
async def test_a_claim_under_way_is_let_finish(bench: Bench) -> None:
    bench.node.faults.delay_s["reserve"] = 1.0
    job = bench.claim("c", sample_blob(1))
    await asyncio.sleep(0.5)
    bench.lane.withdraw(job)
    await bench.until("c")
    assert isinstance(bench.answers["c"], Accepted)


@on_bench
async def test_a_failed_request_fails_every_job_and_is_remembered(bench: Bench) -> None:
    bench.node.faults.down = "no route"
    for at, blob in enumerate(blobs(3)):
        bench.claim(f"c{at}", blob)
    await bench.until("c2")
    for answer in bench.answers.values():
        assert isinstance(answer, Failed)
        assert isinstance(answer.error, NodeUnreachable)
    assert bench.lane.avoided(upload=False)
    await asyncio.sleep(LIMITS.trouble_s)
    assert not bench.lane.avoided(upload=True)


@on_bench
async def test_a_full_node_is_avoided_by_uploads_only(bench: Bench) -> None:
    bench.node.faults.refuse = CapacityFull(wanted_bytes=1, free_bytes=0)
    bench.claim("c", sample_blob(1))
    await bench.until("c")
    assert isinstance(bench.answers["c"], Refused)
    assert bench.lane.avoided(upload=True)
    assert not bench.lane.avoided(upload=False)


@on_bench
async def test_an_overloaded_node_is_asked_again_after_a_pause(bench: Bench) -> None:
    bench.node.faults.fail["reserve"] = [Overloaded(limit="50 requests"), Overloaded(limit="50 requests")]
    bench.claim("c", sample_blob(1))
    await bench.until("c")
    assert isinstance(bench.answers["c"], Accepted)
    assert bench.node.calls["reserve"] == 3
    assert asyncio.get_running_loop().time() == pytest.approx(0.15, abs=0.02)


@on_bench
async def test_a_node_that_stays_overloaded_fails_in_the_end(bench: Bench) -> None:
    bench.node.faults.fail["reserve"] = [Overloaded(limit="50 requests")] * 100
    bench.claim("c", sample_blob(1))
    await bench.until("c")
    assert isinstance(bench.answers["c"], Failed)
    assert bench.node.calls["reserve"] == LIMITS.overload_tries + 1


@on_bench
async def test_a_job_withdrawn_during_an_overload_is_not_repeated(bench: Bench) -> None:
    bench.node.faults.fail["reserve"] = [Overloaded(limit="50 requests")]
    bench.node.faults.delay_s["reserve"] = 1.0
    job = bench.claim("c", sample_blob(1))
    await asyncio.sleep(0.5)
    bench.lane.withdraw(job)
    await bench.until("c")
    assert bench.answers["c"] == Withdrawn()
    assert bench.node.calls["reserve"] == 1


@on_bench
async def test_too_few_outcomes_are_a_violation(bench: Bench) -> None:
    async def short(claims: object) -> list[ReserveOutcome]:
        return []

    bench.connection.reserve = short  # type: ignore[method-assign]  # a node that breaks the protocol
    bench.claim("c", sample_blob(1))
    await bench.until("c")
    answer = bench.answers["c"]
    assert isinstance(answer, Failed)
    assert isinstance(answer.error, ProtocolViolation)


@on_bench
async def test_a_bug_in_a_driver_ends_the_jobs_and_is_logged(bench: Bench) -> None:
    async def broken(uploads: object, *, reserving: bool = False) -> list[PutOutcome]:
        raise ZeroDivisionError

    bench.connection.put = broken  # type: ignore[method-assign]  # a driver with a bug
    bench.send("s", sample_blob(1))
    await bench.until("s")
    answer = bench.answers["s"]
    assert isinstance(answer, Failed)
    assert isinstance(answer.error, InternalError)


@on_bench
async def test_latency_is_learnt_for_small_and_large_shares_apart(bench: Bench) -> None:
    assert bench.lane.latency_s(small=True) is None
    bench.node.faults.delay_s["put"] = 2.0
    small, large = blobs(1)[0], blobs(1, length=90 * KIB)[0]
    await bench.connection.reserve([small.claim(0), large.claim(0)])
    bench.send("small", small)
    await bench.until("small")
    assert bench.lane.latency_s(small=True) == pytest.approx(2.0)
    assert bench.lane.latency_s(small=False) is None
    bench.node.faults.delay_s["put"] = 4.0
    bench.send("large", large)
    await bench.until("large")
    assert bench.lane.latency_s(small=False) == pytest.approx(4.0)


def test_closing_ends_everything_with_an_answer() -> None:
    async def main() -> None:
        bench = Bench()
        bench.node.faults.delay_s["reserve"] = 100.0
        bench.node.faults.delay_s["put"] = 100.0
        blob, other = blobs(2)
        bench.claim("under way", blob)
        bench.send("sent", blob)
        await asyncio.sleep(1)
        bench.claim("queued", other)
        await bench.lane.aclose()
        assert set(bench.answers) == {"under way", "sent", "queued"}
        bench.claim("after", other)
        await bench.until("after")
        assert isinstance(bench.answers["after"], Failed)

    run_virtual(main())


def test_parts_of_an_upload_are_what_the_node_gets() -> None:
    """The record reaches the connection as the scattered parts, not joined."""

    async def main() -> None:
        bench = Bench()
        blob = blobs(1)[0]
        seen: list[ShareUpload] = []

        async def look(uploads: list[ShareUpload], *, reserving: bool) -> list[PutOutcome]:
            assert not reserving
            seen.extend(uploads)
            return [Held()] * len(uploads)

        bench.connection.put = look  # type: ignore[assignment, method-assign]  # to see what is handed over
        upload = blob.upload(0)
        job: Job = SendJob(bench.hear("s"), upload, size_bytes=upload.size_bytes)
        assert isinstance(job, SendJob)
        bench.lane.send(job)
        await bench.until("s")
        assert seen == [upload]
        await bench.lane.aclose()

    run_virtual(main())
