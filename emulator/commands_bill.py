"""The commands of money: what has been spent at a server, and what will cost less."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.table import Table

from emulator import console
from emulator.breakeven import DECIMAL_GB, Breakeven, Question, breakeven, plain
from emulator.catalogue import Tables
from emulator.console import AsJson, Url
from emulator.errors import SetupError
from emulator.terms import PARAMETERS, GroupBy

_TITLES = ("", "Usage type", "Quantity", "Unit", "Price", "Amount")


def _help(name: str) -> Any:
    return typer.Option(help=PARAMETERS[name].help)


def bill(
    since: Annotated[str, typer.Option("--from", help=PARAMETERS["from"].help)] = "",
    until: Annotated[str, typer.Option("--to", help=PARAMETERS["to"].help)] = "",
    endpoint: Annotated[str, _help("endpoint")] = "",
    group_by: Annotated[GroupBy | None, _help("group_by")] = None,
    region: Annotated[str, _help("region")] = "",
    include_startup: Annotated[bool | None, _help("include_startup")] = None,
    free_tier: Annotated[bool, _help("free_tier")] = False,
    savings_plan: Annotated[str, _help("savings_plan")] = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show what a server has spent, line by line."""
    given = {
        "from": since,
        "to": until,
        "endpoint": endpoint,
        "group_by": group_by or "",
        "region": region,
        "include_startup": "" if include_startup is None else str(include_startup).lower(),
        "free_tier": "true" if free_tier else "",
        "savings_plan": savings_plan,
        "format": "json",
    }
    query = urlencode({name: value for name, value in given.items() if value})
    with console.in_one_sentence():
        found = console.server(url).get(f"/billing?{query}")
    if as_json:
        console.print_json(found)
    else:
        console.show(_table(found))
        console.show(_summary(found))


def _table(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in _TITLES:
        right = title in ("Quantity", "Price", "Amount")
        table.add_column(title, overflow="fold", justify="right" if right else "left")
    for entry in (*found.get("groups", ()), *found.get("endpoints", ()), *_jobs(found)):
        for cells in _rows(entry):
            table.add_row(*cells)
        table.add_row("", "", "", "", "", entry["total"], end_section=True, style="bold")
    return table


def _jobs(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in found.get("training_jobs", ()):
        yield {**job, "name": f"{job['name']} (training)"}


def _rows(entry: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    lines = entry["lines"] or [None]
    for number, line in enumerate(lines):
        name = entry["name"] if number == 0 else ""
        if line is None:
            yield name, "not used", "", "", "", ""
            continue
        since = f"from {line['from']}" if line["from"] else ""
        title = ", ".join(filter(None, (line["usage_type"], since, line["note"])))
        price, amount = line["price"] or "no price", line["amount"] or "no price"
        yield name, title, line["quantity"], line["unit"], price, amount


def _summary(found: dict[str, Any]) -> str:
    options = [
        f"from {found['from']}" if found["from"] else "",
        f"to {found['to']}" if found["to"] else "",
        f"at the prices of {found['prices_of']}" if found["prices_of"] else "",
        "start-up time included" if found["include_startup"] else "",
        "with the free tier" if found["free_tier"] else "",
        f"with a savings plan of {found['savings_plan']}" if found["savings_plan"] != "0" else "",
        "" if found["complete"] else "without what has no price",
    ]
    return ", ".join(filter(None, (f"Total {found['total']} {found['currency']}", *options)))


def break_even(
    memory: Annotated[int, typer.Option(help="MB of the serverless endpoint.", min=1)],
    duration_ms: Annotated[str, typer.Option(help="Milliseconds billed for a call.")],
    instance: Annotated[str, typer.Option(help="The instance instead, such as ml.t2.medium.")],
    request_bytes: Annotated[int, typer.Option(help="Bytes of a request.", min=0)] = 0,
    response_bytes: Annotated[int, typer.Option(help="Bytes of a response.", min=0)] = 0,
    region: Annotated[str, typer.Option(help="Whose prices hold; else the setting's.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say at how many calls a day a serverless endpoint costs as much as an instance, and how that
    is computed. Needs no server."""
    with console.in_one_sentence():
        config = console.config()
        table = Tables.of(config.price_folder).find(region or config.region).latest
        question = Question(
            memory, _milliseconds(duration_ms), request_bytes, response_bytes, instance
        )
        found = breakeven(question, table)
    if as_json:
        console.print_json(found.document())
    else:
        console.show(_text(found))


def _milliseconds(text: str) -> Decimal:
    try:
        duration = Decimal(text) if len(text) < 32 else Decimal("NaN")
    except InvalidOperation:
        duration = Decimal("NaN")
    if not duration.is_finite() or not 0 < duration <= 3_600_000:
        raise SetupError(
            f"--duration-ms is {text[:80]!r}: it is a number of milliseconds above 0, at most "
            "3600000."
        )
    return duration


def _text(found: Breakeven) -> str:
    asked, made = found.question, found.formulas()
    decimal = found.duration + found.moved_in(DECIMAL_GB) + found.moved_out(DECIMAL_GB)
    return "\n".join(
        (
            f"Prices of {found.table.region} in {found.table.currency}; a GB has 1024^3 bytes",
            f"A million calls, serverless with {asked.memory_mb} MB",
            f"  duration    {made['duration']}",
            f"  data in     {made['data_in']}",
            f"  data out    {made['data_out']}",
            f"  in all      {plain(found.million)} ({plain(decimal)} with a GB of 1000^3 bytes)",
            f"A day of one {asked.instance}",
            f"  in all      {made['day']}",
            "Break-even, calls a day",
            f"  {made['calls_a_day']}",
            "  (both pay the same for data)",
            f"  {made['calls_a_day_with_data']}",
            "  (data charged to the serverless side alone)",
            f"Below {_calls(found.calls)} calls a day serverless is cheaper.",
        )
    )


def _calls(calls: Fraction) -> str:
    return f"{-(-calls.numerator // calls.denominator):,}"
