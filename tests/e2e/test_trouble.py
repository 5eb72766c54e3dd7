"""Things that happen at the wrong moment: nothing is lost, left behind or billed by mistake."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import (
    JSON,
    LIGHT,
    SNEAKER,
    Server,
    alive,
    archive,
    realtime,
    serverless,
    serving,
    until,
)

REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"
OK = "    return b'{}', 'application/json'\n"
GATED = (
    "import os, time\nwhile not os.path.exists({gate!r}):\n    time.sleep(0.01)\n"
    "def handler(data, context):\n" + OK
)
HANG = (
    "import time\ndef handler(data, context):\n    if data.read() == b'hang':\n"
    "        time.sleep(3600)\n" + OK
)


def test_a_reset_under_load_answers_everyone_and_leaves_no_process(tmp_path: Path) -> None:
    with serving(tmp_path, EMULATOR_CLOCK="virtual", **LIGHT) as server:
        server.deploy("mine", serverless(concurrency=4, provisioned_concurrency=2))
        before, statuses, stop = server.pids(), set[int](), threading.Event()

        def load(endpoint: str) -> None:
            while not stop.is_set():
                statuses.add(server.invoke(endpoint).status_code)

        with ThreadPoolExecutor(3) as pool:
            work = [pool.submit(load, one) for one in (REALTIME, SERVERLESS, "mine")]
            for _ in range(2):
                assert server.client.post("/_emulator/reset").status_code == 200
            stop.set()
            for one in work:
                one.result(30)
        until(lambda: server.client.get("/ping").status_code == 200, "the defaults are back")
        until(lambda: not any(map(alive, before)), "the old environments are gone")
        assert statuses <= {200, 400, 429, 503}
        assert len(server.pids()) == 2
        assert server.invoke(REALTIME).status_code == 200
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        assert len(children.read_text().split()) == 1  # the zygote


def test_two_resets_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        with ThreadPoolExecutor(2) as pool:
            answers = list(
                pool.map(lambda _: server.client.post("/_emulator/reset").status_code, range(2))
            )
        assert answers == [200, 200]
        until(lambda: server.client.get("/ping").status_code == 200, "the defaults are back")


def test_quotas_of_a_new_account_fit_the_first_start(tmp_path: Path) -> None:
    settings = {
        "EMULATOR_SERVERLESS_MEMORY_QUOTA_MB": "3072",
        "EMULATOR_SERVERLESS_CONCURRENCY_QUOTA": "5",
    }
    with serving(tmp_path, **settings, **LIGHT) as server:
        (variant,) = server.endpoint(SERVERLESS)["variants"]
        assert (variant["memory_mb"], variant["max_concurrency"]) == (3072, 5)
        assert server.invoke(SERVERLESS).status_code == 200


def test_what_was_deleted_stays_deleted_over_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        server.delete(REALTIME)
        server.delete(SERVERLESS)
        assert list((server.state / "models").iterdir()) == []
        server.stop()
        (server.state / "models" / "unfinished").mkdir()
        server.start()
        assert server.client.get("/_emulator/endpoints").json()["endpoints"] == []
        assert list((server.state / "models").iterdir()) == []
        server.deploy("new", serverless())


def test_advancing_far_with_a_request_in_flight_replaces_and_goes_on(
    server: Server, name: str, tmp_path: Path
) -> None:
    model = archive(tmp_path, HANG)
    server.deploy(name, realtime(model))
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(server.invoke, name, b"hang")
        until(lambda: server.endpoint(name)["in_flight"], "the request is being served")
        server.advance(30 * 86_400)
        assert hanging.result(30).status_code == 424
    (environment,) = server.environments(name)
    assert environment["state"] == "idle"
    assert server.invoke(name, b"go").status_code == 200


def test_time_has_an_end(server: Server) -> None:
    now = server.client.get("/_emulator/clock").json()["now_ns"]
    answers = []
    for seconds in (366 * 86_400 + 1, 1e300):
        answer = server.client.post("/_emulator/clock/advance", json={"seconds": seconds})
        answers.append(answer.status_code)
    assert answers == [422, 422]
    assert server.client.get("/_emulator/clock").json()["now_ns"] == now


def test_instances_are_not_billed_before_they_are_in_service(
    server: Server, name: str, tmp_path: Path
) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    gate = tmp_path / "open"
    script = (
        GATED.replace("{gate!r}", repr(str(gate))) + "raise RuntimeError('the second is broken')\n"
    )
    good, bad = archive(tmp_path / "good", HANG), archive(tmp_path / "bad", script)
    server.create(name, realtime(good, name="A"), realtime(bad, name="B"))
    until(
        lambda: any(one["state"] == "idle" for one in server.environments(name)),
        "the first variant is up",
    )
    gate.touch()
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "the second is broken" in endpoint["failure_reason"]
    server.advance(3600)
    assert server.bill(name)["lines"] == {}


def test_a_creation_that_fails_can_be_repeated(server: Server, name: str, tmp_path: Path) -> None:
    missing = server.create(name, realtime(name="A"), realtime(tmp_path / "gone.keras", name="B"))
    assert missing.status_code == 400
    server.deploy(name, realtime(name="A"), realtime(name="B"))


def test_long_names_do_not_mix_models_up(server: Server, tmp_path: Path) -> None:
    scripts = {
        one: f"def handler(data, context):\n    return b'{one}', 'text/plain'\n" for one in "AB"
    }
    for one in "AB":
        (tmp_path / one).mkdir()
    models = {one: archive(tmp_path / one, script) for one, script in scripts.items()}
    name = "n" * 63
    server.deploy(name, *(realtime(models[one], name=one) for one in "AB"))
    for one in "AB":
        target = {**JSON, "X-Amzn-SageMaker-Target-Variant": one}
        assert server.invoke(name, SNEAKER, target).text == one
    server.delete(name)
    too_long = server.create("n" * 64, serverless())
    assert "less than or equal to 63" in too_long.json()["detail"]


@pytest.mark.parametrize(
    "content_type", ["text/plain\r\nX-Evil: 1", "text/plain\x00", "x" * 2000], ids=str.__len__
)
def test_a_content_type_that_is_no_header_is_a_model_error(
    server: Server, name: str, tmp_path: Path, content_type: str
) -> None:
    script = f"def handler(data, context):\n    return b'{{}}', {content_type!r}\n"
    server.deploy(name, serverless(archive(tmp_path, script)))
    answer = server.invoke(name)
    assert answer.status_code == 424
    assert "a header that cannot be sent" in answer.json()["Message"]
    assert "x-evil" not in answer.headers
    assert server.rows(name)[-1]["status"] == 424


@pytest.mark.parametrize("header", ["content-type", "accept"])
def test_request_headers_have_a_limit(server: Server, header: str) -> None:
    answer = server.invoke(SERVERLESS, SNEAKER, {**JSON, header: "x" * 2000})
    assert answer.status_code == 400
    assert "Member must have length less than or equal to 1024" in answer.json()["Message"]
    assert server.invoke(SERVERLESS).status_code == 200


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"A": "x" * 2000}, "The variable A has 2000 characters"),
        ({"A": "\0"}, "none of them NUL"),
        ({"1A": "x"}, "'1A' is not letters"),
        ({"": "x"}, "'' is not letters"),
        ({f"A{n}": "" for n in range(101)}, "at most 100"),
    ],
    ids=["long", "nul", "digit", "empty", "many"],
)
def test_variables_that_no_container_may_have(
    server: Server, name: str, variables: dict[str, str], said: str
) -> None:
    answer = server.create(name, serverless(variables=variables))
    assert 400 <= answer.status_code < 500
    assert said in json.dumps(answer.json()).replace("\\\\", "\\")


def test_an_answer_given_before_a_death_is_not_lost(
    server: Server, name: str, tmp_path: Path
) -> None:
    """At 1024 MB the answer is held back for its share of a CPU; the process ends meanwhile."""
    script = """
import os, threading, time
def handler(data, context):
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    threading.Timer(0.05, os._exit, [3]).start()
    return b'{"answered": true}', 'application/json'
"""
    server.deploy(name, serverless(archive(tmp_path, script), memory_mb=1024))
    answer = server.invoke(name)
    assert (answer.status_code, answer.content) == (200, b'{"answered": true}')


def test_a_killed_zygote_costs_no_worker_and_no_provisioned_environment(tmp_path: Path) -> None:
    workers = {"SAGEMAKER_MODEL_SERVER_WORKERS": "3"}
    with serving(tmp_path, **LIGHT) as server:
        server.deploy("three", realtime(variables=workers))
        server.deploy("floor", serverless(concurrency=6, provisioned_concurrency=5))
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        (zygote,) = children.read_text().split()
        old = set(server.pids())
        os.kill(int(zygote), signal.SIGKILL)

        def healed() -> bool:
            alive_now = {
                name: [e for e in server.environments(name) if e["state"] == "idle"]
                for name in ("three", "floor")
            }
            pids = {one["pid"] for each in alive_now.values() for one in each}
            return [*map(len, alive_now.values())] == [3, 5] and not pids & old

        until(healed, "everything that was lost is replaced")
        assert server.invoke("three").status_code == 200


def test_a_keras_file_is_held_to_the_limit_of_models(tmp_path: Path) -> None:
    with serving(tmp_path, EMULATOR_MODEL_BYTES="5000000", **LIGHT) as server:
        (tmp_path / "big.keras").write_bytes(b"0" * 5_000_001)
        answer = server.create("big", serverless(tmp_path / "big.keras"))
        assert "has more than 5000000 bytes" in answer.json()["detail"]
        nobody = server.create("nobody", serverless("~nobody-of-that-name/m.keras"))
        assert "There is no model at ~nobody-of-that-name/m.keras" in nobody.json()["detail"]
