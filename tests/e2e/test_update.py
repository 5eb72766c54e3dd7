"""UpdateEndpoint: another configuration takes over beside what serves, and no caller notices."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.accounts import BREAKS, REALTIME, REGION, SERVERLESS, Account, refusal
from tests.aws import scope_of
from tests.servers import ARTIFACTS, JSON, LIGHT, SNEAKER, alive, archive, serving, until

ECHO = """
import json, time
def handler(data, context):
    data.read()
    time.sleep(0.02)
    return json.dumps("{word}"), "application/json"
"""


def words(tmp_path: Path, *said: str) -> dict[str, str]:
    """An archive for each word, whose model answers with it."""
    urls = {}
    for word in said:
        (tmp_path / word).mkdir()
        urls[word] = f"file://{archive(tmp_path / word, ECHO.replace('{word}', word))}"
    return urls


class Callers:
    """What callers are answered, one after the other, while they keep on asking."""

    def __init__(self, account: Account, endpoint: str, callers: int) -> None:
        self.answers: list[tuple[int, str]] = []
        self._account, self._endpoint, self._over = account, endpoint, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def _call(self) -> None:
        headers = {**JSON, **scope_of("sagemaker", self._account.account, self._account.region)}
        with httpx.Client(base_url=self._account.server.url, timeout=60) as client:
            while not self._over.is_set():
                path = f"/endpoints/{self._endpoint}/invocations"
                answer = client.post(path, content=SNEAKER, headers=headers)
                self.answers.append((answer.status_code, answer.text))

    @contextmanager
    def calling(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            until(lambda: len(self.answers) > 20, "callers are answered")
            yield
            seen = len(self.answers)
            until(lambda: len(self.answers) > seen + 20, "callers are answered afterwards")
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(60)

    def counted(self) -> Counter[tuple[int, str]]:
        return Counter(self.answers)


@pytest.mark.parametrize("variant", [REALTIME, SERVERLESS], ids=["realtime", "serverless"])
def test_not_one_request_fails_while_another_model_takes_over(
    account: Account, tmp_path: Path, variant: dict[str, object]
) -> None:
    urls = words(tmp_path, "old", "new")
    account.deploy("one", variant, url=urls["old"])
    account.model("two", urls["new"])
    account.config("two", variant)
    if variant is SERVERLESS:
        account.sagemaker.delete_endpoint_config(EndpointConfigName="two")
        account.config("two", {"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 4}})
    callers = Callers(account, "one", 2)
    with callers.calling():
        account.sagemaker.update_endpoint(EndpointName="one", EndpointConfigName="two")
        during = account.describe("one")
        assert during["EndpointStatus"] == "Updating"
        assert during["EndpointConfigName"] == "one"
        assert during["PendingDeploymentSummary"]["EndpointConfigName"] == "two"
        after = account.settled("one")
        assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "two")
        assert "FailureReason" not in after
    assert set(callers.counted()) == {(200, '"old"'), (200, '"new"')}
    said = [text for _, text in callers.answers]
    assert said[0] == '"old"'
    assert said[-1] == '"new"'
    shown = account.server.client.get("/_emulator/endpoints").json()["endpoints"]
    (own,) = [one for one in shown if one["account"] == account.account]
    until(
        lambda: len({e["pid"] for e in _environments(account)}) <= 2,
        "the old fleet's environments are gone",
    )
    assert own["variants"][0]["source"] == urls["new"]


def _environments(account: Account) -> list[dict[str, object]]:
    shown = account.server.client.get("/_emulator/endpoints").json()["endpoints"]
    return [e for one in shown if one["account"] == account.account for e in one["environments"]]


@pytest.mark.parametrize("how", ["breaks", "missing"])
def test_what_cannot_start_is_rolled_back_and_nobody_notices(
    account: Account, tmp_path: Path, how: str
) -> None:
    urls = words(tmp_path, "old")
    account.deploy("one", REALTIME, url=urls["old"])
    url = f"file://{archive(tmp_path, BREAKS)}" if how == "breaks" else "file:///nowhere.tar.gz"
    account.model("two", url)
    account.config("two", REALTIME)
    callers = Callers(account, "one", 2)
    with callers.calling():
        account.sagemaker.update_endpoint(EndpointName="one", EndpointConfigName="two")
        back = account.settled("one")
    assert (back["EndpointStatus"], back["EndpointConfigName"]) == ("InService", "one")
    assert ("no use" if how == "breaks" else "There is no model") in back["FailureReason"]
    assert "PendingDeploymentSummary" not in back
    assert set(callers.counted()) == {(200, '"old"')}
    # The next update that succeeds has nothing to complain about.
    account.config("three", {**REALTIME, "InstanceType": "ml.c5.large"}, model="one")
    account.sagemaker.update_endpoint(EndpointName="one", EndpointConfigName="three")
    assert "FailureReason" not in account.settled("one")


def test_realtime_does_not_become_serverless_but_the_other_way_works(account: Account) -> None:
    account.deploy("hours", REALTIME)
    account.deploy("calls", SERVERLESS)
    refused = refusal(
        lambda: account.sagemaker.update_endpoint(EndpointName="hours", EndpointConfigName="calls")
    )
    assert refused[0] == "ValidationException"
    assert "a real-time endpoint cannot become a serverless one" in refused[1]
    account.sagemaker.update_endpoint(EndpointName="calls", EndpointConfigName="hours")
    assert account.settled("calls")["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert len(account.invoke("calls")[0]) == 10


def test_the_bill_follows_the_fleet_that_serves(account: Account) -> None:
    """One fleet is billed, whatever runs beside it; nothing is billed twice and nothing after."""
    server = account.server
    account.deploy("billed", REALTIME)
    server.advance(3600)
    account.config("more", {**REALTIME, "InstanceType": "ml.c5.large"}, model="billed")
    account.config("again", REALTIME, model="billed")
    for config in ("more", "again"):
        account.sagemaker.update_endpoint(EndpointName="billed", EndpointConfigName=config)
        assert account.settled("billed")["EndpointConfigName"] == config
        server.advance(3600)
    account.delete("billed")
    server.advance(3600)
    hours = {
        line["usage_type"].partition(":")[2]: float(line["quantity"])
        for one in server.client.get("/billing").json()["endpoints"]
        if one["name"] == "billed" and one["account"] == account.account
        for line in one["lines"]
        if line["unit"] == "Hrs"
    }
    assert hours == {
        "ml.m5.large": pytest.approx(2, abs=1e-3),
        "ml.c5.large": pytest.approx(1, abs=1e-3),
    }


def test_variant_properties_are_retained_if_that_is_asked_for(account: Account) -> None:
    first = {**REALTIME, "InitialVariantWeight": 5.0, "InitialInstanceCount": 2}
    account.deploy("kept", first)
    account.config("next", {**REALTIME, "InitialVariantWeight": 1.0}, model="kept")
    account.sagemaker.update_endpoint(
        EndpointName="kept",
        EndpointConfigName="next",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    (variant,) = account.settled("kept")["ProductionVariants"]
    assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (1.0, 2)
    account.sagemaker.update_endpoint(EndpointName="kept", EndpointConfigName="next")
    (variant,) = account.settled("kept")["ProductionVariants"]
    assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (1.0, 1)


def test_an_update_counts_against_the_quotas(account: Account) -> None:
    account.deploy("small", REALTIME)
    account.config("large", {**REALTIME, "InitialInstanceCount": 21}, model="small")
    refused = refusal(
        lambda: account.sagemaker.update_endpoint(EndpointName="small", EndpointConfigName="large")
    )
    assert refused[0] == "ResourceLimitExceeded"
    assert account.describe("small")["EndpointStatus"] == "InService"


def test_a_slow_answer_of_the_old_fleet_is_waited_for(account: Account, tmp_path: Path) -> None:
    slow = ECHO.replace("{word}", "slow").replace("0.02", "4")
    asking, answers = _overtaken(account, tmp_path, f"file://{archive(tmp_path, slow)}")
    assert _raw(account, "one") == (200, '"new"')
    asking.join(60)
    assert answers == [(200, '"slow"')]


READS = """
import json, os, time
def handler(data, context):
    data.read()
    time.sleep(3)
    with open(os.path.join(os.path.dirname(__file__), "word.txt")) as file:
        return json.dumps(file.read()), "application/json"
"""


def _reading(folder: Path) -> str:
    """A model whose answer takes three seconds and then needs a file of its archive."""
    model = folder / "reading"
    shutil.copytree(ARTIFACTS / "fashion-mnist", model)
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text(READS)
    (model / "code" / "word.txt").write_text("old")
    return f"file://{model}"


@pytest.fixture
def leaving(account: Account, tmp_path: Path) -> Iterator[tuple[threading.Thread, list[object]]]:
    asking, answers = _overtaken(account, tmp_path, _reading(tmp_path))
    yield asking, answers
    asking.join(60)


def test_the_model_of_an_old_fleet_stays_until_it_has_answered(
    account: Account, leaving: tuple[threading.Thread, list[object]]
) -> None:
    account.config("three", SERVERLESS, model="two")
    account.endpoint("three")
    account.settled("three")
    account.delete("three")  # which removes the copies of models that nothing runs
    asking, answers = leaving
    asking.join(60)
    assert answers == [(200, '"old"')]


def test_an_endpoint_deleted_while_its_old_fleet_answers_leaves_no_process(
    account: Account, leaving: tuple[threading.Thread, list[object]]
) -> None:
    pids = [int(str(one["pid"])) for one in _environments(account)]
    assert len(pids) == 2
    account.delete("one")
    until(lambda: not any(map(alive, pids)), "both fleets are gone")
    leaving[0].join(60)
    assert leaving[1][0][0] == 503  # type: ignore[index]


def test_environments_of_both_fleets_are_counted_until_they_end(
    account: Account, leaving: tuple[threading.Thread, list[object]]
) -> None:
    assert _counted(account) == len(_environments(account)) == 2
    leaving[0].join(60)
    until(lambda: _counted(account) == 1, "the old fleet is counted off")
    account.delete("one")
    until(lambda: _counted(account) == 0, "nothing is counted any more")


def _counted(account: Account) -> int:
    """How many environments of the endpoint are alive, as the ledger has it."""
    path = account.server.state / "ledger.sqlite"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as ledger:
        (found,) = ledger.execute(
            "SELECT IFNULL(SUM(units), 0) FROM meters"
            " WHERE open AND kind = 'environments' AND endpoint = 'one' AND account = ?",
            (account.account,),
        ).fetchone()
    return int(found)


def test_tags_that_come_while_a_model_is_copied_or_loaded_stay(
    account: Account, tmp_path: Path
) -> None:
    slow = archive(tmp_path, "import time\ntime.sleep(1)\n" + ECHO.replace("{word}", "slow"))
    account.model("one", f"file://{slow}")
    account.config("one", SERVERLESS)
    account.endpoint("one")
    arn, tags = account.arn("endpoint", "one"), [{"Key": "k", "Value": "v"}]
    account.sagemaker.add_tags(ResourceArn=arn, Tags=tags)
    account.settled("one")
    assert account.sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
    account.config("two", SERVERLESS, model="one")
    account.sagemaker.update_endpoint(EndpointName="one", EndpointConfigName="two")
    account.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["k"])
    account.settled("one")
    assert account.sagemaker.list_tags(ResourceArn=arn)["Tags"] == []


def _overtaken(account: Account, folder: Path, url: str) -> tuple[threading.Thread, list[object]]:
    """The endpoint `one`, in service with another model, while its old fleet of the model at `url`
    is at an answer: who asks for it, and where the answer comes."""
    account.deploy("one", SERVERLESS, url=url)
    account.model("two", words(folder, "new")["new"])
    account.config("two", SERVERLESS)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(_raw(account, "one")))
    asking.start()
    until(lambda: any(e["state"] == "busy" for e in _environments(account)), "it is being asked")
    account.sagemaker.update_endpoint(EndpointName="one", EndpointConfigName="two")
    assert account.settled("one")["EndpointConfigName"] == "two"
    assert not answers
    return asking, answers


def _raw(account: Account, name: str) -> tuple[int, str]:
    headers = {**JSON, **scope_of("sagemaker", account.account, account.region)}
    path = f"/endpoints/{name}/invocations"
    answer = account.server.client.post(path, content=SNEAKER, headers=headers)
    return answer.status_code, answer.text


def test_a_rollback_that_a_kill_cut_short_ends_after_the_restart(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        account = Account(server, REGION)
        broken = archive(tmp_path, "import time\ntime.sleep(1)\n" + BREAKS)
        account.deploy("one", SERVERLESS)
        account.model("two", f"file://{broken}")
        account.config("two", SERVERLESS)
        account.sagemaker.update_endpoint(EndpointName="one", EndpointConfigName="two")
        server.stop(signal.SIGKILL)
        server.start()
        account = Account(server, REGION)
        back = account.settled("one")
        assert (back["EndpointStatus"], back["EndpointConfigName"]) == ("InService", "one")
        assert "no use" in back["FailureReason"]
        assert len(account.invoke("one")[0]) == 10


def test_a_model_that_is_not_there_at_a_restart_does_not_fail_an_endpoint(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        account = Account(server, REGION)
        account.deploy("one", SERVERLESS, url=words(tmp_path, "old")["old"])
        server.stop()
        models = server.state / "models"
        shutil.move(models, tmp_path / "aside")
        shutil.move(tmp_path / "old", tmp_path / "moved")
        server.start()
        account = Account(server, REGION)
        assert account.describe("one")["EndpointStatus"] == "InService"
        assert refusal(lambda: account.invoke("one"))[0] == "ModelNotReadyException"
        server.stop()
        shutil.move(tmp_path / "moved", tmp_path / "old")
        server.start()
        account = Account(server, REGION)
        assert _raw(account, "one") == (200, '"old"')
