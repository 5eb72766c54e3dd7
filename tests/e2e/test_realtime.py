"""The real-time persona with real processes."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np

from tests.servers import (
    JSON,
    SNEAKER,
    Server,
    alive,
    archive,
    predictions,
    realtime,
    sample,
    until,
)

WHO = "import os\ndef handler(data, context):\n    return str(os.getpid()), 'text/plain'\n"
SLOW = (
    "import os, time\ndef handler(data, context):\n    data.read()\n    time.sleep(0.1)\n"
    "    return str(os.getpid()), 'text/plain'\n"
)


def test_it_is_warm_before_it_is_in_service_and_never_unloads(server: Server, name: str) -> None:
    endpoint = server.deploy(name, realtime())
    (before,) = endpoint["environments"]
    assert before["state"] == "idle"
    server.advance(30 * 86_400)
    assert server.environments(name)[0]["pid"] == before["pid"]
    assert server.invoke(name).headers["x-emulator-cold-start"] == "false"


def test_requests_queue_and_are_not_throttled(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, realtime(archive(tmp_path, SLOW)))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: server.invoke(name), range(12)))
    assert {one.status_code for one in answers} == {200}
    waited = sorted(row["queue_us"] for row in server.rows(name))
    assert waited[-1] > 5 * 100_000  # one after the other


def test_requests_that_wait_are_answered_in_one_call_each_with_its_own_rows(
    server: Server, name: str
) -> None:
    server.deploy(name, realtime())
    images, _ = sample()
    bodies = [json.dumps({"instances": [image.tolist()]}) for image in images[:24]]
    alone = [predictions(server.invoke(name, body.encode())) for body in bodies]

    def shared() -> bool:
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda body: server.invoke(name, body.encode()), bodies))
        for answer, expected in zip(answers, alone, strict=True):
            np.testing.assert_allclose(predictions(answer), expected, atol=1e-5)
        ids = {one.headers["x-amzn-requestid"] for one in answers}
        rows = [row for row in server.rows(name) if row["request_id"] in ids]
        assert len(rows) == len(bodies)  # one each in the ledger
        return len({row["model_latency_us"] for row in rows}) < len(bodies) // 2

    until(shared, "requests that share a call")


def test_least_outstanding_requests_uses_every_instance(
    server: Server, name: str, tmp_path: Path
) -> None:
    routing = "LEAST_OUTSTANDING_REQUESTS"
    server.deploy(name, realtime(archive(tmp_path, SLOW), count=3, routing=routing))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.invoke(name), range(6)))
    assert Counter(one.text for one in answers).most_common(1)[0][1] == 2


def test_workers_per_instance_serve_at_once(server: Server, name: str, tmp_path: Path) -> None:
    workers = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
    server.deploy(name, realtime(archive(tmp_path, SLOW), variables=workers))
    assert len(server.environments(name)) == 2
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.invoke(name), range(4)))
    assert len({one.text for one in answers}) == 2


def test_a_crashed_instance_is_replaced_while_the_other_serves(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, realtime(archive(tmp_path, WHO), count=2))
    before = server.environments(name)
    dead = before[0]["pid"]
    os.kill(dead, signal.SIGKILL)
    until(lambda: dead not in server.pids(), "the death is noticed")
    for _ in range(20):
        assert server.invoke(name).status_code == 200
    until(
        lambda: len([e for e in server.environments(name) if e["state"] == "idle"]) == 2,
        "the instance is replaced",
    )
    assert before[1]["pid"] in {one["pid"] for one in server.environments(name)}
    assert not alive(dead)


def test_a_sole_instance_that_dies_serving_is_reported_and_replaced(
    server: Server, name: str, tmp_path: Path
) -> None:
    script = (
        "import os\ndef handler(data, context):\n    if data.read() == b'die':\n"
        "        os.kill(os.getpid(), 9)\n    return b'{}', 'application/json'\n"
    )
    server.deploy(name, realtime(archive(tmp_path, script)))
    answer = server.invoke(name, b"die")
    assert answer.status_code == 424
    assert "SIGKILL" in answer.json()["Message"]
    assert server.invoke(name, b"live").status_code == 200  # waits for the replacement


def test_weights_and_target_variant(server: Server, name: str) -> None:
    server.deploy(
        name,
        realtime(name="Heavy", weight=3),
        realtime(name="Light"),
        realtime(name="Off", weight=0),
    )
    counts = Counter(
        server.invoke(name).headers["x-amzn-invoked-production-variant"] for _ in range(200)
    )
    assert counts["Off"] == 0
    assert 120 < counts["Heavy"] < 180
    target = {**JSON, "X-Amzn-SageMaker-Target-Variant": "Off"}
    answer = server.invoke(name, SNEAKER, target)
    assert answer.headers["x-amzn-invoked-production-variant"] == "Off"
    missing = server.invoke(name, SNEAKER, {**JSON, "X-Amzn-SageMaker-Target-Variant": "Gone"})
    assert missing.status_code == 400
    assert "Heavy, Light, Off" in missing.json()["Message"]


def test_twenty_five_megabytes_and_not_one_byte_more(server: Server) -> None:
    most = 25 * 1024 * 1024
    assert server.invoke("fashion-mnist-realtime", b" " * most).status_code == 424
    answer = server.invoke("fashion-mnist-realtime", b" " * (most + 1))
    assert answer.status_code == 413
    assert answer.text == f"HTTP content length exceeded {most} bytes."


def test_instances_and_volume_are_billed_by_time_used_or_not(server: Server, name: str) -> None:
    server.deploy(name, realtime(count=2, volume_gb=20))
    server.advance(100 * 3600)
    lines = server.bill(name)["lines"]
    assert Decimal(lines["EUW3-Host:ml.m5.large"]["quantity"]) == 200
    volume = lines["EUW3-Host:VolumeUsage.gp2"]
    assert abs(Decimal(volume["quantity"]) - Decimal(40 * 100) / 720) < Decimal("1e-14")
    server.delete(name)
    server.advance(3600)
    assert Decimal(server.bill(name)["lines"]["EUW3-Host:ml.m5.large"]["quantity"]) == 200
