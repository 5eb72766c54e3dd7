"""UpdateEndpointWeightsAndCapacities: what serves grows and shrinks, and no caller notices."""

from __future__ import annotations

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.accounts import BREAKS, REALTIME, REGION, SERVERLESS, Account
from tests.aws import code
from tests.e2e.test_update import ECHO, Callers
from tests.servers import LIGHT, SNEAKER, Server, archive, serving, until


def want(account: Account, **desired: Any) -> None:
    wanted = [{"VariantName": "AllTraffic", **desired}]
    account.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="one", DesiredWeightsAndCapacities=wanted
    )


def rescale(account: Account, **desired: Any) -> dict[str, Any]:
    """Ask for it; the only variant's summary once it is settled."""
    want(account, **desired)
    assert account.describe("one")["EndpointStatus"] in ("Updating", "InService")
    described = account.settled("one")
    assert described["EndpointStatus"] == "InService"
    summary: dict[str, Any] = described["ProductionVariants"][0]
    return {**summary, "FailureReason": described.get("FailureReason", "")}


def environments(account: Account) -> list[dict[str, Any]]:
    shown = account.server.client.get("/_emulator/endpoints").json()["endpoints"]
    return [e for one in shown if one["account"] == account.account for e in one["environments"]]


def hours(account: Account) -> float:
    """The hours of instances that the endpoint is billed for."""
    return used(account, "ml.m5.large")


def used(account: Account, usage: str) -> float:
    """The quantity of the lines of the bill whose usage type has this in it."""
    bill = account.server.client.get("/billing").json()["endpoints"]
    return sum(
        float(line["quantity"])
        for one in bill
        if one["name"] == "one" and one["account"] == account.account
        for line in one["lines"]
        if usage in line["usage_type"]
    )


def ask(account: Account) -> str:
    """The variant that answers, or the code of the error."""
    given = {"EndpointName": "one", "Body": SNEAKER, "ContentType": "application/json"}
    try:
        answer = account.runtime.invoke_endpoint(**given)
    except ClientError as error:
        return code(error)
    return str(answer["InvokedProductionVariant"])


def test_instances_come_and_go_under_load_and_the_bill_follows(
    account: Account, tmp_path: Path
) -> None:
    account.deploy("one", REALTIME, url=f"file://{archive(tmp_path, ECHO)}")
    callers = Callers(account, "one", 3)
    with callers.calling():
        assert rescale(account, DesiredInstanceCount=3)["CurrentInstanceCount"] == 3
        assert len(environments(account)) == 3
        assert rescale(account, DesiredInstanceCount=1)["CurrentInstanceCount"] == 1
        until(lambda: len(environments(account)) == 1, "the others have answered and ended")
    assert {status for status, _ in callers.answers} == {200}
    before = hours(account)
    for count in (2, 3, 1):
        rescale(account, DesiredInstanceCount=count)
        account.server.advance(3600)
    assert hours(account) - before == pytest.approx(6, abs=1e-2)


def test_what_does_not_come_up_is_taken_back(account: Account, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    script = f"import os\nif os.path.exists({str(flag)!r}):\n    {BREAKS}\n{ECHO}"
    account.deploy("one", REALTIME, url=f"file://{archive(tmp_path, script)}")
    callers = Callers(account, "one", 2)
    with callers.calling():
        flag.touch()
        summary = rescale(account, DesiredInstanceCount=2)
    assert "no use" in summary["FailureReason"]
    assert (summary["CurrentInstanceCount"], len(environments(account))) == (1, 1)
    assert {status for status, _ in callers.answers} == {200}


def test_concurrency_changes_in_service(account: Account, tmp_path: Path) -> None:
    account.deploy("one", SERVERLESS, url=f"file://{archive(tmp_path, ECHO)}")
    update = {"MaxConcurrency": 6, "ProvisionedConcurrency": 2}
    (old,) = environments(account)
    summary = rescale(account, ServerlessUpdateConfig=update)
    assert summary["CurrentServerlessConfig"] == {"MemorySizeInMB": 2048, **update}
    grown = environments(account)
    assert [(one["state"], one["provisioned"]) for one in grown] == [("idle", True)] * 2
    assert old["pid"] in [one["pid"] for one in grown]  # it was warm
    callers = Callers(account, "one", 6)
    with callers.calling():
        pass
    assert {status for status, _ in callers.answers} == {200}
    callers = Callers(account, "one", 6)
    with callers.calling():
        update = {"MaxConcurrency": 1, "ProvisionedConcurrency": 1}
        rescale(account, ServerlessUpdateConfig=update)
        until(lambda: len(environments(account)) == 1, "the others have answered and ended")
    assert {status for status, _ in callers.answers} == {200, 400}
    assert environments(account)[0]["provisioned"]


def test_the_bill_follows_the_floor(account: Account) -> None:
    account.deploy("one", SERVERLESS)
    usage = "ProvisionedConcurrency:Usage-2GB"
    for floor in (2, 1):
        rescale(account, ServerlessUpdateConfig={"ProvisionedConcurrency": floor})
        account.server.advance(1000)
    assert used(account, usage) == pytest.approx(3000, abs=10)


def test_throttling_begins_at_the_new_limit(account: Account, tmp_path: Path) -> None:
    slow = ECHO.replace("0.02", "2")
    account.deploy("one", SERVERLESS, url=f"file://{archive(tmp_path, slow)}")
    with ThreadPoolExecutor(6) as callers:
        for most in (4, 1):
            rescale(account, ServerlessUpdateConfig={"MaxConcurrency": most})
            said = Counter(callers.map(lambda _: ask(account), range(6)))
            assert said == {"AllTraffic": most, "ThrottlingException": 6 - most}


def test_weights_change_and_no_process_does(account: Account) -> None:
    account.deploy("one", {**REALTIME, "InitialVariantWeight": 1.0}, REALTIME)
    pids = {one["pid"] for one in environments(account)}
    for weight, other in ((0, "B1"), (1_000_000, "AllTraffic")):
        summary = rescale(account, DesiredWeight=weight)
        assert (summary["CurrentWeight"], summary["DesiredWeight"]) == (weight, weight)
        assert {ask(account) for _ in range(10)} == {other}
    assert {one["pid"] for one in environments(account)} == pids


def restarted(server: Server, how: signal.Signals, count: int) -> None:
    """End the server and start it again; the endpoint has that many instances then, and is billed
    for as many."""
    server.stop(how)
    server.start()
    account = Account(server, REGION)
    (summary,) = account.settled("one")["ProductionVariants"]
    assert (summary["CurrentInstanceCount"], summary["DesiredInstanceCount"]) == (count, count)
    states = ["idle"] * count
    until(lambda: [e["state"] for e in server.environments("one")] == states, f"{count} are up")
    before = hours(account)
    server.advance(3600)
    assert hours(account) - before == pytest.approx(count, abs=1e-2)


def test_a_new_size_outlives_the_server_also_where_a_kill_cuts_the_change_short(
    tmp_path: Path,
) -> None:
    slow = tmp_path / "slow"
    script = f"import os, time\nif os.path.exists({str(slow)!r}):\n    time.sleep(2)\n{ECHO}"
    with serving(tmp_path, EMULATOR_CLOCK="virtual", **LIGHT) as server:
        account = Account(server, REGION)
        account.deploy("one", REALTIME, url=f"file://{archive(tmp_path, script)}")
        rescale(account, DesiredInstanceCount=2)
        restarted(server, signal.SIGTERM, 2)
        slow.touch()
        account = Account(server, REGION)
        want(account, DesiredInstanceCount=3)
        described = account.describe("one")
        assert described["EndpointStatus"] == "Updating"
        (summary,) = described["ProductionVariants"]
        assert (summary["CurrentInstanceCount"], summary["DesiredInstanceCount"]) == (2, 3)
        restarted(server, signal.SIGKILL, 3)
