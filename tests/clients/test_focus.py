"""The bill in FOCUS, as the specification's own validator takes it."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from tests.clients.environments import obtain
from tests.load import SERVERLESS
from tests.servers import Server

# The validator knows FOCUS 1.0, whose columns 1.2 has, too. What it finds wrong with any table:
# rules of drafts (columns without "Name", ResourceID, ChargeType), a list of currencies that its
# package left out, and account numbers of a CSV, which it reads as numbers.
ITS_OWN = {
    "InvoiceIssuer_Required", "Provider_Required", "Publisher_Required", "ResourceID_Required",
    "SkuPriceId_Nullable", "BillingCurrency_IsCurrencyCode", "BillingAccountId_IsString",
    "SubAccountId_IsString",
}  # fmt: skip
DAY_S = 86_400


def failed(path: Path) -> set[str]:
    """The rules that a file breaks, as the validator has it."""
    script = str(obtain("focus").with_name("focus-validator"))
    arguments = ["--data-file", str(path), "--validate-version", "1.0"]
    done = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=100)
    assert "Validation failed!" in done.stdout + done.stderr
    return set(re.findall(r"^(\w+) failed:", done.stdout + done.stderr, re.M))


@pytest.fixture
def table(server: Server) -> str:
    """Two days of both personas, as CSV."""
    for _ in range(2):
        assert server.invoke(SERVERLESS).status_code == 200
        server.advance(DAY_S)
    answer = server.client.get("/billing/focus.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    return answer.text


def test_the_validator_takes_it_and_looks(table: str, tmp_path: Path) -> None:
    (tmp_path / "focus.csv").write_text(table)
    assert failed(tmp_path / "focus.csv") == ITS_OWN
    (tmp_path / "wrong.csv").write_text(table.replace(",Usage-Based,", ",Now and then,"))
    assert failed(tmp_path / "wrong.csv") == {*ITS_OWN, "ChargeFrequency_Enum"}


def test_all_forms_are_the_bill(server: Server, table: str) -> None:
    rows = list(csv.DictReader(io.StringIO(table)))
    bill = server.client.get("/billing").json()
    exact = Decimal(bill["total"])
    for column in ("BilledCost", "EffectiveCost", "ListCost"):
        assert abs(sum(Decimal(row[column]) for row in rows) - exact) < Decimal("1e-12")
    content = server.client.get("/billing/focus.parquet").content
    stored = parquet.read_table(io.BytesIO(content)).to_pylist()
    assert [row["BilledCost"] for row in stored] == [Decimal(row["BilledCost"]) for row in rows]
    assert {row["ResourceName"] for row in stored} == {row["ResourceName"] for row in rows}
    report = csv.DictReader(io.StringIO(server.client.get("/billing/cur.csv").text))
    costs = [Decimal(row["line_item_unblended_cost"]) for row in report]
    assert costs == [Decimal(row["BilledCost"]) for row in rows]
    some = server.client.get("/billing/focus.csv", params={"endpoint": SERVERLESS}).text
    assert {row["ResourceName"] for row in csv.DictReader(io.StringIO(some))} == {SERVERLESS}
    wrong = server.client.get("/billing/focus.csv", params={"region": "mars"})
    assert wrong.status_code == 400
    assert "region is 'mars'" in wrong.json()["detail"]
