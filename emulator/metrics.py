"""CloudWatch's endpoint metrics in Prometheus form. Counts rows as they come; keeps no history.

Names are CloudWatch's in snake case with Prometheus's units: `ModelLatency` in microseconds is
`sagemaker_model_latency_seconds`. A throttled call counts as an invocation and a 4XX error and
gives no latency sample. CloudWatch does not document that; it is what its other rules suggest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from emulator.address import Key
from emulator.core import SECOND
from emulator.errors import ModelError, ModelStreamError, ThrottlingException

if TYPE_CHECKING:
    from emulator.ledger import InvocationRow

# From a light runtime's microseconds to the longest reply that AWS allows (180 s + 60 s).
BUCKETS = (
    *("0.00001", "0.00005", "0.0001", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025"),
    *("0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "120.0", "240.0"),
)
_BOUNDS_NS = tuple(round(float(bound) * SECOND) for bound in BUCKETS)
_LABELS = ("account", "region", "endpoint_name", "variant_name")
_Labels = tuple[str, str, str, str]

COUNTERS = (
    ("invocations", "Requests, errors and throttled ones included"),
    ("invocation_4xx_errors", "Requests answered with an HTTP status from 400 to 499"),
    ("invocation_5xx_errors", "Requests answered with an HTTP status from 500 up"),
    ("invocation_model_errors", "Requests that the model failed to answer"),
    ("throttles", "Requests refused because MaxConcurrency was reached"),
    ("cold_starts", "Requests that waited for an environment of their own to start"),
    (
        "serverless_provisioned_concurrency_invocations",
        "Requests served by provisioned concurrency",
    ),
)
HISTOGRAMS = (
    ("model_latency", "Time until the model's response"),
    ("overhead_latency", "Time from arrival to reply that the model did not take"),
    ("model_setup_time", "Time to launch compute for a cold start"),
)


class _Durations:
    """A histogram that observes in nanoseconds and sums exactly."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        self.total_ns = 0

    def observe(self, duration_ns: int) -> None:
        self.counts[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        self.total_ns += duration_ns

    def buckets(self) -> list[tuple[str, float]]:
        return list(zip((*BUCKETS, "+Inf"), accumulate(self.counts), strict=True))


class _Series:
    """The metrics of one variant, named as in COUNTERS and HISTOGRAMS."""

    def __init__(self) -> None:
        self.counters = {name: 0 for name, _ in COUNTERS}
        self.histograms = {name: _Durations() for name, _ in HISTOGRAMS}

    def observe(self, row: InvocationRow) -> None:
        counters, histograms = self.counters, self.histograms
        counters["invocations"] += 1
        if row.status >= 400:
            self._count_error(row)
        if row.error_code == ThrottlingException.code:
            return
        histograms["overhead_latency"].observe(row.overhead_ns)
        if row.model_ns:
            histograms["model_latency"].observe(row.model_ns)
        if row.provisioned:
            counters["serverless_provisioned_concurrency_invocations"] += 1
        if row.cold_start:
            counters["cold_starts"] += 1
            setup_ns = row.provision_ns + row.runtime_ns + row.load_ns
            if setup_ns:  # a start that failed has none
                histograms["model_setup_time"].observe(setup_ns)

    def _count_error(self, row: InvocationRow) -> None:
        client_error = row.status < 500
        self.counters["invocation_4xx_errors" if client_error else "invocation_5xx_errors"] += 1
        self.counters["throttles"] += row.error_code == ThrottlingException.code
        model_error = row.error_code in (ModelError.code, ModelStreamError.code)
        self.counters["invocation_model_errors"] += model_error


class Metrics(Collector):
    """The metrics of one server, in a registry of its own.

    `observe`, `environments` and `forget` belong to one thread; `render` may run in another.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._series: dict[_Labels, _Series] = {}
        self._alive: Counter[tuple[str, ...]] = Counter()
        self._memory: Counter[_Labels] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def observe(self, row: InvocationRow) -> None:
        """Count one answered invocation; some two microseconds."""
        key = (row.account, row.region, row.endpoint, row.variant)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.observe(row)

    def environments(self, alive: Iterable[tuple[Key, str, str, int]]) -> None:
        """What runs now, in place of what was told before: endpoint, variant, state and footprint
        in bytes of each environment. To be called before `render`."""
        states: Counter[tuple[str, ...]] = Counter()
        memory: Counter[_Labels] = Counter()
        for endpoint, variant, state, footprint_bytes in alive:
            labels = (*endpoint.home, endpoint.name, variant)
            states[*labels, str(state)] += 1
            memory[labels] += footprint_bytes
        self._alive, self._memory = states, memory

    def forget(self, endpoint: Key) -> None:
        """Drop the series of a deleted endpoint, so that names do not pile up."""
        place = (*endpoint.home, endpoint.name)
        for key in [key for key in self._series if key[:3] == place]:
            del self._series[key]

    def render(self) -> bytes:
        """The exposition that Prometheus scrapes, in the format `content_type`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """prometheus_client's side of `render`."""
        series = sorted(self._series.copy().items())
        for name, meaning in COUNTERS:
            counter = CounterMetricFamily(f"sagemaker_{name}", meaning, labels=_LABELS)
            for key, one in series:
                counter.add_metric(key, one.counters[name])
            yield counter
        for name, meaning in HISTOGRAMS:
            histogram = HistogramMetricFamily(f"sagemaker_{name}_seconds", meaning, labels=_LABELS)
            for key, one in series:
                durations = one.histograms[name]
                histogram.add_metric(key, durations.buckets(), durations.total_ns / SECOND)
            yield histogram
        yield from self._gauges()

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        environments = GaugeMetricFamily(
            "sagemaker_environments",
            "Execution environments alive, by state",
            labels=(*_LABELS, "state"),
        )
        for key, count in sorted(self._alive.items()):
            environments.add_metric(key, count)
        yield environments
        memory = GaugeMetricFamily(
            "sagemaker_environments_memory_bytes",
            "What the environments alive would need alone",
            labels=_LABELS,
        )
        for place, footprint_bytes in sorted(self._memory.items()):
            memory.add_metric(place, footprint_bytes)
        yield memory
