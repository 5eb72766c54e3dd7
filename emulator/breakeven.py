"""Serverless against an instance: what each costs, and at how many calls a day they cost the same.

Exact: every figure is a fraction of the price table's. Both personas pay the same for data, so the
first break-even leaves it out; the second charges it to the serverless side alone, as comparisons
of a call's price with an instance's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from emulator.billing import Price, PriceTable, UsageKind, shown
from emulator.core import GIB
from emulator.errors import SetupError

MILLION = 1_000_000
HOURS = 24  # of a day
DECIMAL_GB = 10**9


@dataclass(frozen=True, slots=True)
class Question:
    """Calls of one kind: memory of the serverless endpoint, billed time, bytes in and out, and the
    instance that would serve them instead."""

    memory_mb: int
    duration_ms: Decimal
    request_bytes: int
    response_bytes: int
    instance: str


@dataclass(frozen=True, slots=True)
class Breakeven:
    """The answer, in the table's currency. `million` is what a million calls cost serverless."""

    question: Question
    table: PriceTable
    second: Price
    hour: Price
    data_in: Price
    data_out: Price

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.question.duration_ms) / 1000

    @property
    def duration(self) -> Fraction:
        """A million calls' time."""
        return MILLION * self.seconds * Fraction(self.second.amount)

    def moved_in(self, gigabyte: int = GIB) -> Fraction:
        """A million calls' data in, a GB having so many bytes."""
        size = Fraction(self.question.request_bytes, gigabyte)
        return MILLION * size * Fraction(self.data_in.amount)

    def moved_out(self, gigabyte: int = GIB) -> Fraction:
        size = Fraction(self.question.response_bytes, gigabyte)
        return MILLION * size * Fraction(self.data_out.amount)

    @property
    def million(self) -> Fraction:
        return self.duration + self.moved_in() + self.moved_out()

    @property
    def day(self) -> Fraction:
        """An instance's day."""
        return HOURS * Fraction(self.hour.amount)

    @property
    def calls(self) -> Fraction:
        """Calls a day at which both cost the same; both pay for data."""
        return self.day / self.duration * MILLION

    @property
    def calls_with_data(self) -> Fraction:
        """The same where the data is charged to the serverless side alone."""
        return self.day / self.million * MILLION

    def formulas(self) -> dict[str, str]:
        """Every figure with the numbers it is made of, a GB being 1024^3 bytes."""
        asked, second, time = self.question, f"{self.second.amount:f}", plain(self.seconds)
        duration = f"{time} s x {second}"
        sizes = (
            ("data_in", asked.request_bytes, self.data_in.amount, self.moved_in()),
            ("data_out", asked.response_bytes, self.data_out.amount, self.moved_out()),
        )
        terms = [f"{size} B / 1024^3 x {price:f}" for _, size, price, _ in sizes if size]
        whole = " + ".join([duration, *terms])
        return {
            "duration": f"1000000 x {duration} = {plain(self.duration)}",
            **{
                name: f"1000000 x {size} B / 1024^3 x {price:f} = {plain(amount)}"
                for name, size, price, amount in sizes
            },
            "million": f"1000000 x ({whole}) = {plain(self.million)}",
            "day": f"{HOURS} h x {self.hour.amount:f} = {plain(self.day)}",
            "calls_a_day": f"{plain(self.day)} / ({duration}) = {plain(self.calls)}",
            "calls_a_day_with_data": (
                f"{plain(self.day)} / ({whole}) = {plain(self.calls_with_data)}"
            ),
        }

    def document(self) -> dict[str, Any]:
        """JSON types, amounts as decimal strings."""
        asked, data = self.question, self.moved_in(DECIMAL_GB) + self.moved_out(DECIMAL_GB)
        return {
            "region": self.table.region,
            "currency": self.table.currency,
            "memory_mb": asked.memory_mb,
            "duration_ms": f"{asked.duration_ms:f}",
            "request_bytes": asked.request_bytes,
            "response_bytes": asked.response_bytes,
            "instance": asked.instance,
            "gigabyte": GIB,
            "million_calls": {
                "duration": plain(self.duration),
                "data_in": plain(self.moved_in()),
                "data_out": plain(self.moved_out()),
                "total": plain(self.million),
                "data_with_decimal_gigabytes": plain(data),
                "total_with_decimal_gigabytes": plain(self.duration + data),
            },
            "instance_day": plain(self.day),
            "calls_a_day": plain(self.calls),
            "calls_a_day_with_data": plain(self.calls_with_data),
            "formulas": self.formulas(),
        }


def breakeven(question: Question, table: PriceTable) -> Breakeven:
    """Price the question by a table. Raises SetupError if it lacks a price, or if the calls cost
    nothing."""
    found = Breakeven(
        question,
        table,
        _price(table, UsageKind.SERVERLESS_DURATION, str(question.memory_mb)),
        _price(table, UsageKind.INSTANCE, question.instance),
        _price(table, UsageKind.DATA_IN, "serverless"),
        _price(table, UsageKind.DATA_OUT, "serverless"),
    )
    if not found.duration:
        raise SetupError(
            f"A call of {question.duration_ms} ms at {found.second.amount} a second costs nothing, "
            "so there is no break-even: give a longer --duration-ms."
        )
    return found


def plain(value: Fraction) -> str:
    """A figure as a decimal number, rounded once to 1e-15."""
    return f"{shown(value):f}"


def _price(table: PriceTable, kind: UsageKind, sku: str) -> Price:
    price = table.find(kind, sku)
    if price is None:
        known = [name for of, name in table.prices if of is kind and name]
        raise SetupError(
            f"The price table of {table.region} has no price of {kind} for {sku!r}"
            f"{': it has ' + ', '.join(known) if known else ''}."
        )
    return price
