"""Our own REST: health, metrics, documentation, the bill, and time under the virtual clock."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.servers import SNEAKER, Server, serverless

HOUR = 3600
REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"


def test_advancing_a_day_adds_exactly_24_instance_hours(server: Server) -> None:
    server.advance(1)
    before = server.bill(REALTIME)["lines"]["EUW3-Host:ml.t2.medium"]
    server.advance(24 * HOUR)
    after = server.bill(REALTIME)["lines"]["EUW3-Host:ml.t2.medium"]
    assert Decimal(after["quantity"]) - Decimal(before["quantity"]) == 24
    assert Decimal(after["amount"]) - Decimal(before["amount"]) == Decimal("1.512")
    assert after["unit"] == "Hrs"


def test_time_stands_still_until_advanced_and_moves_every_timestamp(server: Server) -> None:
    first = server.client.get("/_emulator/clock").json()
    assert server.client.get("/_emulator/clock").json() == first
    assert first["clock"] == "virtual"
    server.advance(0.5)
    assert server.client.get("/_emulator/clock").json()["now_ns"] == first["now_ns"] + 500_000_000
    server.invoke(REALTIME)
    assert server.rows(REALTIME)[-1]["at_ns"] == first["now_ns"] + 500_000_000


def test_the_bill_is_usage_times_price(server: Server, name: str) -> None:
    server.deploy(name, serverless(memory_mb=4096))
    answers = [server.invoke(name) for _ in range(10)]
    entry = server.bill(name)
    lines, rows = entry["lines"], server.rows(name)
    duration = lines["EUW3-ServerlessInf:Mem-4GB"]
    billed = sum(int(one.headers["x-emulator-billed-ms"]) for one in answers)
    assert Decimal(duration["quantity"]) == Decimal(billed) / 1000
    assert billed == sum(row["billed_ms"] for row in rows)
    assert Decimal(duration["amount"]) == Decimal(billed) / 1000 * Decimal("0.00008")
    data_in = lines["EUW3-Hst:Data-Bytes-In"]
    exact = Decimal(len(SNEAKER) * 10) / 2**30
    assert abs(Decimal(data_in["quantity"]) - exact) < Decimal("1e-15")
    total = sum((Decimal(line["amount"]) for line in lines.values()), Decimal(0))
    assert Decimal(entry["total"]) == total
    calls = sum((Decimal(one.headers["x-emulator-cost-usd"]) for one in answers), Decimal(0))
    assert abs(calls - total) < Decimal("1e-12")


def test_the_totals_add_up(server: Server) -> None:
    document = server.client.get("/billing").json()
    entries = document["endpoints"] + document["training_jobs"]
    assert Decimal(document["total"]) == sum(Decimal(one["total"]) for one in entries)
    assert (document["region"], document["currency"]) == ("eu-west-3", "USD")
    assert document["complete"] is True


def test_a_deleted_endpoint_stays_on_the_bill(server: Server, name: str) -> None:
    server.deploy(name, serverless())
    server.invoke(name)
    before = server.bill(name)
    server.delete(name)
    after = server.bill(name)
    assert after["total"] == before["total"] != "0"
    assert after["persona"] == "serverless"
    assert server.rows(name)


def test_a_browser_gets_a_page(server: Server) -> None:
    answer = server.client.get("/billing", headers={"accept": "text/html,*/*;q=0.8"})
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.count("<script") == answer.text.count('<script src="/billing/') == 2
    assert "EUW3-Host:ml.t2.medium" in answer.text
    assert (
        server.client.get("/billing/dashboard.css").headers["content-type"].startswith("text/css")
    )


@pytest.mark.parametrize("path", ["/billing", "/docs", "/_emulator/clock", "/nowhere"])
def test_browsers_are_told_to_be_careful(server: Server, path: str) -> None:
    answer = server.client.get(path, headers={"accept": "text/html"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if path == "/billing":
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_no_endpoint_needs(server: Server, name: str, chunked: bool) -> None:
    body = b" " * ((4 << 20) + 1)
    answer = server.client.put(
        f"/_emulator/endpoints/{name}",
        content=iter([body]) if chunked else body,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("The body has more than 4194304 bytes")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_invocations_are_paged_oldest_first(server: Server, name: str) -> None:
    server.deploy(name, serverless())
    ids = [server.invoke(name).headers["x-amzn-requestid"] for _ in range(5)]
    found, cursor = [], None
    for _ in range(5):
        query = {"endpoint": name, "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = server.client.get("/_emulator/invocations", params=query).json()
        found += [one["request_id"] for one in page["invocations"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ids
    server.advance(10)
    now = server.client.get("/_emulator/clock").json()["now_ns"] / 1e9
    query = {"endpoint": name, "since": str(now)}
    assert server.client.get("/_emulator/invocations", params=query).json()["invocations"] == []


def test_environments_are_listed_with_what_they_use(server: Server) -> None:
    server.invoke(SERVERLESS)
    listed = server.client.get("/_emulator/endpoints").json()
    assert listed["sandbox"] == "fork"
    assert listed["memory_enforced"] is True
    (environment,) = server.environments(SERVERLESS)
    assert environment["memory_bytes"] > 200 << 20  # TensorFlow and the model, as if alone
    assert 5 << 20 < environment["private_bytes"] < 100 << 20


def test_metrics_are_named_after_cloudwatch(server: Server) -> None:
    server.invoke(SERVERLESS)
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    labels = (f'endpoint_name="{SERVERLESS}"', 'region="eu-west-3"', 'variant_name="AllTraffic"')
    line = next(
        line
        for line in answer.text.splitlines()
        if line.startswith("sagemaker_invocations_total{") and all(one in line for one in labels)
    )
    assert float(line.rsplit(" ", 1)[1]) >= 1
    assert "sagemaker_model_latency_seconds_bucket" in answer.text


def test_documentation_needs_no_other_host(server: Server) -> None:
    page = server.client.get("/docs").text
    assert "https://" not in page
    script = next(part for part in page.split('"') if part.endswith("swagger-ui-bundle.js"))
    assert server.client.get(script).status_code == 200
    paths = server.client.get("/openapi.json").json()["paths"]
    assert {"/endpoints/{name}/invocations", "/billing", "/_emulator/clock/advance"} <= set(paths)


def test_ping(server: Server) -> None:
    answer = server.client.get("/ping")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "waiting_for": []})
