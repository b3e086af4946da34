"""What is counted is what a monitor reads."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from muniment.net.metrics import Metrics
from muniment.net.reading import Reading


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the text, by name and labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_requests_are_counted_by_call_and_status_with_bytes_and_time() -> None:
    metrics = Metrics("1.2")
    for status, seconds in ((200, 0.002), (200, 0.2), (503, 0.0)):
        metrics.answered("PUT /v1/shares", status, seconds, received_bytes=10, sent_bytes=3)
    found = samples(metrics)
    call = ("call", "PUT /v1/shares")
    assert found["muniment_requests_total", (call, ("status", "200"))] == 2
    assert found["muniment_requests_total", (call, ("status", "503"))] == 1
    assert found["muniment_received_bytes_total", (call,)] == 30
    assert found["muniment_sent_bytes_total", (call,)] == 9
    assert found["muniment_request_seconds_count", (call,)] == 3
    assert found["muniment_request_seconds_bucket", (call, ("le", "0.0025"))] == 2
    assert found["muniment_request_seconds_bucket", (call, ("le", "0.25"))] == 3
    assert found["muniment_info", (("version", "1.2"),)] == 1


def test_readings_are_taken_at_each_scrape_and_not_before() -> None:
    asked: list[int] = []

    def readings() -> Iterator[Reading]:
        asked.append(len(asked))
        yield Reading("node_shares", "Shares stored.", len(asked))
        yield Reading("found", "Found.", 7, "counter")
        for volume in ("a", 'b"\n'):
            yield Reading("log_entries", "Entries.", 5, labels={"volume": volume})

    metrics = Metrics("1")
    metrics.read(readings)
    assert not asked
    assert samples(metrics)["muniment_node_shares", ()] == 1
    found = samples(metrics)
    assert found["muniment_node_shares", ()] == 2
    assert found["muniment_found_total", ()] == 7
    assert found["muniment_log_entries", (("volume", 'b"\n'),)] == 5


def test_two_of_them_know_nothing_of_each_other() -> None:
    one, other = Metrics("1"), Metrics("2")
    one.answered("GET /v1/info", 200, 0.0, received_bytes=0, sent_bytes=0)
    assert not any(name == "muniment_requests_total" for name, _ in samples(other))
