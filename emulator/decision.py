"""Which of the two modes costs less for the traffic that there was, and from how many calls a day
on. Exact: amounts are fractions. Knows no ledger and no clock.

The other mode is assumed to take as long for a call as this one does: which memory size or
instance type is faster is not known here. Both pay for data, which therefore decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from emulator import catalogue
from emulator.billing import MEASURES, PriceTable, UsageKind
from emulator.core import MIB, Persona

DAY = 86_400 * 10**9
MEMORY_MB = (1024, 2048, 3072, 4096, 5120, 6144)


@dataclass(frozen=True, slots=True)
class Traffic:
    """The calls of one endpoint in a period of `length_ns`. `model_ms` is what they took, each
    rounded up to a millisecond; `startup_ms` what starting took besides, if that is billed."""

    endpoint: str
    persona: str
    region: str
    length_ns: int
    calls: int
    model_ms: int
    startup_ms: int
    bytes_in: int
    bytes_out: int
    peak_bytes: int
    p95_ns: float | None = None

    @property
    def calls_a_day(self) -> Fraction:
        return Fraction(self.calls * DAY, self.length_ns)


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to host it, and what that costs: `fixed` a day, and `each` for a call."""

    name: str  # such as "serverless, 2048 MB" or "1 x ml.m5.large"
    persona: Persona
    fixed: Fraction
    each: Fraction
    current: bool = False

    def day(self, calls: Fraction) -> Fraction:
        """What a day of so many calls costs."""
        return self.fixed + self.each * calls


@dataclass(frozen=True, slots=True)
class Sizes:
    """What either mode has: serverless memory, and instances."""

    memory_mb: int
    instance_type: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """Both modes for one endpoint's traffic. `crossing` is the number of calls a day at which they
    cost the same; None if one of them is never dearer."""

    traffic: Traffic
    sizes: Sizes
    serverless: Mode
    realtime: Mode

    @property
    def modes(self) -> tuple[Mode, Mode]:
        return self.serverless, self.realtime

    @property
    def crossing(self) -> Fraction | None:
        slope = self.serverless.each - self.realtime.each
        ahead = self.realtime.fixed - self.serverless.fixed
        return ahead / slope if slope > 0 and ahead >= 0 else None

    @property
    def cheaper(self) -> Mode:
        """The one that costs less for the traffic that there was; the current one if they cost the
        same."""
        calls = self.traffic.calls_a_day
        return min(self.modes, key=lambda mode: (mode.day(calls), not mode.current))


def sizes(traffic: Traffic, table: PriceTable) -> Sizes:
    """For an endpoint that has only one of them: the smallest memory that holds its peak, and the
    instance type with the lowest price that does."""
    return Sizes(smallest(traffic.peak_bytes), cheapest(traffic.peak_bytes, table))


def choose(traffic: Traffic, table: PriceTable, given: Sizes) -> Choice | None:
    """Both modes at the prices of a table; None if one of them has no price, or nothing was
    called."""
    if not traffic.calls:
        return None
    second = _rate(table, UsageKind.SERVERLESS_DURATION, str(given.memory_mb))
    held = _rate(table, UsageKind.INSTANCE, given.instance_type)
    if second is None or held is None:
        return None
    data = Fraction(0)
    for kind, size in (
        (UsageKind.DATA_IN, traffic.bytes_in),
        (UsageKind.DATA_OUT, traffic.bytes_out),
    ):
        data += (_rate(table, kind, traffic.persona) or Fraction(0)) * size
    billed_ms = traffic.model_ms + traffic.startup_ms
    current = Persona(traffic.persona)
    serverless = Mode(
        f"serverless, {given.memory_mb} MB",
        Persona.SERVERLESS,
        Fraction(0),
        (billed_ms * second + data) / traffic.calls,
        current is Persona.SERVERLESS,
    )
    realtime = Mode(
        f"{given.count} x {given.instance_type}",
        Persona.REALTIME,
        given.count * held * DAY,
        data / traffic.calls,
        current is Persona.REALTIME,
    )
    return Choice(traffic, given, serverless, realtime)


def smallest(peak_bytes: int) -> int:
    """The smallest memory size, in MB, that holds so much; the largest if none does."""
    return next((size for size in MEMORY_MB if size * MIB >= peak_bytes), MEMORY_MB[-1])


def cheapest(peak_bytes: int, table: PriceTable) -> str:
    """The instance type with the lowest price that has so much memory; "" without any price."""
    priced = [
        (rate, name)
        for name, kind in catalogue.instance_types().items()
        if kind.memory_bytes >= peak_bytes and not kind.gpus
        and (rate := _rate(table, UsageKind.INSTANCE, name)) is not None
    ]  # fmt: skip
    return min(priced)[1] if priced else ""


def elsewhere(
    choices: Sequence[Choice], tables: Iterable[PriceTable]
) -> dict[str, Fraction | None]:
    """What a day of the current modes and traffic would cost in each region; None where something
    has no price."""
    found: dict[str, Fraction | None] = {}
    for table in tables:
        total: Fraction | None = Fraction(0)
        for choice in choices:
            there = choose(choice.traffic, table, choice.sizes)
            if there is None or total is None:
                total = None
                break
            mode = next(mode for mode in there.modes if mode.current)
            total += mode.day(choice.traffic.calls_a_day)
        found[table.region] = total
    return found


def _rate(table: PriceTable, kind: UsageKind, sku: str) -> Fraction | None:
    """The price of one base unit."""
    price = table.find(kind, sku)
    return None if price is None else Fraction(price.amount) / MEASURES[kind].base_units
