"""The bill of a real server, as it is asked for over HTTP and on the command line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_cli import Line
from tests.load import REALTIME, SERVERLESS
from tests.servers import LIGHT, Server, failed_start, serving

OFFER = Path(__file__).resolve().parent.parent / "billing" / "offer.json"
HOSTING = "EUW3-Host:ml.t2.medium"


@pytest.fixture
def line(server: Server, tmp_path: Path) -> Line:
    return Line(server, tmp_path)


def billing(server: Server, **query: str) -> dict[str, Any]:
    answer = server.client.get("/billing", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def now(server: Server) -> str:
    found: str = server.client.get("/_emulator/clock").json()["now"]
    return found


def hours(document: dict[str, Any]) -> Decimal:
    """The instance hours of the endpoint that is always there."""
    entry = next(one for one in document["endpoints"] if one["name"] == REALTIME)
    lines = (one["quantity"] for one in entry["lines"] if one["usage_type"] == HOSTING)
    return sum(map(Decimal, lines), Decimal(0))


# -- over HTTP -------------------------------------------------------------------------------------


def test_a_period_is_what_was_used_in_it(server: Server) -> None:
    server.advance(60)
    start = now(server)
    server.advance(2 * 3600)
    server.invoke(SERVERLESS)
    end = now(server)
    server.advance(3600)
    inside = billing(server, **{"from": start, "to": end})
    assert hours(inside) == 2
    assert (inside["from"], inside["to"]) == (start, end)
    (counted,) = (one for one in inside["endpoints"] if one["name"] == SERVERLESS)
    assert counted["invocations"] == 0  # it arrived at the end, which is left out
    after = billing(server, **{"from": end})
    assert hours(after) == 1
    (counted,) = (one for one in after["endpoints"] if one["name"] == SERVERLESS)
    assert counted["invocations"] == 1
    plus_one = f"{datetime.fromisoformat(end) + timedelta(hours=1):%Y-%m-%dT%H:%M:%S.%f}+01:00"
    assert billing(server, **{"from": plus_one}) == after


def test_groups_and_options(server: Server) -> None:
    server.invoke(SERVERLESS)
    whole = billing(server)
    grouped = billing(server, group_by="persona")
    assert {"realtime", "serverless"} <= {one["name"] for one in grouped["groups"]}
    assert abs(Decimal(grouped["total"]) - Decimal(whole["total"])) < Decimal("1e-12")
    days = [one["name"] for one in billing(server, group_by="day")["groups"]]
    assert days == sorted(days)
    one = billing(
        server, endpoint=REALTIME, savings_plan="0.5", free_tier="true", region="us-east-1"
    )
    (entry,) = one["endpoints"]
    notes = [line["note"] for line in entry["lines"] if line["usage_type"].endswith("t2.medium")]
    assert notes == ["", "savings plan, 0.5 of 0.056"]


def test_other_forms(server: Server) -> None:
    server.advance(1)
    answer = server.client.get("/billing", headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["group"] for row in rows} >= {REALTIME}
    total = sum((Decimal(row["amount"]) for row in rows), Decimal(0))
    assert total == Decimal(billing(server, format="json")["total"])
    page = server.client.get("/billing", params={"format": "html", "group_by": "usage_type"})
    assert page.headers["content-type"].startswith("text/html")
    assert f"<h3>{HOSTING}</h3>" in page.text


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("from=2026-13-01", "from is '2026-13-01': it is an ISO 8601 date or instant, such as"),
        ("to=1795469106", "to is '1795469106': it is an ISO 8601 date or instant"),
        ("from=9999-01-01", "from is '9999-01-01': it is an ISO 8601 date"),
        ("from=2200-01-01", "from is 2200-01-01T00:00:00.000Z, which is in the future: the server"),
        ("from=2024-09-02&to=2024-09-01", "which is not after from (2024-09-02T00:00:00.000Z)"),
        ("from=2024-09-01&to=2024-09-01", "which is not after from"),
        ("from=2026-09-01&from=2026-09-02", "from is given twice: leave one of them out."),
        (
            "region=mars-1",
            "region is 'mars-1', which has no price table: it is one of eu-central-1",
        ),
        ("group_by=week", "group_by is 'week': it is one of endpoint, persona, usage_type,"),
        ("endpoint=nobody", "endpoint is 'nobody', which has never been here: the bill has"),
        ("endpoint=", "endpoint is '': it is a name that is not empty"),
        ("include_startup=2", "include_startup is '2': it is true or false."),
        ("free_tier=", "free_tier is '': it is true or false."),
        ("savings_plan=0.65", "savings_plan is '0.65': it is a number from 0 to 0.64."),
        ("savings_plan=nan", "savings_plan is 'nan': it is a number from 0 to 0.64."),
        ("format=pdf", "format is 'pdf': it is one of json, html, csv."),
        ("form=csv", "The bill has no parameter 'form': did you mean format? It takes from, to,"),
    ],
)
def test_what_a_bill_cannot_be_is_one_sentence(server: Server, query: str, sentence: str) -> None:
    answer = server.client.get(f"/billing?{query}")
    assert answer.status_code == 400
    assert sentence in answer.json()["detail"]


# -- on the command line ---------------------------------------------------------------------------


def test_the_command_shows_what_the_route_gives(line: Line) -> None:
    asked = (
        "--endpoint",
        REALTIME,
        "--free-tier",
        "--savings-plan",
        "0.25",
        "--region",
        "us-east-1",
    )
    given = json.loads(line.said("bill", *asked, "--json"))
    assert given == billing(
        line.server, endpoint=REALTIME, free_tier="true", savings_plan="0.25", region="us-east-1"
    )
    text = line.said("bill", *asked)
    assert "USE1-Host:ml.t2.medium, savings plan, 0.25 of 0.056" in text
    assert f"Total {given['total']} USD, at the prices of us-east-1, with the free tier" in text
    groups = json.loads(line.said("bill", "--group-by", "account", "--include-startup", "--json"))
    assert groups["include_startup"] is True
    assert "123456789012" in {one["name"] for one in groups["groups"]}
    assert "from is 'soon'" in line.refused("bill", "--from", "soon")


def test_breakeven_needs_no_server(line: Line, tmp_path: Path) -> None:
    asked = (
        "breakeven", "--memory", "4096", "--duration-ms", "45", "--request-bytes", "500",
        "--response-bytes", "0", "--instance", "ml.t2.medium", "--region", "eu-west-3",
    )  # fmt: skip
    nowhere = {"EMULATOR_STATE_DIR": str(tmp_path / "none")}
    text = line.said(*asked, **nowhere)
    assert "1000000 x 0.045 s x 0.0000800 = 3.6\n" in text
    assert "in all      3.607450580596924 (3.608 with a GB of 1000^3 bytes)" in text
    assert "1.512 / (0.045 s x 0.0000800) = 420000\n" in text
    found = json.loads(line.said(*asked, "--json", **nowhere))
    assert (found["calls_a_day"], found["instance_day"]) == ("420000", "1.512")
    wrong = line.refused(*asked[:4], "0", *asked[5:])
    assert wrong.startswith("--duration-ms is '0': it is a number of milliseconds above 0")
    assert "mars-1" in line.refused(*asked[:-1], "mars-1")


def test_prices_are_listed_shown_and_imported(line: Line, tmp_path: Path) -> None:
    folder = {"EMULATOR_PRICES": str(tmp_path / "prices")}
    listed = {one["region"]: one for one in json.loads(line.said("prices", "list", "--json"))}
    assert listed["eu-west-3"]["confidence"]["derived"] > 50
    assert listed["eu-west-3"]["file"] is None
    said = line.said("prices", "import", str(OFFER), "--region", "eu-west-3", **folder)
    place = tmp_path / "prices" / "eu-west-3.toml"
    assert said.startswith(f"10 prices of eu-west-3, published 2026-09-02, are in {place}.")
    assert "3 products of other regions" in said
    assert str(place) in line.said("prices", "list", **folder)
    text = line.said("prices", "show", "eu-west-3", **folder)
    assert "AWS's offer file AmazonSageMaker" in text
    shown = json.loads(line.said("prices", "show", "eu-west-3", "--json", **folder))
    (small,) = (one for one in shown["prices"] if one["usage_type"].endswith("Mem-1GB"))
    assert small["tiers"] == [{"above": "150000", "price": "0.000018"}]
    assert small["product_family"] == "ML Serverless"
    output = tmp_path / "elsewhere.toml"
    line.said("prices", "import", str(OFFER), "--region", "us-east-1", "--output", str(output))
    assert 'region = "us-east-1"' in output.read_text()
    assert "has no price of the region 'mars-1'" in line.refused(
        "prices", "import", str(OFFER), "--region", "mars-1"
    )
    assert "There is no price table" in line.refused("prices", "show", "mars-1")


# -- a server with a table of its own --------------------------------------------------------------


@pytest.fixture(scope="module")
def tomorrow() -> date:
    """A day that is two days ahead: the clock of a new server starts today."""
    return (datetime.now(UTC) + timedelta(days=2)).date()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, tomorrow: date) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("own")
    prices = folder / "prices"
    prices.mkdir()
    block = (
        '[[prices]]\nkind = "{}"\nunit = "{}"\nsource = "s"\ndate = "2026"\nconfidence = "sure"\n'
        "{}[prices.amounts]\n{} = {}\n"
    )
    dated = f"from = {tomorrow}\n"
    (prices / "eu-west-3.toml").write_text(
        'region = "eu-west-3"\nprefix = "EUW3"\ncurrency = "USD"\n'
        + block.format("instance", "Hrs", "", '"ml.t2.medium"', "0.06")
        + block.format("instance", "Hrs", dated, '"ml.t2.medium"', "0.05")
        + block.format("data-in", "GB", "", "any", "0")
        + block.format("data-out", "GB", "", "any", "0")
        + block.format("serverless-duration", "Seconds", "", '"4096"', "0.001")
        + block.format("serverless-duration", "Seconds", dated, '"4096"', "0.002")
    )
    with serving(folder, EMULATOR_CLOCK="virtual", EMULATOR_PRICES=str(prices), **LIGHT) as running:
        yield running


def test_a_price_that_changes_in_service(own: Server, tomorrow: date) -> None:
    def call() -> Decimal:
        """The price of a second that a call was charged."""
        headers = own.invoke(SERVERLESS).headers
        return Decimal(headers["x-emulator-cost-usd"]) / int(headers["x-emulator-billed-ms"]) * 1000

    assert call() == Decimal("0.001")
    own.advance(5 * 86_400)
    assert call() == Decimal("0.002")
    document = own.client.get("/billing", params={"endpoint": REALTIME}).json()
    (entry,) = document["endpoints"]
    before, after = (one for one in entry["lines"] if one["unit"] == "Hrs")
    assert (before["price"], before["from"]) == ("0.06", None)
    assert (after["price"], after["from"]) == ("0.05", str(tomorrow))
    ahead = datetime.fromisoformat(now(own)) - datetime(
        tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=UTC
    )
    assert Decimal(after["quantity"]) > Decimal(ahead.total_seconds() / 3600) - Decimal("0.01")
    total = sum((Decimal(one["amount"]) for one in entry["lines"]), Decimal(0))
    assert Decimal(document["total"]) == total


def test_a_table_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "eu-west-3.toml").write_text("prices = []")
    said = failed_start(tmp_path / "state", EMULATOR_PRICES=str(tmp_path))
    assert f"The price table {tmp_path / 'eu-west-3.toml'} lacks the field 'region'" in said
