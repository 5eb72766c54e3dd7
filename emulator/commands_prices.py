"""The commands of the price tables: which there are, what is in one, and one of AWS's own."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from emulator import caller, console, offers, pricelist
from emulator.billing import MEASURES, Price, UsageKind
from emulator.catalogue import Tables
from emulator.console import AsJson
from emulator.pricelist import PriceList
from emulator.provenance import CONFIDENCES

commands = typer.Typer(help="The price tables that bills are made with.", no_args_is_help=True)

_COMMENT = """What SageMaker costs in {region}, made by `lukewarm prices import` of AWS's offer.

In the form of the tables that come along with Lukewarm. A block that holds from a day on says so:
`from = 2026-09-01`, in UTC, with the figures that change; usage before it keeps its price."""


@commands.command("list")
def listing(as_json: AsJson = False) -> None:
    """List the regions that have prices: how many, seen when, and how sure they are."""
    with console.in_one_sentence():
        tables = Tables.of(console.config().price_folder)
        rows = [_summary(tables, region) for region in tables.regions]
    if as_json:
        console.print_json(rows)
        return
    table = console.table(
        "Region", "Prices", "Seen", *(one.capitalize() for one in CONFIDENCES), "Changes", "From"
    )
    for row in rows:
        table.add_row(
            row["region"],
            str(row["prices"]),
            " to ".join(dict.fromkeys((row["oldest"], row["newest"]))),
            *(str(row["confidence"][one]) for one in CONFIDENCES),
            ", ".join(row["changes"]) or "none",
            row["file"] or "Lukewarm",
        )
    console.show(table)


@commands.command()
def show(
    region: Annotated[str, typer.Argument(help="Such as eu-west-3.")], as_json: AsJson = False
) -> None:
    """Show every price of a region with its source. What is not in it has no price."""
    with console.in_one_sentence():
        listed = Tables.of(console.config().price_folder).find(region)
    if as_json:
        console.print_json(
            {
                "region": region,
                "currency": listed.latest.currency,
                "prices": [_row(kind, sku, price) for kind, sku, price in listed.prices],
            }
        )
        return
    table = console.table("Usage type", "Price", "Unit", "From", "Tiers", "Price from")
    for _, _, price in listed.prices:
        origin = f"{price.source} ({price.date}, {price.confidence})"
        tiers = ", ".join(f"{one.amount:f} above {one.above:f}" for one in price.tiers)
        amount = f"{price.amount:f}"
        table.add_row(price.usage_type, amount, price.unit, price.since or "ever", tiers, origin)
    console.show(table)


@commands.command("import")
def take(
    offer: Annotated[Path, typer.Argument(help="AWS's offer file of AmazonSageMaker, JSON.")],
    region: Annotated[str, typer.Option(help="The region to take from it.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write; else the one that the server reads.")
    ] = None,
) -> None:
    """Make a price table from AWS's published offer file. It takes the place of the one that comes
    along, from the server's next start on."""
    with console.in_one_sentence():
        found = offers.extract(offers.load(offer), region, str(offer))
        text = pricelist.render(found.prices, _COMMENT.format(region=region))
        place = output or console.config().price_folder / f"{region}.toml"
        caller.private(place.parent, place.name, text)
    console.show(
        f"{len(found.prices.prices)} prices of {region}, published {found.published}, are in "
        f"{place}. Left out: {found.elsewhere} products of other regions, {found.skipped} that "
        "endpoints and training jobs do not use."
    )
    if not output:
        console.show("A server that runs takes them when it is started again.")


def _summary(tables: Tables, region: str) -> dict[str, Any]:
    listed = tables.find(region)
    prices = [price for _, _, price in listed.prices]
    dates = sorted(price.date for price in prices)
    counts = Counter(price.confidence for price in prices)
    place = tables.places.get(region)
    return {
        "region": region,
        "currency": listed.latest.currency,
        "prices": len(prices),
        "oldest": dates[0] if dates else "",
        "newest": dates[-1] if dates else "",
        "confidence": {one: counts[one] for one in CONFIDENCES},
        "changes": _changes(listed),
        "file": str(place) if place else None,
    }


def _changes(listed: PriceList) -> list[str]:
    return sorted({price.since for _, _, price in listed.prices} - {""})


def _row(kind: UsageKind, sku: str, price: Price) -> dict[str, Any]:
    return {
        "usage_type": price.usage_type,
        "product_family": MEASURES[kind].family,
        "kind": kind,
        "sku": sku,
        "price": _plain(price.amount),
        "unit": price.unit,
        "tiers": [{"above": _plain(one.above), "price": _plain(one.amount)} for one in price.tiers],
        "from": price.since or None,
        "source": price.source,
        "date": price.date,
        "confidence": price.confidence,
    }


def _plain(number: Decimal) -> str:
    return f"{number:f}"
