"""The server's life: first start, restart, end, and starts that cannot be made."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from emulator.ledger import VERSION, Ledger
from tests.aws import REGION, client
from tests.load import REALTIME, SERVERLESS, Load, check_bill, rows
from tests.servers import (
    LIGHT,
    ROOT,
    Server,
    alive,
    archive,
    descendants,
    environment,
    failed_start,
    free_port,
    serverless,
    serving,
    until,
    uvicorn,
)

HOURS = "EUW3-Host:ml.t2.medium"


def hours(server: Server) -> Decimal:
    return Decimal(server.bill(REALTIME)["lines"][HOURS]["quantity"])


def test_a_restart_keeps_endpoints_bill_and_time_and_loses_no_second(tmp_path: Path) -> None:
    with serving(tmp_path, EMULATOR_CLOCK="virtual", **LIGHT) as server:
        server.deploy("mine", serverless(memory_mb=1024))
        server.invoke("mine")
        server.advance(3600)
        clock = server.client.get("/_emulator/clock").json()["now_ns"]
        bill, rows = server.client.get("/billing").json(), server.rows("mine")
        assert hours(server) == 1
        assert server.stop() in (0, -signal.SIGTERM)

        server.start()
        assert server.client.get("/_emulator/clock").json()["now_ns"] == clock
        assert server.client.get("/billing").json() == bill
        assert server.rows("mine") == rows
        assert server.endpoint("mine")["status"] == "InService"
        server.advance(3600)
        assert hours(server) == 2
        cold = server.invoke("mine")
        assert cold.headers["x-emulator-cold-start"] == "true"


def test_wall_time_bills_what_it_ran_and_not_what_it_was_down(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        began = time.monotonic()
        first = hours(server)
        until(lambda: hours(server) > first, "instance time grows")
        until(lambda: time.monotonic() - began > 1.5, "a beat has passed")
        known = hours(server)
        server.stop(signal.SIGKILL)
        killed = time.monotonic()
        server.start()
        started = time.monotonic()
        after = hours(server)
        assert after >= known - Decimal(1) / 3600 - Decimal("0.0001")
        most = Decimal(killed - began + (time.monotonic() - started) + 10) / 3600
        assert after <= most


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_end_answers_what_is_in_flight_and_leaves_nothing(
    tmp_path: Path, how: signal.Signals
) -> None:
    script = (
        "import time\ndef handler(data, context):\n    data.read()\n    time.sleep(1)\n"
        "    return b'{\"answered\": true}', 'application/json'\n"
    )
    with serving(tmp_path, **LIGHT) as server:
        server.deploy("slow", serverless(archive(tmp_path, script), concurrency=3))
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(server.invoke, "slow") for _ in range(3)]
            until(lambda: server.endpoint("slow")["in_flight"] == 3, "all are in flight")
            pids = descendants(server.process.pid)
            server.process.send_signal(how)
            answers = [one.result(30) for one in waiting]
        assert [one.status_code for one in answers] == [200, 200, 200]
        server.process.wait(30)
        assert not any(map(alive, pids))
        server.start()
        assert len(server.rows("slow")) == 3
        assert server.bill("slow")["invocations"] == 3


def test_reset_is_a_first_start_again(tmp_path: Path) -> None:
    with serving(tmp_path, EMULATOR_CLOCK="virtual", **LIGHT) as server:
        server.deploy("mine", serverless())
        server.invoke("mine")
        server.advance(3600)
        assert server.client.post("/_emulator/reset").status_code == 200
        until(lambda: server.client.get("/ping").status_code == 200, "the defaults are back")
        names = [one["name"] for one in server.client.get("/billing").json()["endpoints"]]
        assert names == [REALTIME, SERVERLESS]
        assert server.client.get("/billing").json()["total"] == "0"
        assert server.rows("mine") == []
        assert server.invoke(SERVERLESS).status_code == 200


def test_reset_forgets_objects_topics_and_logs(tmp_path: Path) -> None:
    with serving(tmp_path, EMULATOR_CLOCK="virtual", **LIGHT) as server:
        s3, sns, logs = (client(server, name) for name in ("s3", "sns", "logs"))
        for round_number in range(2):  # the second finds what the first has left of moto
            s3.create_bucket(
                Bucket="mine", CreateBucketConfiguration={"LocationConstraint": REGION}
            )
            s3.put_object(Bucket="mine", Key="key", Body=b"%d" % round_number)
            sns.create_topic(Name="mine")
            logs.create_log_group(logGroupName="mine")
            assert server.client.post("/_emulator/reset").status_code == 200
            assert s3.list_buckets()["Buckets"] == []
            assert sns.list_topics()["Topics"] == []
            assert logs.describe_log_groups(logGroupNamePrefix="mine")["logGroups"] == []
        assert not [*(server.state / "objects" / "contents").glob("*/*")]
        server.stop()
        server.start()
        assert client(server, "s3").list_buckets()["Buckets"] == []


def test_settings_bill_start_up_time_model_delays_and_choose_region_and_limit(
    tmp_path: Path,
) -> None:
    settings = {"EMULATOR_BILL_STARTUP": "true", "EMULATOR_COLD_START": "2.5"}
    settings |= {"EMULATOR_REALTIME_PAYLOAD_BYTES": "6291456", "EMULATOR_REGION": "us-east-1"}
    with serving(tmp_path, EMULATOR_CLOCK="virtual", **settings, **LIGHT) as server:
        server.evict(SERVERLESS)
        cold = server.invoke(SERVERLESS)
        assert int(cold.headers["x-emulator-setup-time-us"]) > 2_500_000
        assert int(cold.headers["x-emulator-billed-ms"]) > 2_500
        row = server.rows(SERVERLESS)[-1]
        assert row["provision_us"] == 2_500_000
        assert row["billed_ms"] < 2_500 < row["billed_startup_ms"]
        line = server.bill(SERVERLESS)["lines"]["USE1-ServerlessInf:Mem-4GB"]
        assert Decimal(line["quantity"]) == Decimal(row["billed_startup_ms"]) / 1000
        assert server.invoke(REALTIME, b" " * 6291457).status_code == 413  # the older limit


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"EMULATOR_CLOCK": "sundial"}, "EMULATOR_CLOCK is 'sundial'"),
        ({"EMULATOR_SEED": "x"}, "expected a whole number"),
        ({"EMULATOR_REGION": "mars-north-1"}, "mars-north-1"),
        ({"EMULATOR_COLOUR": "red"}, "no setting 'colour'"),
    ],
)
def test_settings_that_do_not_parse_stop_the_start(
    tmp_path: Path, settings: Mapping[str, str], said: str
) -> None:
    assert said in failed_start(tmp_path, None, **settings)


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = failed_start(tmp_path / "file" / "state")
    assert "cannot be used (Not a directory)" in said
    assert "set EMULATOR_STATE_DIR" in said


def test_a_start_that_breaks_off_is_no_start(tmp_path: Path) -> None:
    """Not a server that looks healthy and neither bills nor ends as it should."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "models").write_text("in the way")
    assert f"cannot be copied into {state}/models: " in failed_start(state)
    (state / "models").unlink()
    with serving(tmp_path, **LIGHT) as server:
        assert server.invoke(SERVERLESS).status_code == 200


def test_a_ledger_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"a diary" * 1000)
    assert "ledger.sqlite" in failed_start(tmp_path)
    assert (tmp_path / "ledger.sqlite").read_bytes() == b"a diary" * 1000


def test_a_ledger_of_a_newer_version_and_one_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    sound = path.read_bytes()
    newer = sound[:60] + (VERSION + 1).to_bytes(4, "big") + sound[64:]  # SQLite's user_version
    damaged = sound[:4096] + b"\xa5" * (len(sound) - 4096)
    for content, words in ((newer, "upgrade Lukewarm"), (damaged, "set EMULATOR_STATE_DIR")):
        path.write_bytes(content)
        said = [line for line in failed_start(tmp_path).splitlines() if words in line]
        assert len(said) == 1
        assert str(path) in said[0]
        assert path.read_bytes() == content


def test_two_servers_on_one_state_directory(server: Server) -> None:
    said = failed_start(server.state)
    assert f"in use by another server (process {server.process.pid})" in said
    assert server.invoke(REALTIME).status_code == 200


def test_two_workers_would_be_two_deciders(tmp_path: Path) -> None:
    done = subprocess.run(
        uvicorn(free_port(), "--workers", "2"),
        cwd=ROOT,
        env=environment(tmp_path / "state"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.count("start it without --workers") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "address already in use" in failed_start(tmp_path / "a", port)
        done = subprocess.run(
            [sys.executable, "-m", "emulator.cli", "serve", "--port", str(port)],
            cwd=ROOT,
            env=environment(tmp_path / "b"),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in done.stderr
    assert "make serve PORT=8001" in done.stderr


def test_an_end_under_load_answers_what_it_took_and_takes_no_more(tmp_path: Path) -> None:
    load = Load()
    with serving(tmp_path, **LIGHT) as server:
        for _ in range(2):
            with load.on(server, [REALTIME, REALTIME, SERVERLESS, SERVERLESS], may_end=True):
                load.wait(200, 50, "calls are answered")
                pids = descendants(server.process.pid)
                server.process.send_signal(signal.SIGTERM)
                assert server.process.wait(30) in (0, -signal.SIGTERM)
            assert not any(map(alive, pids))
            server.client.close()
            server.start()
            recorded = Counter(row["request_id"] for row in rows(server))
            assert recorded == Counter(load.answers.keys())
            assert load.statuses().keys() == {200}
            check_bill(server)


def test_a_stop_waits_for_the_grace_and_no_longer(tmp_path: Path) -> None:
    """Under plain uvicorn, which would wait for this client as long as the client wants."""
    with serving(tmp_path, EMULATOR_GRACE_S="1", EMULATOR_BODY_S="3600", **LIGHT) as server:
        head = f"POST /endpoints/{REALTIME}/invocations HTTP/1.1\r\nhost: x\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(head.encode() + b"content-length: 1000\r\n\r\n{")
            server.invoke(REALTIME)
            server.stop()
            assert raw.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert "Traceback" not in server.log.read_text()
