"""A state directory that an earlier version left: its endpoints serve on, its bill goes on."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from emulator.ledger.schema import APPLICATION_ID, MIGRATIONS
from tests.servers import ARTIFACTS, LIGHT, serving

HOUR_NS = 3_600_000_000_000


def earlier(state: Path) -> None:
    """What version 1 of the ledger held of one real-time endpoint that has run for an hour."""
    copy = state / "models" / "0123456789abcdef"
    shutil.copytree(ARTIFACTS / "fashion-mnist", copy)
    instances = {"instance_type": "ml.t2.medium", "count": 1, "routing": "RANDOM", "volume_gb": 0}
    variant = {
        "name": "AllTraffic", "model": "m", "serverless": None, "instances": instances,
        "weight": 1.0,
    }  # fmt: skip
    documents = {
        ("model", "m"): {
            "name": "m", "directory": str(copy), "source": "/mine/m.keras", "created": 1,
            "variables": {"A": "b"},
        },
        ("endpoint-config", "old"): {"name": "old", "created": 1, "variants": [variant]},
        ("endpoint", "old"): {
            "name": "old", "config": "old", "created": 1, "modified": 2, "status": "InService",
            "failure_reason": "",
        },
    }  # fmt: skip
    with closing(sqlite3.connect(state / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in MIGRATIONS[0][1]:
            ledger.execute(statement)
        ledger.execute("PRAGMA user_version = 1")
        for (kind, name), document in documents.items():
            ledger.execute(
                "INSERT INTO documents (kind, name, body) VALUES (?, ?, ?)",
                (kind, name, json.dumps(document).encode()),
            )
        ledger.execute("INSERT INTO meta VALUES ('initialised', 'yes')")
        ledger.execute(
            "INSERT INTO meters (region, endpoint, variant, kind, sku, units, started_ns, until_ns,"
            " open) VALUES ('eu-west-3', 'old', 'AllTraffic', 'instance', 'ml.t2.medium', 1, 0, ?,"
            " 1)",
            (HOUR_NS,),
        )
        ledger.execute("PRAGMA journal_mode = WAL")


def test_what_an_earlier_version_left_is_taken_over(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "models").mkdir(parents=True)
    earlier(state)
    with serving(tmp_path, EMULATOR_CLOCK="virtual", **LIGHT) as server:
        for _ in range(2):  # once more from what the first start has written
            (shown,) = server.client.get("/_emulator/endpoints").json()["endpoints"]
            assert (shown["name"], shown["status"]) == ("old", "InService")
            assert shown["variants"][0]["source"] == "/mine/m.keras"
            assert server.invoke("old").status_code == 200
            server.stop()
            server.start()
        (billed,) = server.client.get("/billing").json()["endpoints"]
        hours = [float(one["quantity"]) for one in billed["lines"] if one["unit"] == "Hrs"]
        assert len(hours) == 1
        assert hours[0] >= 1
        assert (billed["name"], billed["invocations"]) == ("old", 2)
        server.delete("old")
        assert list((server.state / "models").iterdir()) == []
