"""`lukewarm ledger`, as people type it, beside a server that goes on."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_cli import Line
from tests.load import SERVERLESS as SHIPPED
from tests.servers import LIGHT, SNEAKER, Server, serving, until


@pytest.fixture
def line(server: Server, tmp_path: Path) -> Line:
    return Line(server, tmp_path)


def test_a_ledger_in_use_is_checked_and_exported_and_another_one_takes_it(
    line: Line, server: Server, tmp_path: Path
) -> None:
    for _ in range(3):
        assert server.invoke(SHIPPED, SNEAKER).status_code == 200
    server.advance(60)
    state = str(server.state)
    assert line.said("ledger", "check", "--state", state).endswith("All are right.\n")
    said = line.said("ledger", "export", "out", "--format", "csv", "--state", state)
    assert "invocations.csv" in said
    before = server.client.get("/billing").json()
    (other := tmp_path / "second" / "state").mkdir(parents=True)
    moved = json.loads(line.said("ledger", "import", "out", "--state", str(other), "--json"))
    assert moved["invocations"] >= 3
    assert moved["meters"] >= 1
    again = line.refused("ledger", "import", "out", "--state", str(other))
    assert "is in the ledger already" in again
    exact = {(one["name"], one["region"], one["account"]): one for one in before["endpoints"]}
    with serving(other.parent, **LIGHT) as second:
        for one in second.client.get("/billing").json()["endpoints"]:
            known = exact.get((one["name"], one["region"], one["account"]))
            if known and known["persona"] == "serverless":
                assert (one["invocations"], one["lines"]) == (known["invocations"], known["lines"])
        in_use = line.refused("ledger", "import", "out", "--state", str(other))
        assert "is in use by another server" in in_use


def test_old_rows_are_dropped_and_stay_on_the_bill(line: Line, tmp_path: Path) -> None:
    with serving(tmp_path, EMULATOR_CLOCK="virtual", EMULATOR_LEDGER_DAYS="2", **LIGHT) as own:
        assert own.invoke(SHIPPED, SNEAKER).status_code == 200
        before = billed(own)
        assert before["invocations"] == 1
        own.advance(3 * 86_400)
        until(lambda: not own.rows(SHIPPED), "old rows are dropped")
        assert billed(own) == before
        state = str(own.state)
    assert "there are no invocations any more" in line.said("ledger", "check", "--state", state)
    with closing(sqlite3.connect(own.state / "ledger.sqlite")) as ledger:
        ledger.execute("UPDATE hours SET billed_ms = billed_ms + 7")
        ledger.commit()
    done = line.run("ledger", "check", "--state", state)
    assert done.returncode == 1
    assert f"{SHIPPED}/AllTraffic, hours of 20" in done.stdout
    assert "billed_ms is" in done.stdout
    found = json.loads(line.run("ledger", "check", "--state", state, "--json").stdout)
    assert {one["table"] for one in found["faults"]} == {"hours", "days"}


def billed(server: Server) -> dict[str, Any]:
    """What the bill says of the serverless endpoint that a server comes with."""
    found: list[dict[str, Any]] = server.client.get("/billing").json()["endpoints"]
    (one,) = (one for one in found if one["name"] == SHIPPED)
    return one


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "--state", "none"], "There is no ledger in none"),
        (["export", "out", "--from", "soon"], "--from soon is no date and no instant"),
        (
            ["export", "out", "--from", "2026-02-01", "--to", "2026-01-01"],
            "--from 2026-02-01 is not before --to 2026-01-01",
        ),
        (["import", "nowhere", "--state", "fresh"], "There is neither invocations nor meters in"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(line: Line, words: list[str], said: str) -> None:
    assert said in line.refused("ledger", *words)
