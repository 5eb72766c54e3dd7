"""Usage x price table -> charges, exactly. Reads no clock, no file and no price of its own.

Usage is counted in integers of a base unit (milliseconds, unit-nanoseconds, bytes). A charge keeps
its exact amount as a fraction, so that splitting a period or merging two ledgers adds up to the
same fraction; what is shown is that fraction rounded once, half to even, to 1e-15 of the currency.
The shown total of a bill is the sum of its shown amounts, so every bill adds up as printed; it
differs from the exact total by less than 1e-15 per charge.

1 GB is 1024^3 bytes (AWS's serverless benchmarking toolkit divides by it) and a GB-month is 30
days of 24 hours (20 GB held for 10 days are 6.67 GB-Mo).

What a free tier, a tier of the price list or a savings plan does to a price is a line of its own
with a note, so that every amount is still its quantity times its price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

from emulator.core import GIB, MILLISECOND, SECOND

HOUR = 3600 * SECOND
MONTH = 30 * 24 * HOUR
PLACES = 15
QUANTUM = Decimal(1).scaleb(-PLACES)
# The caller's decimal context (28 digits by default) must never round a bill.
_EXACT = Context(prec=1000, rounding=ROUND_HALF_EVEN)
_LAST = 1_000_000  # the free part of a usage is shown after what is paid for


class UsageKind(StrEnum):
    """What is metered. Each names the meaning of `sku` and the base unit of `quantity`."""

    SERVERLESS_DURATION = "serverless-duration"  # sku: memory MB; milliseconds
    PROVISIONED_DURATION = "provisioned-duration"  # sku: memory MB; milliseconds
    PROVISIONED_USAGE = "provisioned-usage"  # sku: memory MB; unit-nanoseconds held
    INSTANCE = "instance"  # sku: instance type; instance-nanoseconds
    TRAINING = "training"  # sku: instance type; instance-nanoseconds
    VOLUME = "volume"  # sku: "gp2"; GB-nanoseconds
    DATA_IN = "data-in"  # sku: persona or ""; bytes
    DATA_OUT = "data-out"  # sku: persona or ""; bytes


_KINDS = tuple(UsageKind)


@dataclass(frozen=True, slots=True)
class Measure:
    """How a kind is sold: the price list's unit, how many base units make one of it, and the
    product family that AWS's offer file has it in ("" where that is not known)."""

    unit: str
    base_units: int
    family: str


MEASURES: Mapping[UsageKind, Measure] = {
    UsageKind.SERVERLESS_DURATION: Measure("Seconds", SECOND // MILLISECOND, "ML Serverless"),
    UsageKind.PROVISIONED_DURATION: Measure("Seconds", SECOND // MILLISECOND, "ML Serverless"),
    UsageKind.PROVISIONED_USAGE: Measure("Seconds", SECOND, "ML Serverless"),
    UsageKind.INSTANCE: Measure("Hrs", HOUR, "ML Instance"),
    UsageKind.TRAINING: Measure("Hrs", HOUR, "ML Instance"),
    UsageKind.VOLUME: Measure("GB-Mo", MONTH, "Storage"),
    UsageKind.DATA_IN: Measure("GB", GIB, ""),
    UsageKind.DATA_OUT: Measure("GB", GIB, ""),
}
SAVED = frozenset({UsageKind.INSTANCE, UsageKind.TRAINING})  # what a savings plan covers here
MOST_SAVED = Decimal("0.64")  # "up to 64 %"

# The usage types of AWS's SageMaker offer file; {gb} is the memory size.
_USAGE_TYPES: Mapping[UsageKind, str] = {
    UsageKind.SERVERLESS_DURATION: "{prefix}-ServerlessInf:Mem-{gb}GB",
    UsageKind.PROVISIONED_DURATION: "{prefix}-ProvisionedConcurrency:Mem-{gb}GB",
    UsageKind.PROVISIONED_USAGE: "{prefix}-ProvisionedConcurrency:Usage-{gb}GB",
    UsageKind.INSTANCE: "{prefix}-Host:{sku}",
    UsageKind.TRAINING: "{prefix}-Train:{sku}",
    UsageKind.VOLUME: "{prefix}-Host:VolumeUsage.{sku}",
    UsageKind.DATA_IN: "{prefix}-Hst:Data-Bytes-In",
    UsageKind.DATA_OUT: "{prefix}-Hst:Data-Bytes-Out",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """An exact amount of one thing used. Raises ValueError for a negative quantity."""

    kind: UsageKind
    sku: str
    quantity: int

    def __post_init__(self) -> None:
        if self.quantity < 0:
            raise ValueError(
                f"usage of {self.kind} {self.sku!r} is {self.quantity}: it cannot be negative"
            )


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of one unit for what is used beyond `above` units in an account's month."""

    above: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one `unit`, and how far to trust it: where it was read, when, and whether it is
    sure (price list or invoice), likely (repeated consistently) or derived (from a rule).

    `since` is the first day it holds, in UTC, "" for ever. `tiers` are the boundaries of AWS's
    list, in ascending order, also where the price stays the same at them.
    """

    usage_type: str
    unit: str
    amount: Decimal
    source: str
    date: str
    confidence: str
    since: str = ""
    tiers: tuple[Tier, ...] = ()

    @property
    def varies(self) -> bool:
        """Whether the price changes at a tier."""
        return any(tier.amount != self.amount for tier in self.tiers)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The prices of one region at one time. `prefix` is how its usage types begin ("EUW3")."""

    region: str
    prefix: str
    currency: str
    prices: Mapping[tuple[UsageKind, str], Price]

    def find(self, kind: UsageKind, sku: str) -> Price | None:
        """The price of this sku, else the one that holds for every sku of the kind (data)."""
        return self.prices.get((kind, sku)) or self.prices.get((kind, ""))


@dataclass(frozen=True, slots=True)
class Counted:
    """A usage that is to be priced by a table.

    `free` is the share of it that a free tier covers, `tiers` the shares of the rest that fall to
    the price and to each of its tiers, and `saved` what a savings plan takes off.
    """

    usage: Usage
    table: PriceTable
    free: Fraction = Fraction(0)
    tiers: tuple[Fraction, ...] = (Fraction(1),)
    saved: Decimal = Decimal(0)

    @property
    def usage_type(self) -> str:
        return usage_type(self.usage.kind, self.usage.sku, self.table.prefix)


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of a bill: `quantity` in the price list's `unit`, times the price of one.

    `usage` is the quantity in base units. `exact` is the amount as a fraction and adds up without
    loss; `amount` is the same rounded once to 1e-15. All of `price`, `amount` and `exact` are None
    where the table has no price: what is used without a price is listed, and never passes for
    free. `note` says what made a price that is not the list's first.
    """

    kind: UsageKind
    sku: str
    usage_type: str
    unit: str
    usage: Fraction
    quantity: Decimal
    price: Decimal | None
    amount: Decimal | None
    exact: Fraction | None
    source: str = ""
    date: str = ""
    confidence: str = ""
    since: str = ""
    note: str = ""

    @property
    def family(self) -> str:
        return MEASURES[self.kind].family


@dataclass(frozen=True, slots=True)
class Bill:
    """Charges in one currency, one for each kind, sku and price that was used."""

    region: str
    currency: str
    charges: tuple[Charge, ...]

    @property
    def total(self) -> Decimal:
        """The sum of the amounts as shown; charges without a price are not in it."""
        return total(charge.amount for charge in self.charges)

    @property
    def exact(self) -> Fraction:
        """The sum of the exact amounts; the bills of two halves add up to the bill of the whole."""
        return sum((charge.exact or Fraction(0) for charge in self.charges), Fraction(0))

    @property
    def complete(self) -> bool:
        """False if something was used that the table has no price for."""
        return not self.unpriced

    @property
    def unpriced(self) -> tuple[Charge, ...]:
        return tuple(charge for charge in self.charges if charge.amount is None)


def bill(usages: Iterable[Usage], table: PriceTable) -> Bill:
    """Price the usages by one table, without any option."""
    charges = charge(Counted(usage, table) for usage in usages)
    return Bill(table.region, table.currency, charges)


def charge(counted: Iterable[Counted]) -> tuple[Charge, ...]:
    """The lines of a bill: what is of one kind and sku and has one price becomes one of them, in
    the kinds' order."""
    totals: dict[_Rate, Fraction] = {}
    for one in counted:
        for share, rate in _rates(one):
            totals[rate] = totals.get(rate, Fraction(0)) + share * one.usage.quantity
    return tuple(_charge(rate, totals[rate]) for rate in sorted(totals, key=_place))


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    """The exact sum, whatever the caller's decimal context; None, for no price, is left out."""
    found = Decimal(0)
    for amount in amounts:
        found = _EXACT.add(found, amount or Decimal(0))
    return found


def cost(kind: UsageKind, sku: str, quantity: int, table: PriceTable) -> Decimal | None:
    """What this much usage costs, rounded to 1e-15; None if the table has no price for it."""
    (found,) = bill([Usage(kind, sku, quantity)], table).charges
    return found.amount


def usage_type(kind: UsageKind, sku: str, prefix: str) -> str:
    """The name on AWS's invoice, such as `EUW3-ServerlessInf:Mem-4GB` for sku "4096"."""
    gb = shown(Fraction(int(sku), 1024)) if sku.isdecimal() else sku
    return _USAGE_TYPES[kind].format(prefix=prefix, gb=gb, sku=sku)


def serverless_billed_ms(duration_ns: int, startup_ns: int, include_startup: bool) -> int:
    """The milliseconds that one invocation is billed.

    Durations are billed per millisecond; that a started one counts whole is Lambda's rule. AWS does
    not say whether starting an environment is billed: `include_startup` decides. Raises ValueError
    for a negative duration.
    """
    if duration_ns < 0 or startup_ns < 0:
        raise ValueError(f"a duration is negative: {duration_ns} ns, start-up {startup_ns} ns")
    billed_ns = duration_ns + (startup_ns if include_startup else 0)
    return -(-billed_ns // MILLISECOND)


def shown(value: Fraction) -> Decimal:
    """The decimal nearest to the fraction with 15 places, half to even, without idle zeros."""
    # `round` on a Fraction is exact and rounds half to even.
    places = Decimal(round(value * 10**PLACES)).scaleb(-PLACES, _EXACT).normalize(_EXACT)
    whole = places == places.to_integral_value(context=_EXACT)
    return places.quantize(Decimal(1), context=_EXACT) if whole else places  # 20, never 2E+1


class _Rate(NamedTuple):
    """What tells the lines of a bill apart. `order` is that of lines with the same price."""

    kind: UsageKind
    sku: str
    usage_type: str
    order: int
    note: str
    amount: Decimal | None
    origin: tuple[str, str, str, str]  # source, date, confidence, since


def _rates(counted: Counted) -> Iterator[tuple[Fraction, _Rate]]:
    """The shares of a usage, each with its rate. Those that are charged add up to 1."""
    usage, price = counted.usage, counted.table.find(counted.usage.kind, counted.usage.sku)
    kind, sku = usage.kind, usage.sku
    if price is None:
        yield Fraction(1), _Rate(kind, sku, counted.usage_type, 0, "", None, ("", "", "", ""))
        return

    def rate(order: int, note: str, amount: Decimal) -> _Rate:
        origin = (price.source, price.date, price.confidence, price.since)
        return _Rate(kind, sku, price.usage_type, order, note, amount, origin)

    if counted.free:
        yield counted.free, rate(_LAST, "free tier", Decimal(0))
    saved = counted.saved if kind in SAVED else Decimal(0)
    for number, (share, amount) in enumerate(_tiered(price, counted.tiers)):
        share *= 1 - counted.free
        above = f"above {price.tiers[number - 1].above:f} {price.unit} a month" if number else ""
        if share:
            yield share, rate(number, above, amount)
            if saved:
                note = ", ".join(filter(None, (above, f"savings plan, {saved:f} of {amount:f}")))
                yield share, rate(number, note, _EXACT.multiply(amount, -saved))


def _tiered(price: Price, shares: tuple[Fraction, ...]) -> Iterator[tuple[Fraction, Decimal]]:
    """Where the price stays the same at its boundaries, one line says so as well as several."""
    if not price.varies:
        yield Fraction(1), price.amount
        return
    amounts = (price.amount, *(tier.amount for tier in price.tiers))
    yield from zip(shares, amounts, strict=False)


def _place(rate: _Rate) -> tuple[Any, ...]:
    kind = _KINDS.index(rate.kind)
    since = rate.origin[-1]
    return kind, len(rate.sku), rate.sku, rate.usage_type, since, rate.order, rate.note, rate.origin


def _charge(rate: _Rate, used: Fraction) -> Charge:
    measure = MEASURES[rate.kind]
    quantity = used / measure.base_units
    exact = None if rate.amount is None else quantity * Fraction(rate.amount)
    source, date, confidence, since = rate.origin
    return Charge(
        rate.kind,
        rate.sku,
        rate.usage_type,
        measure.unit,
        used,
        shown(quantity),
        rate.amount,
        None if exact is None else shown(exact),
        exact,
        source,
        date,
        confidence,
        since,
        rate.note,
    )
