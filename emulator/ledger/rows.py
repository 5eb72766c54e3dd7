"""What the ledger takes in and gives out, as plain data. Knows no SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from emulator.address import Home, Key
from emulator.billing import Usage

ENVIRONMENTS = "environments"  # meters of those that are alive, which nobody bills
TRAINED = "training"  # stands for a persona: a job's usage, not an endpoint's


class InvocationRow(NamedTuple):
    """One invocation, as it was answered. Times are nanoseconds, sizes bytes.

    The caller decides what is billed. A throttled call: `billed_ms` 0 and `bytes_billed` false. One
    that no environment ran: 0 ms. A ModelError of the container's own: as any answer, for Lambda
    bills failed invocations.
    """

    request_id: str
    at_ns: int  # arrival
    endpoint: str
    variant: str
    persona: str
    region: str
    environment: str  # "" if none was assigned
    status: int  # as the caller got it
    error_code: str  # "" if none
    cold_start: bool
    provisioned: bool
    memory_mb: int  # 0 for real-time
    instance_type: str  # "" for serverless
    request_bytes: int
    response_bytes: int
    bytes_billed: bool
    queue_ns: int
    provision_ns: int
    runtime_ns: int
    load_ns: int
    model_ns: int  # ModelLatency, the stretch for a share of a CPU included
    overhead_ns: int  # OverheadLatency, a serverless start included
    cpu_ns: int
    peak_bytes: int
    billed_ms: int
    billed_startup_ms: int  # the same if starting is billed too
    inference_id: str
    account: str


class Place(NamedTuple):
    """What calls that are added up have in common. The first field is the account for which the
    rest is looked up."""

    account: str
    region: str
    endpoint: str
    variant: str
    persona: str
    provisioned: bool
    memory_mb: int
    instance_type: str


class Roll(NamedTuple):
    """The calls of one place that arrived in one minute, hour or day, added up.

    `start` counts those since the Unix epoch. `throttles` and `errors` (all other answers from 400
    up; `faults` are those from 500 up) are parts of `invocations`. `latencies` is a histogram of
    ModelLatency plus OverheadLatency, without throttled calls (see `histogram.py`). The rows are
    those numbered from `first` to `last`, among others.
    """

    place: Place
    start: int
    invocations: int
    cold_starts: int
    throttles: int
    errors: int
    faults: int
    billed_ms: int
    billed_startup_ms: int
    bytes_in: int  # billed
    bytes_out: int
    model_ms: int  # ModelLatency, each call's rounded up: what serverless would have billed
    model_ns: int
    overhead_ns: int
    startup_ns: int
    cpu_ns: int
    peak_bytes: int  # the most
    latencies: bytes
    first: int
    last: int


class MeterRow(NamedTuple):
    """So many units of a resource, held from `started_ns` to `until_ns`."""

    account: str
    region: str
    endpoint: str
    variant: str
    kind: str  # a UsageKind, or ENVIRONMENTS
    sku: str
    units: int
    started_ns: int
    until_ns: int


class Window(NamedTuple):
    """The rows of one variant from `from_ns` up to but without `to_ns`."""

    account: str
    region: str
    endpoint: str
    variant: str
    from_ns: int
    to_ns: int

    def wanted(self) -> dict[str, str | int]:
        return {
            "account": self.account,
            "region": self.region,
            "endpoint": self.endpoint,
            "variant": self.variant,
            "from": self.from_ns,
            "to": self.to_ns,
        }


class Sums(NamedTuple):
    """Samples that fall into one of the buckets that a window is cut into, the first being 0."""

    bucket: int
    samples: int
    total: float
    least: float
    most: float


class UsageRecord(NamedTuple):
    """What one variant used."""

    endpoint: str
    variant: str
    persona: str
    region: str
    account: str
    usage: Usage

    @property
    def key(self) -> Key:
        return Key(Home(self.account, self.region), self.endpoint)


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of one endpoint. `invocations` counts every request, as CloudWatch's Invocations
    does; `throttles` and `errors` (all other answers from 400 up) are parts of it."""

    invocations: int = 0
    cold_starts: int = 0
    throttles: int = 0
    errors: int = 0
    persona: str = field(default="", compare=False)
