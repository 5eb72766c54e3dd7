"""`/billing` in a browser: what is spent, how it came about, which mode costs less, and the bill.

HTML that can be read without a script; `web/dashboard.js` adds the figures and keeps them up to
date. Every name is escaped. Computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from html import escape
from importlib.resources import files
from urllib.parse import urlencode

from emulator.address import Key
from emulator.billing import Bill, Charge, shown, total
from emulator.clock import iso
from emulator.decision import Choice
from emulator.overview import Spent
from emulator.statement import EndpointStatement, JobStatement, Statement

WEB = files("emulator") / "web"
RANGES = {"1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days",
          "": "everything"}  # fmt: skip
_WORDS = {"Endpoint", "Region", "Usage type", "Price from"}  # columns that hold no numbers
OVER_TIME = ("costs", "requests", "latencies", "environments", "memory")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lukewarm: what it costs</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/billing/dashboard.css">
<script src="/billing/plotly.js" defer></script>
<script src="/billing/dashboard.js" defer></script>
</head>
<body>
<a class="skip" href="#now">To the figures</a>
<header>
<h1>What it costs</h1>
{controls}
<p id="live" role="status" aria-live="polite"></p>
</header>
<main id="main">
{main}
</main>
<footer><p>Prices of {region}. The same as <a href="{json}">JSON</a> and <a href="{csv}">CSV</a>.
</p></footer>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a page shows. `range` is a key of RANGES, `chosen` an endpoint or ""."""

    range: str
    chosen: str
    endpoints: Sequence[str]
    spent: Spent
    statement: Statement
    grouped: Statement  # the same, or put together by what was asked for
    choices: Sequence[Choice]
    elsewhere: Mapping[str, Fraction | None]


def page(view: View) -> str:
    """The whole page."""
    asked = _asked(view)
    return _PAGE.format(
        controls=_controls(view),
        main=main(view),
        region=escape(view.statement.terms.region or view.statement.region),
        json=escape(f"/billing?{urlencode({**asked, 'format': 'json'})}"),
        csv=escape(f"/billing?{urlencode({**asked, 'format': 'csv'})}"),
    )


def main(view: View) -> str:
    """What changes as time goes on: sections, each with an id."""
    return "\n".join((_now(view), _over_time(view), _decision(view), _bill(view)))


def _asked(view: View) -> dict[str, str]:
    found = {"range": view.range, "endpoint": view.chosen}
    return {name: value for name, value in found.items() if value}


def _controls(view: View) -> str:
    names = sorted({*view.endpoints, *([view.chosen] if view.chosen else [])})
    return (
        '<form id="controls" method="get" action="/billing">'
        f'<label>Time <select name="range">{_options(RANGES, view.range)}</select></label>'
        '<label>Endpoint <select name="endpoint">'
        f"{_options({'': 'all', **{name: name for name in names}}, view.chosen)}</select></label>"
        "<button>Show</button></form>"
    )


def _options(names: Mapping[str, str], chosen: str) -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>'
        f"{escape(name)}</option>"
        for value, name in names.items()
    )


# -- what is spent now --------------------------------------------------------------------------


def _now(view: View) -> str:
    spent, currency = view.spent, escape(view.statement.currency)
    left = f"{float(spent.days_left):.2f}"
    rule = (
        f"{_money(spent.month.total)} so far this month, and {left} days left at what the last 24 "
        f"hours cost, {_money(spent.recent.total)} {currency}"
    )
    figures = [
        _figure("today", "Today", spent.today.total, currency, _sum(_bills(spent.today))),
        _figure("month", "This month", spent.month.total, currency, _sum(_bills(spent.month))),
        _figure("projected", "This month, projected", spent.projected, currency, f"<p>{rule}.</p>"),
        *_parts(view, currency),
    ]
    return _section("now", "Spent", f'<div class="cards">{"".join(figures)}</div>')


def _parts(view: View, currency: str) -> Iterable[str]:
    """In the time that was chosen: by persona and by endpoint."""
    by_persona: dict[str, list[Bill]] = {}
    for one in view.statement.endpoints:
        by_persona.setdefault(one.persona, []).append(one.bill)
    title = RANGES[view.range]
    for persona, bills in sorted(by_persona.items()):
        amount = total(bill.total for bill in bills)
        yield _figure(f"persona-{persona}", f"{persona}, {title}", amount, currency, _sum(bills))


def _figure(name: str, title: str, amount: Decimal, currency: str, inside: str) -> str:
    """A figure that opens to how it came about."""
    return (
        f'<details class="card" id="{escape(name)}"><summary><span>{escape(title)}</span> '
        f'<strong class="amount">{_money(amount)}</strong> {currency}</summary>{inside}</details>'
    )


def _sum(bills: Iterable[Bill]) -> str:
    lines = [charge for bill in bills for charge in bill.charges]
    rows = "".join(
        f"<li><code>{charge.quantity:,f} {escape(charge.unit)} x {_price(charge.price)} = "
        f"{_price(charge.amount)}</code> {escape(_title(charge))}"
        f'<span class="source">{escape(_origin(charge))}</span></li>'
        for charge in lines
    )
    return f"<ul>{rows}</ul>" if rows else "<p>Nothing was used.</p>"


# -- over time, and the decision ----------------------------------------------------------------


def _over_time(view: View) -> str:
    figures = "".join(_plot(name) for name in OVER_TIME)
    return _section(
        "time", f"Over time: {RANGES[view.range]}", f'<div class="plots">{figures}</div>'
    )


def _plot(name: str) -> str:
    return (
        f'<figure id="figure-{escape(name)}" data-chart="{escape(name)}"><figcaption></figcaption>'
        '<div class="plot"></div><p class="text"></p></figure>'
    )


def _decision(view: View) -> str:
    currency = escape(view.statement.currency)
    if not view.choices:
        return _section("decision", "Which mode", "<p>Nothing was called in this time.</p>")
    rows = "".join(
        "<tr>"
        f'<th scope="row">{escape(one.traffic.endpoint)}</th>'
        f'<td class="number">{float(one.traffic.calls_a_day):,.0f}</td>'
        + "".join(
            f'<td class="number{" best" if mode is one.cheaper else ""}">'
            f"{_money(shown(mode.day(one.traffic.calls_a_day)))}<br><small>{escape(mode.name)}"
            f"{', now' if mode.current else ''}</small></td>"
            for mode in one.modes
        )
        + f'<td class="number">{_calls(one.crossing)}</td></tr>'
        for one in view.choices
    )
    titles = ("Endpoint", "Calls a day", "Serverless", "Real-time", "The same at, calls a day")
    table = _table(titles, rows, f"{currency} a day for this traffic on either mode")
    there = "".join(
        f'<tr><th scope="row">{escape(region)}</th><td class="number">'
        f"{'no price' if cost is None else _money(shown(cost))}</td></tr>"
        for region, cost in sorted(view.elsewhere.items(), key=_by_cost)
    )
    regions = _table(("Region", f"{currency} a day"), there, "The same traffic in other regions")
    plots = "".join(_plot(f"decision-{one.traffic.endpoint}") for one in view.choices)
    rule = (
        "<p>The other mode is taken to need as long for a call; its memory or instance is the "
        "least that holds the peak seen. Both pay for data.</p>"
    )
    inside = f'{table}{rule}<div class="plots">{plots}{_plot("trade")}</div>{regions}'
    return _section("decision", "Which mode", inside)


def _by_cost(item: tuple[str, Fraction | None]) -> tuple[bool, Fraction, str]:
    region, cost = item
    return cost is None, cost or Fraction(0), region


def _calls(crossing: Fraction | None) -> str:
    return "never" if crossing is None else f"{float(crossing):,.0f}"


def _table(titles: Sequence[str], rows: str, caption: str) -> str:
    head = "".join(
        f'<th scope="col"{"" if title in _WORDS else " class=number"}>{escape(title)}</th>'
        for title in titles
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "</div>"
    )


# -- the bill -----------------------------------------------------------------------------------


def _bill(view: View) -> str:
    statement = view.grouped
    entries = [
        *(_entry(one.name, list(one.facts.values()), one.bill) for one in statement.groups),
        *(_endpoint(one, _elsewhere(one.key, statement)) for one in statement.endpoints),
        *(_job(one, _elsewhere(one.key, statement)) for one in statement.jobs),
    ]
    note = "" if statement.complete else ", without the lines that have no price"
    startup = "start-up time included" if statement.include_startup else "start-up time not billed"
    start = "the beginning" if statement.terms.from_ns is None else iso(statement.terms.from_ns)
    head = (
        f'<p class="total"><strong id="total">{_money(statement.total)}</strong> '
        f"{escape(statement.currency)} from {start} on{note}</p>"
    )
    rule = (
        "<p class=rule>Serverless: each invocation's milliseconds times the price of its memory "
        f"size, {startup}. Real-time: instance time from InService to deletion, idle or not. Both: "
        "data in and out per GB of 1024<sup>3</sup> bytes.</p>"
    )
    body = "".join(entries) or "<p>No endpoint yet.</p>"
    return _section("bill", f"The bill: {RANGES[view.range]}", head + body + rule)


def _elsewhere(key: Key, statement: Statement) -> list[str]:
    """The region of what is not in the server's own."""
    region = key.home.region
    if region == statement.region:
        return []
    return [region if statement.terms.region else f"{region}, at the prices of that region"]


def _endpoint(entry: EndpointStatement, elsewhere: list[str]) -> str:
    counts = entry.counts
    facts = [
        *elsewhere,
        f"{entry.persona}",
        _count(counts.invocations, "invocation"),
        _count(counts.cold_starts, "cold start"),
        _count(counts.throttles, "throttle"),
        _count(counts.errors, "error"),
    ]
    return _entry(entry.key.name, facts, entry.bill)


def _job(entry: JobStatement, elsewhere: list[str]) -> str:
    return _entry(entry.key.name, [*elsewhere, "training job"], entry.bill)


def _entry(name: str, facts: list[str], bill: Bill) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(_title(charge))}</th>'
        f'<td class="number">{charge.quantity:,f}</td>'
        f'<td class="number">{escape(charge.unit)}</td>'
        f'<td class="number">{_price(charge.price)}</td>'
        f'<td class="number">{_price(charge.amount)}</td>'
        f'<td class="source">{escape(_origin(charge))}</td></tr>'
        for charge in bill.charges
    )
    titles = ("Usage type", "Quantity", "Unit", "Price", "Amount", "Price from")
    total = (
        f'<p class="facts">{escape(" · ".join(facts))} · <strong>{_money(bill.total)}</strong></p>'
    )
    table = _table(titles, rows, f"Lines of {escape(name)}") if rows else ""
    return f"<article><h3>{escape(name)}</h3>{total}{table}</article>"


# -- small things -------------------------------------------------------------------------------


def _section(name: str, title: str, inside: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">' + (
        f"{escape(title)}</h2>{inside}</section>"
    )


def _bills(statement: Statement) -> list[Bill]:
    return [one.bill for one in statement.endpoints] + [one.bill for one in statement.jobs]


def _title(charge: Charge) -> str:
    since = f"from {charge.since}" if charge.since else ""
    return ", ".join(filter(None, (charge.usage_type, since, charge.note)))


def _origin(charge: Charge) -> str:
    if not charge.source:
        return "no price in this region's table"
    return f"{charge.source} ({charge.date}, {charge.confidence})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _price(amount: Decimal | None) -> str:
    return "no price" if amount is None else f"{amount:f}"


def _money(amount: Decimal) -> str:
    """As many places as it takes to show the first cents of a single call."""
    return f"{amount:.9f}".rstrip("0").rstrip(".") or "0"
