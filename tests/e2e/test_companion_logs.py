"""What environments print, as clients of CloudWatch Logs find it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.aws import client
from tests.servers import LIGHT, Server, archive, serverless, serving, until

ACCOUNT, REGION = "123456789012", "eu-west-3"
PRINTS = """
def handler(data, context):
    for word in data.read().decode().split(','):
        print(word, flush=True)
    return b'{}', 'application/json'
"""


def logs_of(server: Server, region: str = REGION) -> Any:
    return client(server, "logs", ACCOUNT, region)


def messages(server: Server, name: str, **more: Any) -> list[str]:
    group = f"/aws/sagemaker/Endpoints/{name}"
    found = logs_of(server).filter_log_events(logGroupName=group, **more)["events"]
    return [event["message"] for event in found]


def printed(server: Server, name: str, *words: str) -> list[str]:
    """The lines once all of these words are among them."""

    def there() -> list[str] | None:
        found = messages(server, name)
        return found if set(words) <= set(found) else None

    return until(there, f"{words} are in the log")


def test_output_is_in_a_group_of_the_endpoint_and_a_stream_of_the_environment(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, PRINTS)))
    server.advance(3600)
    assert server.invoke(name, b"one,two").status_code == 200
    found = printed(server, name, "one", "two")
    assert found.index("one") < found.index("two")
    logs, group = logs_of(server), f"/aws/sagemaker/Endpoints/{name}"
    (described,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert described["logGroupName"] == group
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert server.rows(name)[-1]["environment"] in stream["logStreamName"]
    assert stream["logStreamName"].startswith("AllTraffic/")
    where = {"logGroupName": group, "logStreamName": stream["logStreamName"]}
    events = logs.get_log_events(**where, startFromHead=True)["events"]
    assert [event["message"] for event in events] == found
    now_ms = server.client.get("/_emulator/clock").json()["now_ns"] // 1_000_000
    assert events[-1]["timestamp"] == now_ms  # by the server's clock
    assert messages(server, name, startTime=now_ms, filterPattern="two") == ["two"]
    assert logs_of(server, "us-east-1").describe_log_groups()["logGroups"] == []


def test_a_group_that_is_deleted_stays_away_until_something_is_printed(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, PRINTS)))
    server.invoke(name, b"before")
    printed(server, name, "before")
    logs, group = logs_of(server), f"/aws/sagemaker/Endpoints/{name}"
    logs.delete_log_group(logGroupName=group)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []
    server.invoke(name, b"after")
    until(lambda: logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"], "it is back")
    assert messages(server, name) == ["after"]


def test_output_outlives_the_endpoint_and_the_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    with serving(folder, EMULATOR_CLOCK="virtual", **LIGHT) as own:
        own.deploy("printing", serverless(archive(folder, PRINTS)))
        own.invoke("printing", b"one,two,three")
        found = printed(own, "printing", "one", "two", "three")
        own.delete("printing")
        own.stop(signal.SIGKILL)
        own.start()
        assert messages(own, "printing") == found


def test_another_emulator_is_told_what_is_printed(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sending")
    with serving(folder, EMULATOR_COMPANION_URL=server.url, **LIGHT) as front:
        front.deploy("sending", serverless(archive(folder, PRINTS)))
        front.invoke("sending", b"one,two")
        found = printed(front, "sending", "one", "two")
        assert messages(server, "sending") == found
        front.stop()
        front.start()
        assert messages(front, "sending") == found  # and not a second time
