"""What a bill is asked for: its period, its grouping, and the options of its prices, from text.

Every ValidationException names the parameter, its value and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from emulator.billing import MOST_SAVED
from emulator.clock import iso
from emulator.core import SECOND
from emulator.errors import ValidationException

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_NS = 9_000_000_000 * SECOND  # the year 2255; the ledger's instants are 64-bit


class GroupBy(StrEnum):
    """What the lines of a bill can be put together by."""

    ENDPOINT = "endpoint"
    PERSONA = "persona"
    USAGE_TYPE = "usage_type"
    REGION = "region"
    ACCOUNT = "account"
    DAY = "day"


class Form(StrEnum):
    """What a bill can be written as."""

    JSON = "json"
    HTML = "html"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Terms:
    """Which usage a bill covers, from `from_ns` up to but without `to_ns`, and at what prices.

    `region` is the one whose prices hold, "" for each usage's own. `savings_plan` is the part of
    the price of instance hours that a commitment takes off.
    """

    from_ns: int | None = None
    to_ns: int | None = None
    endpoint: str = ""
    group_by: GroupBy | None = None
    region: str = ""
    include_startup: bool = False
    free_tier: bool = False
    savings_plan: Decimal = Decimal(0)
    form: Form | None = None

    def document(self) -> dict[str, Any]:
        """What was asked for beyond the usual, as JSON types."""
        return {
            "from": None if self.from_ns is None else iso(self.from_ns),
            "to": None if self.to_ns is None else iso(self.to_ns),
            "endpoint": self.endpoint or None,
            "group_by": self.group_by,
            "prices_of": self.region or None,
            "include_startup": self.include_startup,
            "free_tier": self.free_tier,
            "savings_plan": f"{self.savings_plan:f}",
        }


def read(given: Mapping[str, str], bill_startup: bool, regions: tuple[str, ...], now: int) -> Terms:
    """The terms that parameters make. `bill_startup` is what holds unless one says otherwise.

    Raises ValidationException for the first that is unknown or cannot be.
    """
    for name in given:
        if name not in PARAMETERS:
            close = difflib.get_close_matches(name, PARAMETERS, n=1)
            meant = f"did you mean {close[0]}? It" if close else "it"
            raise ValidationException(
                f"The bill has no parameter {name[:80]!r}: {meant} takes {', '.join(PARAMETERS)}."
            )
    values = {name: PARAMETERS[name].parse(name, text) for name, text in given.items()}
    terms = Terms(
        values.get("from"),
        values.get("to"),
        values.get("endpoint", ""),
        values.get("group_by"),
        values.get("region", ""),
        values.get("include_startup", bill_startup),
        values.get("free_tier", False),
        values.get("savings_plan", Decimal(0)),
        values.get("format"),
    )
    _check_period(terms, now)
    if terms.region and terms.region not in regions:
        raise ValidationException(
            f"region is {terms.region[:80]!r}, which has no price table: it is one of "
            f"{', '.join(regions)}."
        )
    return terms


def _check_period(terms: Terms, now: int) -> None:
    if terms.from_ns is not None and terms.from_ns > now:
        raise ValidationException(
            f"from is {iso(terms.from_ns)}, which is in the future: the server's clock stands at "
            f"{iso(now)}, so give an earlier one."
        )
    if terms.from_ns is not None and terms.to_ns is not None and terms.to_ns <= terms.from_ns:
        raise ValidationException(
            f"to is {iso(terms.to_ns)}, which is not after from ({iso(terms.from_ns)}): swap them, "
            "or give a later one."
        )


def _wrong(name: str, text: str, expected: str) -> ValidationException:
    return ValidationException(f"{name} is {text[:80]!r}: it is {expected}.")


def instant(name: str, text: str) -> int:
    """Nanoseconds of an ISO 8601 date or instant, of UTC unless it says otherwise."""
    for written in (text, text.replace(" ", "+")):  # a plus that nobody escaped
        try:
            date = datetime.fromisoformat(written)
            date = date if date.tzinfo else date.replace(tzinfo=UTC)
            found = (date - _EPOCH) // timedelta(microseconds=1) * 1000
        except (ValueError, OverflowError):
            continue
        if 0 <= found <= _LATEST_NS:
            return found
    raise _wrong(
        name, text, "an ISO 8601 date or instant, such as 2026-09-01 or 2026-09-01T12:00:00Z"
    )


def _text(name: str, text: str) -> str:
    if not text:
        raise _wrong(name, text, "a name that is not empty; leave it out for all")
    return text


def _switch(name: str, text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True}
    known |= {"0": False, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise _wrong(name, text, "true or false")
    return known[text.lower()]


def _saved(name: str, text: str) -> Decimal:
    try:
        rate = Decimal(text) if len(text) < 32 else Decimal("NaN")
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite() or not 0 <= rate <= MOST_SAVED:
        raise _wrong(name, text, f"a number from 0 to {MOST_SAVED}")
    return rate.copy_abs()  # no minus zero


def _one_of(kind: type[StrEnum]) -> Callable[[str, str], StrEnum]:
    def parse(name: str, text: str) -> StrEnum:
        if text not in set(kind):
            raise _wrong(name, text, f"one of {', '.join(kind)}")
        return kind(text)

    return parse


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of the parameters, how it is read, and what it is."""

    parse: Callable[[str, str], Any]
    help: str


PARAMETERS: Mapping[str, Parameter] = {
    "from": Parameter(instant, "The first instant: an ISO 8601 date or instant, in UTC."),
    "to": Parameter(instant, "The first instant that is left out; else there is no end."),
    "endpoint": Parameter(_text, "The endpoints of this name alone."),
    "group_by": Parameter(_one_of(GroupBy), f"Put lines together: {', '.join(GroupBy)}."),
    "region": Parameter(_text, "The region whose prices hold, instead of each endpoint's own."),
    "include_startup": Parameter(_switch, "Whether the start-up time of cold starts is billed."),
    "free_tier": Parameter(_switch, "Whether what AWS gives new accounts each month is free."),
    "savings_plan": Parameter(_saved, f"What a plan takes off instance hours: 0 to {MOST_SAVED}."),
    "format": Parameter(_one_of(Form), f"{', '.join(Form)}; else what Accept asks for."),
}
