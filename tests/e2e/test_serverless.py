"""The serverless persona with real processes: limits that bite, and time that passes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tests.servers import KERAS, Server, alive, archive, predictions, realtime, serverless, until

OK = "    return b'{}', 'application/json'\n"
SLOW = "import time\ndef handler(data, context):\n    data.read()\n    time.sleep(0.5)\n" + OK
HANG = """
import time
def handler(data, context):
    if data.read() == b'hang':
        time.sleep(3600)
    return b'{}', 'application/json'
"""
GREEDY = """
held = []
def handler(data, context):
    word = data.read().decode()
    if word.startswith('take'):
        held.append(bytearray(int(word.split()[1]) << 20))
        for at in range(0, len(held[-1]), 4096):
            held[-1][at] = 1
    if word == 'spike':
        block = bytearray(900 << 20)
        for at in range(0, len(block), 4096):
            block[at] = 1
        del block
    return b'{}', 'application/json'
"""
CRASH = """
import os
def handler(data, context):
    word = data.read()
    if word == b'exit':
        os._exit(3)
    if word == b'raise':
        raise RuntimeError('no such luck')
    return b'{}', 'application/json'
"""


def test_idle_environments_expire_and_their_processes_end(server: Server, name: str) -> None:
    server.deploy(name, serverless())
    server.invoke(name)
    (warm,) = server.environments(name)
    server.advance(599)
    assert server.environments(name)[0]["idle_s"] == pytest.approx(599)
    server.advance(1)
    assert server.environments(name) == []
    until(lambda: not alive(warm["pid"]), "the expired process is gone")
    assert server.invoke(name).headers["x-emulator-cold-start"] == "true"


def test_above_max_concurrency_is_throttled_at_once(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, SLOW), concurrency=2))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.invoke(name), range(6)))
    throttled = [one for one in answers if one.status_code == 400]
    assert [one.status_code for one in answers].count(200) == 2
    assert len(throttled) == 4
    for one in throttled:
        assert one.headers["x-amzn-errortype"] == "ThrottlingException"
        assert one.content == b'{"message":null}'
        assert one.headers["x-emulator-billed-ms"] == "0"
        assert one.headers["x-emulator-cost-usd"] == "0"
    entry = server.bill(name)
    assert (entry["invocations"], entry["throttles"]) == (6, 4)
    assert len(server.environments(name)) == 2


def test_concurrent_requests_get_environments_of_their_own_and_reuse_them(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, SLOW), concurrency=4))
    with ThreadPoolExecutor(3) as pool:
        first = list(pool.map(lambda _: server.invoke(name), range(3)))
        second = list(pool.map(lambda _: server.invoke(name), range(3)))
    cold = [one.headers["x-emulator-cold-start"] for one in first]
    assert sorted(cold) == ["false", "true", "true"]  # the test start left one warm
    assert {one.headers["x-emulator-cold-start"] for one in second} == {"false"}


def test_provisioned_concurrency_stays_warm_spills_over_and_is_metered(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(
        name, serverless(archive(tmp_path, SLOW), concurrency=3, provisioned_concurrency=1)
    )
    server.advance(86_400)
    (kept,) = server.environments(name)
    assert kept["provisioned"] is True
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: server.invoke(name), range(2)))
    assert sorted(one.headers["x-emulator-cold-start"] for one in answers) == ["false", "true"]
    assert [row["provisioned"] for row in server.rows(name)].count(True) == 1
    lines = server.bill(name)["lines"]
    usage = lines["EUW3-ProvisionedConcurrency:Usage-2GB"]
    assert Decimal(usage["quantity"]) == 86_400
    assert usage["unit"] == "Seconds"
    assert set(lines) >= {"EUW3-ProvisionedConcurrency:Mem-2GB", "EUW3-ServerlessInf:Mem-2GB"}


def test_memory_over_the_limit_while_serving_is_killed_and_healed(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, GREEDY), memory_mb=1024))
    (before,) = server.environments(name)
    answer = server.invoke(name, b"take 900")
    assert answer.status_code == 424
    assert answer.headers["x-amzn-errortype"] == "ModelError"
    assert "insufficient memory" in answer.json()["Message"]
    assert answer.json()["OriginalStatusCode"] == 0
    assert not alive(before["pid"])
    healed = server.invoke(name, b"rest")
    assert healed.status_code == 200
    assert healed.headers["x-emulator-cold-start"] == "true"


def test_a_short_spike_over_the_limit_counts(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, serverless(archive(tmp_path, GREEDY), memory_mb=1024))
    assert server.invoke(name, b"rest").status_code == 200
    answer = server.invoke(name, b"spike")
    assert answer.status_code == 424
    assert "insufficient memory" in answer.json()["Message"]


def test_a_model_too_large_for_its_memory_fails_with_a_reason(
    server: Server, name: str, tmp_path: Path
) -> None:
    script = "held = bytearray(1 << 30)\nheld[::4096] = b'x' * (1 << 18)\n" + SLOW
    server.create(name, serverless(archive(tmp_path, script), memory_mb=1024))
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "insufficient memory" in endpoint["failure_reason"]
    assert "1024" in endpoint["failure_reason"]


def test_an_environment_that_exits_is_reported_and_healed(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, CRASH)))
    answer = server.invoke(name, b"exit")
    assert answer.status_code == 424
    assert "the model process exited" in answer.json()["Message"]
    assert server.invoke(name, b"fine").status_code == 200


def test_the_containers_own_error_keeps_its_status_and_its_environment(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, CRASH)))
    (before,) = server.environments(name)
    answer = server.invoke(name, b"raise")
    assert answer.status_code == 424
    body = answer.json()
    assert body["OriginalStatusCode"] == 500
    assert "no such luck" in body["OriginalMessage"]
    assert 'Received server error (500) from primary with message "' in body["Message"]
    assert f"/aws/sagemaker/Endpoints/{name}" in body["Message"]
    assert body["LogStreamArn"].startswith("arn:aws:logs:eu-west-3:123456789012:log-group:")
    assert server.environments(name)[0]["pid"] == before["pid"]
    assert server.rows(name)[-1]["billed_ms"] >= 1  # a failed call is billed for its duration


def test_an_answer_after_sixty_seconds_is_a_timeout(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, HANG)))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.invoke, name, b"hang")
        until(lambda: server.endpoint(name)["in_flight"], "the request is being served")
        server.advance(59)
        assert not waiting.done()
        server.advance(1)
        answer = waiting.result(30)
    assert answer.status_code == 424
    assert "Your invocation timed out" in answer.json()["Message"]
    assert answer.json()["OriginalStatusCode"] == 0
    assert 60_000 <= int(answer.headers["x-emulator-billed-ms"]) < 61_000
    assert server.invoke(name, b"go").status_code == 200


def test_idle_death_is_noticed(server: Server, name: str) -> None:
    server.deploy(name, serverless())
    (before,) = server.environments(name)
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: not server.environments(name), "the death is noticed")
    assert server.invoke(name).headers["x-emulator-cold-start"] == "true"


def test_a_small_share_of_a_cpu_stretches_the_answer_and_the_bill(
    server: Server, name: str, tmp_path: Path
) -> None:
    script = """
import time
def handler(data, context):
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    return b'{}', 'application/json'
"""
    server.deploy(name, serverless(archive(tmp_path, script), memory_mb=1024))
    answer = server.invoke(name)
    row = server.rows(name)[-1]
    assert row["cpu_us"] >= 200_000
    assert row["model_latency_us"] >= row["cpu_us"] * 1769 // 1024 - 1
    assert int(answer.headers["x-emulator-billed-ms"]) >= 200 * 1769 // 1024


def test_four_megabytes_in_and_not_one_byte_more(server: Server, name: str) -> None:
    server.deploy(name, serverless())
    most = 4 * 1024 * 1024
    inside = server.invoke(name, b" " * most)
    assert inside.status_code == 424  # it reached the container, which found no JSON in it
    answer = server.invoke(name, b" " * (most + 1))
    request_id = answer.headers["x-amzn-requestid"]
    assert answer.status_code == 400
    assert answer.headers["x-amzn-errortype"] == "ValidationError"
    assert answer.json() == {"Message": f"Request {request_id} has oversize body."}
    assert server.rows(name)[-1]["error_code"] == "ValidationError"
    assert server.invoke(name).status_code == 200


def test_a_response_over_four_megabytes_is_a_model_error(
    server: Server, name: str, tmp_path: Path
) -> None:
    script = (
        "def handler(data, context):\n"
        "    return b'x' * (4 * 1024 * 1024 + int(data.read())), 'text/plain'\n"
    )
    server.deploy(name, serverless(archive(tmp_path, script)))
    assert len(server.invoke(name, b"0").content) == 4 * 1024 * 1024
    answer = server.invoke(name, b"1")
    assert answer.status_code == 424
    assert "could not load the entire response body" in answer.json()["Message"]


def test_the_quota_bounds_the_sum_over_endpoints(server: Server, name: str) -> None:
    answers = [
        server.create(f"{name}-{number}", serverless(concurrency=200)) for number in range(3)
    ]
    try:
        assert [one.status_code for one in answers] == [201, 201, 400]
        assert "Maximum total concurrency" in answers[2].json()["detail"]
        assert "is 500 requests" in answers[2].json()["detail"]
    finally:
        for number in range(2):
            server.settled(f"{name}-{number}")
            server.delete(f"{name}-{number}")


def test_evicting_a_real_time_endpoint_is_refused(server: Server) -> None:
    answer = server.client.post("/_emulator/endpoints/fashion-mnist-realtime/evict")
    assert answer.status_code == 400
    assert "always warm" in answer.json()["detail"]


def test_a_later_failure_to_load_is_a_model_error_with_its_own_words(
    server: Server, name: str, tmp_path: Path
) -> None:
    flag = tmp_path / "broken"
    script = (
        f"import os\nif os.path.exists({str(flag)!r}):\n"
        "    raise RuntimeError('the weights have moved')\n" + SLOW
    )
    server.deploy(name, serverless(archive(tmp_path, script)))
    server.evict(name)
    flag.touch()
    answer = server.invoke(name)
    assert answer.status_code == 424
    assert "the weights have moved" in answer.json()["Message"]
    assert answer.headers["x-emulator-cold-start"] == "true"
    assert answer.headers["x-emulator-billed-ms"] == "0"
    flag.unlink()
    assert server.invoke(name).status_code == 200


def test_custom_attributes_go_in_and_out(server: Server, name: str, tmp_path: Path) -> None:
    script = (
        "def handler(data, context):\n"
        "    return context.custom_attributes.encode(), context.request_content_type\n"
    )
    server.deploy(name, serverless(archive(tmp_path, script)))
    headers = {"content-type": "text/x-mine", "X-Amzn-SageMaker-Custom-Attributes": "trace=1"}
    answer = server.invoke(name, b"", headers)
    assert (answer.content, answer.headers["content-type"]) == (b"trace=1", "text/x-mine")
    headers["X-Amzn-SageMaker-Custom-Attributes"] = "x" * 1025
    refused = server.invoke(name, b"", headers)
    assert refused.status_code == 400
    assert "less than or equal to 1024" in refused.json()["Message"]


def test_environment_variables_reach_the_container_and_the_servers_do_not(
    server: Server, name: str, tmp_path: Path
) -> None:
    script = (
        "import json, os\ndef handler(data, context):\n"
        "    return json.dumps(dict(os.environ)), 'application/json'\n"
    )
    server.deploy(name, serverless(archive(tmp_path, script), variables={"GREETING": "hello"}))
    seen = server.invoke(name).json()
    assert seen["GREETING"] == "hello"
    assert not [key for key in seen if key.startswith(("EMULATOR_", "AWS_"))]


def test_output_of_the_environment_is_in_the_log_with_its_origin(
    server: Server, name: str, tmp_path: Path
) -> None:
    script = "def handler(data, context):\n    print('seen in the log')\n" + OK
    server.deploy(name, serverless(archive(tmp_path, script)))
    server.invoke(name)
    (environment,) = server.environments(name)
    assert environment["id"].startswith(f"{name}-AllTraffic-")
    wanted = f"{name}/AllTraffic/{environment['id']} | seen in the log"
    until(lambda: wanted in server.log.read_text(), wanted)


def test_both_personas_give_the_same_prediction(server: Server, name: str) -> None:
    server.deploy(name, realtime(KERAS))
    np.testing.assert_allclose(  # one is compiled, so the last digit may differ
        predictions(server.invoke(name)),
        predictions(server.invoke("fashion-mnist-serverless")),
        rtol=1e-4,
    )
