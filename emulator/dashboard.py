"""`/billing` in a browser: the statement as a plain HTML table, readable without a script."""

from __future__ import annotations

from decimal import Decimal
from html import escape

from emulator.address import Key
from emulator.billing import Bill, Charge
from emulator.statement import EndpointStatement, JobStatement, Statement

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lukewarm: the bill</title>
<link rel="stylesheet" href="/billing/style.css">
</head>
<body>
<main>
<h1>The bill</h1>
<p class="total"><strong>{total} {currency}</strong> at the prices of {region}{note}</p>
{endpoints}
<p class="rule">Serverless: each invocation's milliseconds times the price of its memory size,
{startup}. Real-time: instance time from InService to deletion, idle or not. Both: data in and out
per GB of 1024<sup>3</sup> bytes. Where each price comes from is in the last column.</p>
</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #777; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
.total strong { font-size: 2rem; font-variant-numeric: tabular-nums; }
.facts, .rule, .source { color: var(--quiet); font-size: .9rem; }
.facts { margin: 0 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td:first-child { white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
@media (max-width: 40rem) { td.source { min-width: 18rem; } }
tfoot td { font-weight: 600; border-bottom: 0; }
""".lstrip()


def page(statement: Statement) -> str:
    """The whole page; every name in it escaped."""
    note = "" if statement.complete else ", without the lines that have no price"
    startup = "start-up time included" if statement.include_startup else "start-up time not billed"
    return _PAGE.format(
        total=_money(statement.total),
        currency=escape(statement.currency),
        region=escape(statement.terms.region or statement.region),
        note=note,
        startup=startup,
        endpoints="\n".join(
            [
                *(_endpoint(one, _elsewhere(one.key, statement)) for one in statement.endpoints),
                *(_job(one, _elsewhere(one.key, statement)) for one in statement.jobs),
                *(
                    _section(one.name, list(one.facts.values()), one.bill)
                    for one in statement.groups
                ),
            ]
        )
        or "<p>No endpoint yet.</p>",
    )


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
    return _section(entry.key.name, facts, entry.bill)


def _job(entry: JobStatement, elsewhere: list[str]) -> str:
    return _section(entry.key.name, [*elsewhere, "training job"], entry.bill)


def _section(name: str, facts: list[str], bill: Bill) -> str:
    rows = "".join(
        f'<tr><td>{escape(_title(charge))}</td><td class="number">{charge.quantity:,f}</td>'
        f'<td>{escape(charge.unit)}</td><td class="number">{_price(charge.price)}</td>'
        f'<td class="number">{_price(charge.amount)}</td>'
        f'<td class="source">{escape(_origin(charge.source, charge.date, charge.confidence))}</td>'
        "</tr>"
        for charge in bill.charges
    )
    head = "".join(
        f'<th scope="col"{number}>{title}</th>'
        for title, number in (
            ("Usage type", ""),
            ("Quantity", ' class="number"'),
            ("Unit", ""),
            ("Price", ' class="number"'),
            ("Amount", ' class="number"'),
            ("Price from", ""),
        )
    )
    table = (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        f'<tfoot><tr><td colspan="4">Total</td><td class="number">{_money(bill.total)}</td>'
        "<td></td></tr></tfoot></table></div>"
        if rows
        else ""
    )
    return (
        f'<section><h2>{escape(name)}</h2><p class="facts">'
        f"{escape(' · '.join(facts))}</p>{table}</section>"
    )


def _title(charge: Charge) -> str:
    since = f"from {charge.since}" if charge.since else ""
    return ", ".join(filter(None, (charge.usage_type, since, charge.note)))


def _origin(source: str, date: str, confidence: str) -> str:
    return f"{source} ({date}, {confidence})" if source else "no price in this region's table"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _price(amount: Decimal | None) -> str:
    return "no price" if amount is None else f"{amount:f}"


def _money(amount: Decimal) -> str:
    """As many places as it takes to show the first cents of a single call."""
    return f"{amount:.9f}".rstrip("0").rstrip(".") or "0"
