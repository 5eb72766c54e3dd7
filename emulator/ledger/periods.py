"""What was used and asked in a period: of whole days, hours and minutes the roll-ups, of the rest
the rows. However a period is split, the parts add up to it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from emulator.address import Home, Key
from emulator.billing import Usage, UsageKind
from emulator.core import Persona
from emulator.ledger.rows import ENVIRONMENTS, TRAINED, Counts, Place, Roll, UsageRecord
from emulator.ledger.schema import DAY, MINUTE, ROLL, WIDTHS

EVER, END = 0, 106_751 * DAY  # all days that fit 64 bits
DROPPED = "dropped-before-ns"  # in meta: whole minutes, of which there are roll-ups only

_Held = tuple[str, str, str, str, str, str, int, int]
_Site = tuple[str, str, str, str, str, UsageKind, str]
_METERED_BY: dict[UsageKind, str] = {
    UsageKind.PROVISIONED_USAGE: Persona.SERVERLESS,
    UsageKind.TRAINING: TRAINED,
}
# Multiplied by the units outside: GB-nanoseconds of a few years would not fit 64 bits.
_HELD = f"""
    SELECT endpoint, variant, region, account, kind, sku, units,
           SUM(MIN(until_ns, :to) - MAX(started_ns, :from))
    FROM meters
    WHERE until_ns > :from AND started_ns < :to AND kind <> '{ENVIRONMENTS}'
    GROUP BY endpoint, variant, region, account, kind, sku, units
"""
_OF_PLACE = ", ".join(f"p.{name}" for name in Place._fields)
_OF_ROLL = ", ".join(f"r.{name}" for name in Roll._fields[1:])
# For each place a range of its own, which is where its rolls are.
_ROLLED = f"""
    SELECT {_OF_PLACE}, {_OF_ROLL} FROM places AS p CROSS JOIN {{table}} AS r
    WHERE r.place = p.id AND r.start >= :from AND r.start < :to AND {{which}}
"""
_SUMMED = ("invocations", "cold_starts", "throttles", "errors", "billed_ms", "billed_startup_ms",
           "bytes_in", "bytes_out")  # fmt: skip
_SUMS = f"""
    SELECT place, {", ".join(f"SUM({name})" for name in _SUMMED)} FROM {{source}}
    WHERE start >= :from AND start < :to GROUP BY place
"""
# The rows of a part of one minute: the numbers that its rolls have bound the search.
_PART = ROLL.format(
    width=MINUTE,
    which="""
        seq BETWEEN (SELECT MIN(first) FROM places AS p CROSS JOIN minutes AS m
                     WHERE m.place = p.id AND m.start = :minute)
                AND (SELECT MAX(last) FROM places AS p CROSS JOIN minutes AS m
                     WHERE m.place = p.id AND m.start = :minute)
        AND at_ns >= :from AND at_ns < :to
    """,
)
_NAMES = ("place", "start", *Roll._fields[2:])


class Sum(NamedTuple):
    """The calls of one place in a period, as far as bills and counts need them."""

    invocations: int
    cold_starts: int
    throttles: int
    errors: int
    billed_ms: int
    billed_startup_ms: int
    bytes_in: int
    bytes_out: int


def bounds(from_ns: int | None, to_ns: int | None) -> tuple[int, int]:
    """A period whose ends may be left out."""
    return (EVER if from_ns is None else from_ns, END if to_ns is None else to_ns)


def pieces(from_ns: int, to_ns: int) -> Iterator[tuple[str, int, int]]:
    """A period as whole days, hours and minutes, in units of their own, and parts of minutes, which
    are called "calls", in nanoseconds."""
    yield from _pieces(from_ns, to_ns, [*reversed(WIDTHS.items())])


def _pieces(
    from_ns: int, to_ns: int, widths: list[tuple[str, int]]
) -> Iterator[tuple[str, int, int]]:
    if from_ns >= to_ns:
        return
    if not widths:
        yield "calls", from_ns, to_ns
        return
    (name, width), *finer = widths
    first, last = -(-from_ns // width), to_ns // width
    if first > last:  # inside of one
        yield from _pieces(from_ns, to_ns, finer)
        return
    yield from _pieces(from_ns, first * width, finer)
    if first < last:
        yield name, first, last
    yield from _pieces(last * width, to_ns, finer)


def statement(
    reader: sqlite3.Connection, from_ns: int, to_ns: int, include_startup: bool
) -> tuple[list[UsageRecord], dict[Key, Counts]]:
    """The usage and the counts of a period, deleted endpoints included."""
    held = list(reader.execute(_HELD, {"from": from_ns, "to": to_ns}))
    sums = _sums(reader, from_ns, to_ns)
    return _records(sums, held, include_startup), _counts(sums)


def rolls(
    reader: sqlite3.Connection,
    table: str,
    first: int,
    last: int,
    which: str,
    wanted: dict[str, Any],
) -> Iterator[Roll]:
    """The rolls of a table from `first` up to but without `last`, by place and start."""
    found = reader.execute(
        _ROLLED.format(table=table, which=which), {**wanted, "from": first, "to": last}
    )
    split = len(Place._fields)
    for row in found:
        yield Roll(_place(row[:split]), *row[split:])


def _sums(reader: sqlite3.Connection, from_ns: int, to_ns: int) -> dict[Place, Sum]:
    totals: dict[int, tuple[int, ...]] = {}
    for name, first, last in pieces(from_ns, to_ns):
        for place, *added in _of_piece(reader, name, first, last):
            so_far = totals.get(place, (0,) * len(added))
            totals[place] = tuple(map(sum, zip(so_far, added, strict=True)))
    places = reader.execute(f"SELECT id, {', '.join(Place._fields)} FROM places")
    return {_place(one): Sum(*totals[number]) for number, *one in places if number in totals}


def _of_piece(
    reader: sqlite3.Connection, name: str, first: int, last: int
) -> Iterable[tuple[int, ...]]:
    if name != "calls":
        source = f"places AS p CROSS JOIN {name} AS r ON r.place = p.id"
        return reader.execute(_SUMS.format(source=source), {"from": first, "to": last})
    minute = first // MINUTE
    if minute * MINUTE < dropped_before(reader):
        # Nobody knows when in that minute: it counts at its start, and so only once.
        start = minute if first == minute * MINUTE else minute + 1
        return _of_piece(reader, "minutes", start, minute + 1)
    found = reader.execute(_PART, {"minute": minute, "from": first, "to": last})
    chosen = [_NAMES.index(name) for name in _SUMMED]
    return [(row[0], *(row[number] for number in chosen)) for row in found]


def dropped_before(reader: sqlite3.Connection) -> int:
    found = reader.execute("SELECT value FROM meta WHERE key = ?", (DROPPED,)).fetchone()
    return int(found[0]) if found else 0


def _place(values: Iterable[Any]) -> Place:
    place = Place(*values)
    return place._replace(provisioned=bool(place.provisioned))


def _records(sums: dict[Place, Sum], held: list[_Held], include_startup: bool) -> list[UsageRecord]:
    totals: Counter[_Site] = Counter()
    for site, quantity in (*_used(sums, include_startup), *_metered(held)):
        totals[site] += quantity
    return [
        UsageRecord(endpoint, variant, persona, region, account, Usage(kind, sku, quantity))
        for (endpoint, variant, persona, region, account, kind, sku), quantity in sorted(
            totals.items()
        )
        if quantity
    ]


def _used(sums: dict[Place, Sum], include_startup: bool) -> Iterator[tuple[_Site, int]]:
    for place, one in sums.items():
        where = (place.endpoint, place.variant, place.persona, place.region, place.account)
        billed_ms = one.billed_startup_ms if include_startup else one.billed_ms
        provisioned = UsageKind.PROVISIONED_DURATION
        kind = provisioned if place.provisioned else UsageKind.SERVERLESS_DURATION
        yield (*where, kind, str(place.memory_mb)), billed_ms
        yield (*where, UsageKind.DATA_IN, place.persona), one.bytes_in
        yield (*where, UsageKind.DATA_OUT, place.persona), one.bytes_out


def _metered(held: list[_Held]) -> Iterator[tuple[_Site, int]]:
    for endpoint, variant, region, account, kind_name, sku, units, duration_ns in held:
        kind = UsageKind(kind_name)
        persona = str(_METERED_BY.get(kind, Persona.REALTIME))
        yield (endpoint, variant, persona, region, account, kind, sku), units * duration_ns


def _counts(sums: dict[Place, Sum]) -> dict[Key, Counts]:
    counts: dict[Key, Counts] = {}
    for place, one in sums.items():
        key = Key(Home(place.account, place.region), place.endpoint)
        so_far = counts.get(key, Counts())
        counts[key] = Counts(
            so_far.invocations + one.invocations,
            so_far.cold_starts + one.cold_starts,
            so_far.throttles + one.throttles,
            so_far.errors + one.errors,
            place.persona,
        )
    return counts
