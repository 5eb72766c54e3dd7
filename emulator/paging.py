"""The lists of the control plane: filtered, sorted, and given a page at a time.

A NextToken names the last entry that was given, so that pages neither repeat nor miss an entry that
was there all the time, whatever else comes and goes between them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from emulator.core import SECOND
from emulator.errors import ValidationException

PAGE = 10  # what the API gives without MaxResults


@dataclass(frozen=True, slots=True)
class Entry:
    """What a list can be filtered and sorted by. Instants in nanoseconds."""

    name: str
    created: int
    modified: int = 0
    status: str = ""


_LIKE = Entry("", 0)  # for the types of what entries are sorted by


def page(
    entries: Iterable[Entry], wanted: Mapping[str, Any], size: int = PAGE
) -> tuple[list[Entry], str | None]:
    """The entries that a List request asks for, and the token of the next page.

    Raises ValidationException for a token that is not one of ours.
    """
    order = _SORTED[wanted.get("SortBy", "CreationTime")]
    descending = wanted.get("SortOrder", "Descending") == "Descending"
    found = sorted(filter(_matching(wanted), entries), key=order, reverse=descending)
    if token := wanted.get("NextToken"):
        last = _read(token, _order(wanted), order(_LIKE))
        found = [one for one in found if (order(one) < last) == descending and order(one) != last]
    size = wanted.get("MaxResults", size)
    given = found[:size]
    return given, _token(_order(wanted), order(given[-1])) if len(found) > size else None


def _matching(wanted: Mapping[str, Any]) -> Callable[[Entry], bool]:
    named = wanted.get("NameContains", "").lower()
    status = wanted.get("StatusEquals")
    bounds = [
        (member, attribute, wanted[f"{member}{side}"] * SECOND, side == "After")
        for member, attribute in (("CreationTime", "created"), ("LastModifiedTime", "modified"))
        for side in ("After", "Before")
        if f"{member}{side}" in wanted
    ]

    def matches(entry: Entry) -> bool:
        return (
            named in entry.name.lower()
            and status in (None, entry.status)
            and all(
                getattr(entry, attribute) > bound if after else getattr(entry, attribute) < bound
                for _, attribute, bound, after in bounds
            )
        )

    return matches


# By name at the end, so that no two entries are equal.
_SORTED: Mapping[str, Callable[[Entry], tuple[Any, ...]]] = {
    "Name": lambda entry: (entry.name,),
    "CreationTime": lambda entry: (entry.created, entry.name),
    "Status": lambda entry: (entry.status, entry.created, entry.name),
}


def _order(wanted: Mapping[str, Any]) -> str:
    return f"{wanted.get('SortBy', '')} {wanted.get('SortOrder', '')}"


def _token(order: str, place: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([order, *place])).decode()


def _read(token: str, order: str, like: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        read = orjson.loads(base64.urlsafe_b64decode(token))
        if not isinstance(read, list) or [*map(type, read)] != [str, *map(type, like)]:
            raise ValueError
        if read[0] != order:
            raise ValueError
    except (ValueError, binascii.Error):
        raise ValidationException(
            f"The NextToken {token[:80]!r} is none of a list in this order."
        ) from None
    return tuple(read[1:])
