"""A bill as tests ask for it: its lines, and the sum as a person would check it. Made of what
`GET /billing` answers; pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

Amount = str | int | Decimal


@dataclass(frozen=True, slots=True)
class Line:
    """`quantity` in `unit`s at `price` each; no price and no amount where no price is known."""

    usage_type: str
    quantity: Decimal
    unit: str
    price: Decimal | None
    amount: Decimal | None
    note: str = ""

    def sum(self) -> str:
        quantity = f"{self.quantity:f} {self.unit}"
        if self.price is None or self.amount is None:
            return f"{quantity} has no price"
        note = f" ({self.note})" if self.note else ""
        return f"{quantity} x {self.price:f} = {self.amount:f}{note}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one endpoint has cost, or all of a server. `str()` of it is the sum, line by line."""

    name: str  # empty for everything
    currency: str
    total: Decimal
    lines: tuple[Line, ...] = field(repr=False)
    invocations: int = 0
    cold_starts: int = 0
    throttles: int = 0
    errors: int = 0

    @property
    def complete(self) -> bool:
        """False if something was used that no price is known for; it is not in the total."""
        return all(line.amount is not None for line in self.lines)

    @property
    def whose(self) -> str:
        return self.name or "Everything"

    def __str__(self) -> str:
        width = max([len(line.usage_type) for line in self.lines] + [len("total")])
        rows = [f"  {line.usage_type:<{width}}  {line.sum()}" for line in self.lines]
        return "\n".join([*rows, f"  {'total':<{width}}  {self.total:f} {self.currency}"])


def receipt(document: Mapping[str, Any], name: str = "") -> Receipt:
    """The receipt of the endpoint of that name, in whatever region, else of the whole bill.

    Raises LookupError with a sentence for an endpoint that is not on the bill.
    """
    endpoints = document["endpoints"]
    entries = [one for one in endpoints if not name or one["name"] == name]
    if name and not entries:
        known = ", ".join(sorted({one["name"] for one in endpoints})) or "none"
        raise LookupError(f"There is no endpoint {name} on the bill: it has {known}.")
    counted = {what: sum(one[what] for one in entries) for what in _COUNTED}
    entries += [] if name else document["training_jobs"]
    lines = [_line(line) for one in entries for line in one["lines"]]
    total = sum((Decimal(one["total"]) for one in entries), Decimal(0))
    return Receipt(name, document["currency"], total, tuple(lines), **counted)


def exact(amount: Amount, what: str) -> Decimal:
    """An amount of money. Raises TypeError for a float, which is not what it was written as, and
    ValueError for what is no amount."""
    if isinstance(amount, float):
        text = f"{Decimal(repr(amount)):f}"
        raise TypeError(f'{what} is {amount!r}, a float: write it as a text, "{text}".')
    try:
        found = Decimal(amount)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise ValueError(f'{what} is {amount!r}; expected an amount such as "0.001".')
    return found


def complaint(found: Receipt, at_most: Amount | None, at_least: Amount | None) -> str:
    """What is wrong with a bill that should be within these bounds, sum included; empty if
    nothing is. Raises as `exact`, and ValueError if neither is given."""
    if at_most is None and at_least is None:
        raise ValueError('Say what it may cost, as in assert_costs(name, at_most="0.01").')
    said = ""
    if at_most is not None:
        most = exact(at_most, "at_most")
        if found.total > most:
            said = f", which is {found.total - most:f} more than {most:f}"
        elif not found.complete:
            said = f" and what has no price, which may be more than {most:f}"
    if at_least is not None and found.total < (least := exact(at_least, "at_least")):
        said = f", which is {least - found.total:f} less than {least:f}"
    if not said:
        return ""
    return f"{found.whose} cost {found.total:f} {found.currency}{said}.\n{found}\n  {_calls(found)}"


def _calls(found: Receipt) -> str:
    parts: Sequence[tuple[int, str]] = (
        (found.invocations, "call"),
        (found.cold_starts, "cold start"),
        (found.throttles, "throttle"),
        (found.errors, "error"),
    )
    said = [f"{count} {what}{'' if count == 1 else 's'}" for count, what in parts]
    return ", ".join(said)


def _line(document: Mapping[str, Any]) -> Line:
    price, amount = document["price"], document["amount"]
    return Line(
        document["usage_type"],
        Decimal(document["quantity"]),
        document["unit"],
        None if price is None else Decimal(price),
        None if amount is None else Decimal(amount),
        document["note"],
    )


_COUNTED = ("invocations", "cold_starts", "throttles", "errors")
