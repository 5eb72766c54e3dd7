"""Cost Explorer's GetCostAndUsage, from the bill by day. Knows no protocol and no ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from emulator.billing import total
from emulator.daily import Day
from emulator.errors import ValidationException

SERVICE = "Amazon SageMaker"
_COSTS = ("AmortizedCost", "BlendedCost", "NetAmortizedCost", "NetUnblendedCost", "UnblendedCost")
METRICS = (*_COSTS, "UsageQuantity")
_KEYS: Mapping[str, Callable[[Day], str]] = {
    "SERVICE": lambda day: SERVICE,
    "USAGE_TYPE": lambda day: day.charge.usage_type,
    "REGION": lambda day: day.resource.region,
    "LINKED_ACCOUNT": lambda day: day.resource.account,
    "RESOURCE_ID": lambda day: day.resource.arn,
    "INSTANCE_TYPE": lambda day: (
        day.charge.sku if day.charge.sku[:3] == "ml." else "NoInstanceType"
    ),
}
Params = Mapping[str, Any]


def period(params: Params) -> tuple[datetime, datetime]:
    """The first instant, and the first one behind. Raises ValidationException."""
    given = params["TimePeriod"]
    start, end = (_date(given[name], name) for name in ("Start", "End"))
    if start >= end:
        raise ValidationException("Start date (and hour) should be before end date (and hour)")
    return start, end


def cost_and_usage(params: Params, days: Iterable[Day], currency: str) -> dict[str, Any]:
    """The answer: what was spent in each day or month of the period, in all or by group."""
    start, end = period(params)
    metrics, groups = _metrics(params), _groups(params)
    wanted = _filter(params.get("Filter"))
    chosen = [one for one in days if start <= one.start < end and wanted(one)]
    return {
        "GroupDefinitions": list(params.get("GroupBy", ())),
        "ResultsByTime": [
            _result(first, following, metrics, groups, chosen, currency)
            for first, following in _steps(start, end, params["Granularity"])
        ],
        "DimensionValueAttributes": [],
    }


def _result(
    first: datetime,
    following: datetime,
    metrics: Sequence[str],
    groups: Sequence[Callable[[Day], str]],
    days: Iterable[Day],
    currency: str,
) -> dict[str, Any]:
    found: dict[tuple[str, ...], list[Day]] = {}
    for one in days:
        if first <= one.start < following:
            found.setdefault(tuple(group(one) for group in groups), []).append(one)
    whole = [one for some in found.values() for one in some]
    return {
        "TimePeriod": {"Start": f"{first:%Y-%m-%d}", "End": f"{following:%Y-%m-%d}"},
        "Total": {} if groups else _amounts(metrics, whole, currency),
        "Groups": [
            {"Keys": list(keys), "Metrics": _amounts(metrics, some, currency)}
            for keys, some in sorted(found.items())
        ]
        if groups
        else [],
        "Estimated": True,
    }


def _amounts(
    metrics: Sequence[str], days: Sequence[Day], currency: str
) -> dict[str, dict[str, str]]:
    units = {one.charge.unit for one in days}
    unit = units.pop() if len(units) == 1 else "N/A"
    cost = total(one.charge.amount for one in days)
    quantity = total(one.charge.quantity for one in days)
    return {
        name: {"Amount": _plain(quantity), "Unit": unit}
        if name == "UsageQuantity"
        else {"Amount": _plain(cost), "Unit": currency}
        for name in metrics
    }


def _plain(number: Decimal) -> str:
    return f"{number:f}"


def _date(text: str, name: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValidationException(
            f"{name} {text!r} is not a date such as 2026-09-01; hours are not kept here."
        ) from None


def _steps(start: datetime, end: datetime, granularity: str) -> Iterable[tuple[datetime, datetime]]:
    if granularity not in ("DAILY", "MONTHLY"):
        raise ValidationException(f"Granularity is {granularity}: here it is DAILY or MONTHLY.")
    while start < end:
        following = start + timedelta(days=1)
        if granularity == "MONTHLY":
            following = (start.replace(day=1) + timedelta(days=31)).replace(day=1)
        yield start, min(following, end)
        start = following


def _metrics(params: Params) -> list[str]:
    for name in params["Metrics"]:
        if name not in METRICS:
            known = ", ".join(METRICS)
            raise ValidationException(f"Metrics has {name!r}: it is one of {known}.")
    return list(params["Metrics"])


def _groups(params: Params) -> list[Callable[[Day], str]]:
    given = params.get("GroupBy", ())
    if len(given) > 2:
        raise ValidationException("Only up to 2 GroupBy objects are allowed.")
    return [_key(one.get("Type", "DIMENSION"), one.get("Key", ""), "GroupBy") for one in given]


def _key(kind: str, name: str, where: str) -> Callable[[Day], str]:
    if kind != "DIMENSION" or name not in _KEYS:
        known = ", ".join(_KEYS)
        raise ValidationException(f"{where} has {kind} {name}: here it is a DIMENSION of {known}.")
    return _KEYS[name]


def _filter(given: Params | None) -> Callable[[Day], bool]:
    """An expression of Dimensions, And, Or and Not."""
    if not given:
        return lambda day: True
    if len(given) != 1:
        raise ValidationException("An expression of Filter has one root: combine them with And.")
    ((name, inside),) = given.items()
    if name in ("And", "Or"):
        parts = [_filter(one) for one in inside]
        combine = all if name == "And" else any
        return lambda day: combine(part(day) for part in parts)
    if name == "Not":
        other = _filter(inside)
        return lambda day: not other(day)
    if name != "Dimensions":
        raise ValidationException(f"Filter has {name}: here it has Dimensions, And, Or and Not.")
    key = _key("DIMENSION", inside.get("Key", ""), "Filter")
    values = frozenset(inside.get("Values", ()))
    return lambda day: key(day) in values
