"""Usage x price table -> charges, exactly. Reads no clock, no file and no price of its own.

Usage is counted in integers of a base unit (milliseconds, unit-nanoseconds, bytes). A charge keeps
its exact amount as a fraction, so that splitting a period or merging two ledgers adds up to the
same fraction; what is shown is that fraction rounded once, half to even, to 1e-15 of the currency.
The shown total of a bill is the sum of its shown amounts, so every bill adds up as printed; it
differs from the exact total by less than 1e-15 per charge.

1 GB is 1024^3 bytes (AWS's serverless benchmarking toolkit divides by it) and a GB-month is 30
days of 24 hours (20 GB held for 10 days are 6.67 GB-Mo).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum
from fractions import Fraction

from emulator.core import GIB, MILLISECOND, SECOND

HOUR = 3600 * SECOND
MONTH = 30 * 24 * HOUR
PLACES = 15
QUANTUM = Decimal(1).scaleb(-PLACES)
# The caller's decimal context (28 digits by default) must never round a bill.
_EXACT = Context(prec=1000, rounding=ROUND_HALF_EVEN)


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


@dataclass(frozen=True, slots=True)
class Measure:
    """How a kind is sold: the price list's unit, and how many base units make one of it."""

    unit: str
    base_units: int


MEASURES: Mapping[UsageKind, Measure] = {
    UsageKind.SERVERLESS_DURATION: Measure("Seconds", SECOND // MILLISECOND),
    UsageKind.PROVISIONED_DURATION: Measure("Seconds", SECOND // MILLISECOND),
    UsageKind.PROVISIONED_USAGE: Measure("Seconds", SECOND),
    UsageKind.INSTANCE: Measure("Hrs", HOUR),
    UsageKind.TRAINING: Measure("Hrs", HOUR),
    UsageKind.VOLUME: Measure("GB-Mo", MONTH),
    UsageKind.DATA_IN: Measure("GB", GIB),
    UsageKind.DATA_OUT: Measure("GB", GIB),
}

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
class Price:
    """The price of one `unit`, and how far to trust it: where it was read, when, and whether it is
    sure (price list or invoice), likely (repeated consistently) or derived (from a rule)."""

    usage_type: str
    unit: str
    amount: Decimal
    source: str
    date: str
    confidence: str


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The prices of one region. `prefix` is how its usage types begin ("EUW3")."""

    region: str
    prefix: str
    currency: str
    prices: Mapping[tuple[UsageKind, str], Price]

    def find(self, kind: UsageKind, sku: str) -> Price | None:
        """The price of this sku, else the one that holds for every sku of the kind (data)."""
        return self.prices.get((kind, sku)) or self.prices.get((kind, ""))


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of a bill: `quantity` in the price list's `unit`, times the price of one.

    `exact` is the amount as a fraction and adds up without loss; `amount` is the same rounded once
    to 1e-15. All of `price`, `amount` and `exact` are None where the table has no price: what is
    used without a price is listed, and never passes for free.
    """

    kind: UsageKind
    sku: str
    usage_type: str
    unit: str
    usage: int
    quantity: Decimal
    price: Decimal | None
    amount: Decimal | None
    exact: Fraction | None
    source: str = ""
    date: str = ""
    confidence: str = ""


@dataclass(frozen=True, slots=True)
class Bill:
    """Charges in one currency, one for each kind and sku that was used."""

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
    """Price the usages: those of one kind and sku become one charge, in the kinds' order."""
    totals: dict[tuple[UsageKind, str], int] = {}
    for usage in usages:
        key = (usage.kind, usage.sku)
        totals[key] = totals.get(key, 0) + usage.quantity
    charges = (_charge(kind, sku, quantity, table) for kind, sku, quantity in _ordered(totals))
    return Bill(table.region, table.currency, tuple(charges))


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    """The exact sum, whatever the caller's decimal context; None, for no price, is left out."""
    found = Decimal(0)
    for amount in amounts:
        found = _EXACT.add(found, amount or Decimal(0))
    return found


def cost(kind: UsageKind, sku: str, quantity: int, table: PriceTable) -> Decimal | None:
    """What this much usage costs, rounded to 1e-15; None if the table has no price for it."""
    return _charge(kind, sku, Usage(kind, sku, quantity).quantity, table).amount


class Tariff:
    """`cost` for where it is asked at every call: the same figures, from rates worked out once."""

    def __init__(self, table: PriceTable) -> None:
        self._table = table
        self._rates: dict[tuple[UsageKind, str], tuple[int, int] | None] = {}

    def quanta(self, kind: UsageKind, sku: str, quantity: int) -> int | None:
        """The cost of this much usage in units of 1e-15, half to even; None without a price."""
        key = (kind, sku)
        if key not in self._rates:
            self._rates[key] = self._rate(kind, sku)
        rate = self._rates[key]
        if rate is None:
            return None
        whole, rest = divmod(quantity * rate[0], rate[1])
        return whole + (2 * rest > rate[1] or (2 * rest == rate[1] and whole % 2 == 1))

    def _rate(self, kind: UsageKind, sku: str) -> tuple[int, int] | None:
        """Units of 1e-15 for one base unit, as numerator and denominator."""
        price = self._table.find(kind, sku)
        if price is None:
            return None
        rate = Fraction(price.amount) * 10**PLACES / MEASURES[kind].base_units
        return rate.numerator, rate.denominator


def plain(quanta: int) -> str:
    """An amount in units of 1e-15 as a decimal number without idle zeros."""
    whole, places = divmod(quanta, 10**PLACES)
    return f"{whole}.{places:0{PLACES}d}".rstrip("0").rstrip(".")


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


def _ordered(
    totals: Mapping[tuple[UsageKind, str], int],
) -> list[tuple[UsageKind, str, int]]:
    kinds = list(UsageKind)
    keys = sorted(totals, key=lambda key: (kinds.index(key[0]), len(key[1]), key[1]))
    return [(kind, sku, totals[kind, sku]) for kind, sku in keys]


def _charge(kind: UsageKind, sku: str, usage: int, table: PriceTable) -> Charge:
    measure = MEASURES[kind]
    quantity = Fraction(usage, measure.base_units)
    name = usage_type(kind, sku, table.prefix)
    price = table.find(kind, sku)
    if price is None:
        return Charge(kind, sku, name, measure.unit, usage, shown(quantity), None, None, None)
    exact = quantity * Fraction(price.amount)
    return Charge(
        kind,
        sku,
        price.usage_type,
        measure.unit,
        usage,
        shown(quantity),
        price.amount,
        shown(exact),
        exact,
        price.source,
        price.date,
        price.confidence,
    )
