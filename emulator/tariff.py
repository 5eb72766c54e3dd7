"""`billing.cost` for every call: the same figures, from rates that are worked out once."""

from __future__ import annotations

from fractions import Fraction

from emulator.billing import MEASURES, PLACES, PriceTable, UsageKind


class Tariff:
    """The prices of one region at one time, as whole numbers of 1e-15 per base unit."""

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
