"""CloudWatch's metrics of endpoints, computed from the ledger when somebody asks.

One sample is one request, but for gauges, which are said to be otherwise. Everything is on the
server's clock, and a sample counts in the minute in which its request arrived. Knows no protocol.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple

from emulator import catalogue
from emulator.address import Home
from emulator.billing import UsageKind
from emulator.core import GIB, MIB, SECOND, Persona
from emulator.ledger import Ledger, Sums, Window

MINUTE = 60 * SECOND
KNOWN = 14 * 24 * 3600 * SECOND  # how far back metrics are listed, as CloudWatch does
INVOCATIONS, UTILIZATION = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
MICROSECONDS, NONE, COUNT, PERCENT = "Microseconds", "None", "Count", "Percent"
ENDPOINT, VARIANT = "EndpointName", "VariantName"
VOLUME_BYTES = 30 * GIB  # of an instance, unless it is told otherwise


class Capacity(NamedTuple):
    """What a variant has, as far as the ledger does not say so."""

    max_concurrency: int = 0
    model_dir: str = ""


CapacityOf = Callable[[Home, str, str], Capacity | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table: what it is called, its unit, who has it, and how it comes about."""

    namespace: str
    name: str
    unit: str
    personas: tuple[Persona, ...]
    source: str  # of the ledger's samples, or the name of a method below
    of: str = "all"  # all, cold or provisioned: which variants have it listed


_ALL = (Persona.REALTIME, Persona.SERVERLESS)
_REALTIME, _SERVERLESS = (Persona.REALTIME,), (Persona.SERVERLESS,)
_PC = "ServerlessProvisionedConcurrency"
TABLE = (
    Metric(INVOCATIONS, "Invocations", NONE, _ALL, "invocations"),
    Metric(INVOCATIONS, "InvocationsPerInstance", NONE, _REALTIME, "_per_instance"),
    Metric(INVOCATIONS, "Invocation4XXErrors", NONE, _ALL, "4xx"),
    Metric(INVOCATIONS, "Invocation5XXErrors", NONE, _ALL, "5xx"),
    Metric(INVOCATIONS, "InvocationModelErrors", NONE, _REALTIME, "model-errors"),
    Metric(INVOCATIONS, "ModelLatency", MICROSECONDS, _ALL, "model-latency"),
    Metric(INVOCATIONS, "OverheadLatency", MICROSECONDS, _ALL, "overhead-latency"),
    Metric(INVOCATIONS, "ModelSetupTime", MICROSECONDS, _SERVERLESS, "setup", "cold"),
    Metric(
        INVOCATIONS,
        "ServerlessConcurrentExecutionsUtilization",
        NONE,
        _SERVERLESS,
        "_concurrency",
    ),
    Metric(INVOCATIONS, f"{_PC}Executions", COUNT, _SERVERLESS, "_executions", "provisioned"),
    Metric(INVOCATIONS, f"{_PC}Utilization", NONE, _SERVERLESS, "_utilization", "provisioned"),
    Metric(INVOCATIONS, f"{_PC}Invocations", COUNT, _SERVERLESS, "provisioned", "provisioned"),
    Metric(
        INVOCATIONS,
        f"{_PC}SpilloverInvocations",
        COUNT,
        _SERVERLESS,
        "_spillover",
        "provisioned",
    ),
    Metric(UTILIZATION, "MemoryUtilization", PERCENT, _ALL, "_memory"),
    Metric(UTILIZATION, "CPUUtilization", PERCENT, _REALTIME, "_cpu"),
    Metric(UTILIZATION, "DiskUtilization", PERCENT, _REALTIME, "_disk"),
)
_BY_NAME = {(metric.namespace, metric.name): metric for metric in TABLE}
NAMESPACES = frozenset(metric.namespace for metric in TABLE)


class Listed(NamedTuple):
    """A metric that has had samples."""

    metric: Metric
    endpoint: str
    variant: str


@dataclass(slots=True)
class Bucket:
    """The samples of one period, which begins at `start_ns`. `percentiles` has those asked for."""

    start_ns: int
    count: float
    total: float
    least: float
    most: float
    percentiles: dict[float, float] = field(default_factory=dict)


class Figures:
    """The metrics of one server. Any thread may ask."""

    def __init__(
        self,
        ledger: Ledger,
        now: Callable[[], int],
        reach_ns: int,
        capacity: CapacityOf,
    ) -> None:
        """`reach_ns` is the longest that a request may take."""
        self._ledger, self.now, self._reach_ns = ledger, now, reach_ns
        self._capacity = capacity

    def listed(self, home: Home) -> Iterator[Listed]:
        """What has had samples in the last two weeks."""
        for endpoint, variant, persona, cold, provisioned in self._ledger.active(
            home, self.now() - KNOWN
        ):
            has = {"all": True, "cold": cold, "provisioned": provisioned}
            for metric in TABLE:
                if persona in metric.personas and has[metric.of]:
                    yield Listed(metric, endpoint, variant)

    def series(
        self,
        home: Home,
        metric: Metric,
        place: tuple[str, str],
        period: tuple[int, int, int],
        percents: Sequence[float] = (),
    ) -> list[Bucket]:
        """A metric of the variant (endpoint, variant) in a period: from, to and width of a bucket
        in nanoseconds, all of them whole minutes. Buckets without samples are left out."""
        from_ns, to_ns, width_ns = period
        window = Window(*home, *place, from_ns, to_ns)
        if not metric.source.startswith("_"):
            persona = metric.personas[0] if len(metric.personas) == 1 else ""
            return self._from_rows(metric.source, window, width_ns, persona, percents)
        if metric.source == "_memory":
            return self._memory(window, width_ns, percents)
        counted: Callable[[Home, Window, int], dict[int, Counter[float]]]
        counted = getattr(self, metric.source)
        found = counted(home, window, width_ns)
        return [
            _counted(from_ns + number * width_ns, values, percents)
            for number, values in sorted(found.items())
        ]

    def _from_rows(
        self, what: str, window: Window, width_ns: int, persona: str, percents: Sequence[float]
    ) -> list[Bucket]:
        sums = self._ledger.sampled(what, window, width_ns, persona)
        buckets = [_bucket(window.from_ns + one.bucket * width_ns, one) for one in sums]
        if percents:
            ordered = self._ledger.ordered(what, window, width_ns, persona)
            values = (value for _, value in ordered)
            for bucket in buckets:
                bucket.percentiles = _walk(values, round(bucket.count), percents)
        return buckets

    # -- of requests and of what they had -----------------------------------------------------

    def _memory(self, window: Window, width_ns: int, percents: Sequence[float]) -> list[Bucket]:
        """Each request's peak, in percent of what its environment or instance has."""
        size = self._memory_bytes(window)
        buckets = self._from_rows("peak-bytes", window, width_ns, "", percents) if size else []
        for bucket in buckets:
            bucket.total *= 100 / size
            bucket.least *= 100 / size
            bucket.most *= 100 / size
            scaled = {p: value * 100 / size for p, value in bucket.percentiles.items()}
            bucket.percentiles = scaled
        return buckets

    def _memory_bytes(self, window: Window) -> int:
        whole = window.to_ns - window.from_ns
        for sums in self._ledger.sampled("memory-mb", window, whole, Persona.SERVERLESS):
            return round(sums.most) * MIB
        held = self._ledger.units(UsageKind.INSTANCE, window)
        return catalogue.instance_type(held[-1][3]).memory_bytes if held else 0

    def _per_instance(self, home: Home, window: Window, width_ns: int) -> dict[int, Counter[float]]:
        """Each request counts one part of as many as there are instances."""
        held = _Held(self._ledger.units(UsageKind.INSTANCE, window))
        found: dict[int, Counter[float]] = {}
        for sums in self._ledger.sampled("invocations", window, MINUTE, Persona.REALTIME):
            at_ns = window.from_ns + sums.bucket * MINUTE
            number = (at_ns - window.from_ns) // width_ns
            share = 1 / max(1, held.most(at_ns, at_ns + MINUTE))
            found.setdefault(number, Counter())[share] += sums.samples
        return found

    def _concurrency(self, home: Home, window: Window, width_ns: int) -> dict[int, Counter[float]]:
        """At each arrival: how many requests run then, this one included, of MaxConcurrency."""
        capacity = self._capacity(home, window.endpoint, window.variant)
        if not capacity or not capacity.max_concurrency:
            return {}
        return self._running(window, width_ns, capacity.max_concurrency, provisioned=False)

    def _executions(self, home: Home, window: Window, width_ns: int) -> dict[int, Counter[float]]:
        return self._running(window, width_ns, 1, provisioned=True)

    def _utilization(self, home: Home, window: Window, width_ns: int) -> dict[int, Counter[float]]:
        return self._running(window, width_ns, 0, provisioned=True)

    def _running(
        self, window: Window, width_ns: int, share_of: int, provisioned: bool
    ) -> dict[int, Counter[float]]:
        """Concurrency at each arrival; `share_of` 0 is what is provisioned at that moment.

        Environments are counted, not requests: under the virtual clock one request begins at the
        very instant at which the one before it ended.
        """
        held = _Held(self._ledger.units(UsageKind.PROVISIONED_USAGE, window))
        earlier = window._replace(from_ns=window.from_ns - self._reach_ns)
        found: dict[int, Counter[float]] = {}
        running: dict[str, int] = {}  # environments, which have one request at a time
        ends: list[tuple[int, str]] = []
        for at_ns, end_ns, by_provisioned, environment in self._ledger.executions(earlier):
            if provisioned and not by_provisioned:
                continue
            while ends and ends[0][0] <= at_ns:
                ended, name = heapq.heappop(ends)
                if running.get(name) == ended:
                    del running[name]
            running[environment] = max(end_ns, running.get(environment, 0))
            heapq.heappush(ends, (running[environment], environment))
            if at_ns >= window.from_ns:
                of = share_of or max(1, held.at(at_ns))
                number = (at_ns - window.from_ns) // width_ns
                found.setdefault(number, Counter())[len(running) / of] += 1
        return found

    def _spillover(self, home: Home, window: Window, width_ns: int) -> dict[int, Counter[float]]:
        """Requests that ran on demand while there was provisioned concurrency."""
        held = _Held(self._ledger.units(UsageKind.PROVISIONED_USAGE, window))
        found: dict[int, Counter[float]] = {}
        for at_ns, _, by_provisioned, _ in self._ledger.executions(window):
            if not by_provisioned and held.at(at_ns):
                number = (at_ns - window.from_ns) // width_ns
                found.setdefault(number, Counter())[1.0] += 1
        return found

    # -- of instances, a sample a minute ------------------------------------------------------

    def _cpu(self, home: Home, window: Window, width_ns: int) -> dict[int, Counter[float]]:
        """The models' CPU time of a minute in percent of it, all cores together, per instance."""
        sums = self._ledger.sampled("cpu-ns", window, MINUTE, Persona.REALTIME)
        used = {one.bucket: one.total for one in sums}

        def share(minute: int, instances: int) -> float:
            return 100 * used.get(minute, 0) / (MINUTE * instances)

        return self._each_minute(window, width_ns, share)

    def _disk(self, home: Home, window: Window, width_ns: int) -> dict[int, Counter[float]]:
        """The model's files, in percent of the volume."""
        capacity = self._capacity(home, window.endpoint, window.variant)
        if not capacity:
            return {}
        percent = 100 * _size(Path(capacity.model_dir)) / VOLUME_BYTES
        return self._each_minute(window, width_ns, lambda _, __: percent)

    def _each_minute(
        self, window: Window, width_ns: int, value: Callable[[int, int], float]
    ) -> dict[int, Counter[float]]:
        found: dict[int, Counter[float]] = {}
        held = self._ledger.units(UsageKind.INSTANCE, window)
        most = _Held(held)
        for minute in sorted({one for row in held for one in _minutes(window, row)}):
            at_ns = window.from_ns + minute * MINUTE
            instances = max(1, most.most(at_ns, at_ns + MINUTE))
            number = minute * MINUTE // width_ns
            found.setdefault(number, Counter())[value(minute, instances)] += 1
        return found


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def metric(namespace: str, name: str) -> Metric | None:
    """The row of the table, if there is one."""
    return _BY_NAME.get((namespace, name))


class _Held:
    """How many units were held when, from a meter's rows."""

    def __init__(self, rows: Sequence[tuple[int, int, int, str]]) -> None:
        self._rows = rows
        self._starts = [start for start, *_ in rows]

    def at(self, instant: int) -> int:
        found = bisect_right(self._starts, instant) - 1
        if found < 0:
            return 0
        _, until, units, _ = self._rows[found]
        # A meter that runs is brought up to now each second: it holds a little beyond that.
        return units if instant < until + 2 * SECOND else 0

    def most(self, start: int, end: int) -> int:
        last = bisect_right(self._starts, end - 1)
        first = max(0, bisect_right(self._starts, start) - 1)
        overlapping = (row for row in self._rows[first:last] if row[1] > start)
        return max((units for _, _, units, _ in overlapping), default=0)


def _minutes(window: Window, row: tuple[int, int, int, str]) -> range:
    """The minutes of a window, counted from its start, in which a meter ran."""
    start, until, _, _ = row
    first = max(0, start - window.from_ns) // MINUTE
    return range(first, ceil((min(until, window.to_ns) - window.from_ns) / MINUTE))


def _bucket(start_ns: int, sums: Sums) -> Bucket:
    return Bucket(start_ns, sums.samples, sums.total, sums.least, sums.most)


def _counted(start_ns: int, values: Counter[float], percents: Sequence[float]) -> Bucket:
    count = values.total()
    total = sum(value * times for value, times in values.items())
    ordered = (value for value in sorted(values) for _ in range(values[value]))
    percentiles = _walk(ordered, count, percents) if percents else {}
    return Bucket(start_ns, count, total, min(values), max(values), percentiles)


def _walk(values: Iterator[float], count: int, percents: Sequence[float]) -> dict[float, float]:
    """Percentiles of the next `count` values, which come in order: linear between the two samples
    that are nearest to p/100 * (count - 1), as numpy has them."""
    places = {percent: percent / 100 * (count - 1) for percent in percents}
    wanted = {floor(at) for at in places.values()} | {ceil(at) for at in places.values()}
    found = {}
    for number in range(count):
        value = next(values)
        if number in wanted:
            found[number] = value
    return {
        percent: found[floor(at)] + (found[ceil(at)] - found[floor(at)]) * (at - floor(at))
        for percent, at in places.items()
    }
