"""What a process counts and measures, as Prometheus reads it (docs/metrics.md).

One `Metrics` for a process, made by its composition root if the operator wants it; nothing is global and
nothing is counted otherwise.  What others know already (sums in a ledger, sizes of logs) is not counted
twice: it is read when somebody asks, as `Reading`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from muniment.net.reading import Reading

_PREFIX: Final = "muniment_"
_BUCKETS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    120.0,
)
"""From an append on a fast disk to the longest poll."""


class Metrics:
    """Everything that one process tells.  Any thread.

    Args:
        version: of the program.
    """

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests answered.", "call", "status")
        self._received = self._counter("received_bytes", "Bytes of request bodies, as announced.", "call")
        self._sent = self._counter("sent_bytes", "Bytes of answers' bodies.", "call")
        self._seconds = Histogram(
            f"{_PREFIX}request_seconds",
            "From the head of a request to its answer; waiting polls included.",
            ("call",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self.read(lambda: [Reading("info", "The program.", 1, labels={"version": version})])

    def read(self, readings: Callable[[], Iterable[Reading]]) -> None:
        """Ask this for its values at each scrape, in a worker thread."""
        self._registry.register(_Asked(readings))

    def answered(
        self, call: str, status: int, seconds: float, *, received_bytes: int, sent_bytes: int
    ) -> None:
        """As `net.server.RequestMeter`."""
        self._requests.labels(call, str(status)).inc()
        self._received.labels(call).inc(received_bytes)
        self._sent.labels(call).inc(sent_bytes)
        self._seconds.labels(call).observe(seconds)

    def text(self) -> bytes:
        """The answer to `GET /metrics`.  Blocking: may read a database."""
        return generate_latest(self._registry)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, says, labels, registry=self._registry)


class _Asked(Collector):
    """Readings as the library wants them."""

    def __init__(self, readings: Callable[[], Iterable[Reading]]) -> None:
        self._readings = readings

    def describe(self) -> Iterable[Metric]:
        return ()  # so that nothing is read before the first scrape

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for one in self._readings():
            family = families.get(one.name)
            if family is None:
                kind = GaugeMetricFamily if one.kind == "gauge" else CounterMetricFamily
                family = families[one.name] = kind(_PREFIX + one.name, one.says, labels=tuple(one.labels))
            family.add_metric(tuple(one.labels.values()), one.value)
        yield from families.values()
