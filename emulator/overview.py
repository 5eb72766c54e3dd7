"""What the dashboard shows: what is spent now, how that came about, and what the other mode costs.

Puts together statements, series and decisions; formats nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from emulator import charts, daily, decision, series
from emulator.address import Key
from emulator.billing import UsageKind, shown
from emulator.catalogue import Tables
from emulator.charts import Chart
from emulator.core import SECOND, Persona
from emulator.daily import Day
from emulator.decision import Choice, Sizes, Traffic
from emulator.ledger import Ledger, Window
from emulator.periods import Reading
from emulator.series import DAY, Course, Steps
from emulator.statement import Statement, draw_up
from emulator.terms import GroupBy, Terms

DRAWN = 7  # endpoints that can be told apart in a figure
FIRST = 1_000_000_000 * SECOND  # before there was anything to be hosted


@dataclass(frozen=True, slots=True)
class Hosted:
    """What is hosted now: the persona of each endpoint, and the most environments that it may
    have."""

    personas: Mapping[Key, str]
    concurrency: Mapping[Key, int]


@dataclass(frozen=True, slots=True)
class Spent:
    """What is spent now. `projected` is this month so far, and for each of the `days_left` of it
    what the last 24 hours cost."""

    today: Statement
    month: Statement
    recent: Statement
    days_left: Fraction
    projected: Decimal


@dataclass(frozen=True, slots=True)
class Overview:
    """Looks at one ledger at one moment."""

    ledger: Ledger
    hosted: Hosted
    tables: Tables
    region: str
    now: int

    def bill(self, terms: Terms) -> Statement:
        """The statement for these terms."""
        return draw_up(self.ledger, self.hosted.personas, self.tables, self.region, terms, self.now)

    def days(self, terms: Terms) -> list[Day]:
        """The lines of the bill, day by day. Raises ValidationException for too many days."""
        asked = replace(terms, group_by=GroupBy.DAY)
        parts, _ = Reading(self.ledger, asked, self.tables, self.now).parts()
        named = [one for one in parts if terms.endpoint in ("", one.record.endpoint)]
        return daily.days(named)

    def spent(self, terms: Terms) -> Spent:
        """Whatever the period of the terms."""
        day = self.now // DAY * DAY
        date = datetime.fromtimestamp(self.now // SECOND, UTC)
        month = _first(date.year, date.month)
        following = _first(date.year + date.month // 12, date.month % 12 + 1)
        whole = replace(terms, group_by=None, to_ns=None)
        today, so_far, recent = (
            self.bill(replace(whole, from_ns=start)) for start in (day, month, self.now - DAY)
        )
        left = Fraction(following - self.now, DAY)
        projected = Fraction(so_far.total) + left * Fraction(recent.total)
        return Spent(today, so_far, recent, left, shown(projected))

    # -- over time ----------------------------------------------------------------------------

    def steps(self, terms: Terms) -> Steps:
        """The period of the terms; without a beginning, from the first invocation on."""
        start = terms.from_ns if terms.from_ns is not None else self._first_ns()
        end = self.now + 1 if terms.to_ns is None else min(terms.to_ns, self.now + 1)
        return Steps.of(min(start, end - 1), end)

    def figures(self, terms: Terms) -> list[Chart]:
        """Everything that is drawn."""
        steps = self.steps(terms)
        found = series.courses(self.ledger, steps, terms.endpoint)
        for course in found:
            key = Key(course.home, course.endpoint)
            course.concurrency = self.hosted.concurrency.get(key, 0)
        currency = self.tables.known(terms.region or self.region).latest.currency
        choices = self._choices(found, steps, terms)
        choices.sort(key=lambda one: -one.traffic.calls)
        few = series.busiest(found, DRAWN)
        single = [course for course in few if course.persona]
        return [
            charts.costs(steps, self._costs(steps, terms), currency),
            charts.requests(steps, few),
            charts.latencies(steps, few),
            charts.environments(steps, single),
            charts.memory(steps, single),
            *(charts.decision(one, currency) for one in choices[:DRAWN]),
            charts.trade(choices, currency),
        ]

    def names(self) -> list[str]:
        """The endpoints that there are or were, by name."""
        there = {roll.place.endpoint for roll in self.ledger.rolls("days", 0, self.now // DAY + 1)}
        return sorted(there | {key.name for key in self.hosted.personas})

    def choices(self, terms: Terms) -> list[Choice]:
        """Both modes for each endpoint's traffic in the period."""
        steps = self.steps(terms)
        return self._choices(series.courses(self.ledger, steps, terms.endpoint), steps, terms)

    def elsewhere(self, choices: Sequence[Choice]) -> dict[str, Fraction | None]:
        """What a day of the same traffic on the same modes would cost in each region."""
        tables = (self.tables.known(region).latest for region in self.tables.regions)
        return decision.elsewhere(choices, tables)

    def _first_ns(self) -> int:
        rolls = self.ledger.rolls("days", FIRST // DAY, self.now // DAY + 1)
        return min((roll.start for roll in rolls), default=self.now // DAY) * DAY

    def _costs(self, steps: Steps, terms: Terms) -> dict[str, list[float]]:
        asked = replace(terms, group_by=GroupBy.USAGE_TYPE)
        found: dict[str, list[float]] = {}
        for number, start in enumerate(steps.starts):
            end = min(start + steps.width, self.now + 1)
            for group in self._priced(replace(asked, from_ns=start, to_ns=end)):
                amounts = found.setdefault(group[0], [0.0] * steps.count)
                amounts[number] = group[1]
        return found

    def _priced(self, terms: Terms) -> list[tuple[str, float]]:
        if terms.endpoint:  # the endpoint was there, but maybe not in this step
            parts = self.bill(replace(terms, group_by=None))
            lines = [charge for one in parts.endpoints for charge in one.bill.charges]
            return [(one.usage_type, float(one.amount or 0)) for one in lines]
        return [(one.name, float(one.bill.total)) for one in self.bill(terms).groups]

    def _choices(self, found: Sequence[Course], steps: Steps, terms: Terms) -> list[Choice]:
        made = []
        for course in found:
            traffic = self._traffic(course, steps, terms)
            table = self.tables.known(terms.region or course.region).latest
            chosen = decision.choose(traffic, table, self._sizes(course, traffic, steps, terms))
            if chosen is not None:
                made.append(chosen)
        return made

    def _traffic(self, course: Course, steps: Steps, terms: Terms) -> Traffic:
        whole = course.whole
        length = max(DAY // 24, min(steps.to_ns, self.now) - steps.from_ns)
        latencies = whole.latencies
        return Traffic(
            course.endpoint,
            course.persona,
            course.region,
            length,
            whole.invocations - whole.throttles,
            whole.model_ms,
            whole.startup_ms if terms.include_startup else 0,
            whole.bytes_in,
            whole.bytes_out,
            whole.peak_bytes,
            latencies[1] if latencies else None,
        )

    def _sizes(self, course: Course, traffic: Traffic, steps: Steps, terms: Terms) -> Sizes:
        """What the endpoint has, and for the other mode what would hold its peak."""
        table = self.tables.known(terms.region or course.region).latest
        fitting = decision.sizes(traffic, table)
        if course.persona == Persona.SERVERLESS:
            memory = course.whole.memory_bytes >> 20
            return replace(fitting, memory_mb=memory or fitting.memory_mb)
        window = Window(*course.home, course.endpoint, "AllTraffic", steps.from_ns, steps.to_ns)
        held = self.ledger.units(UsageKind.INSTANCE, window)
        if not held:
            return fitting
        _, _, count, instance_type = held[-1]
        return Sizes(fitting.memory_mb, instance_type, count)


def _first(year: int, month: int) -> int:
    """When a calendar month begins, in nanoseconds."""
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * SECOND
