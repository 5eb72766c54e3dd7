"""The plugin for pytest, in pytests of its own: run as people run theirs, in other processes."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

from emulator.ephemeral import import_path
from tests.accounts import BREAKS
from tests.servers import KERAS, LEFT_S, LIGHT, ROOT, alive, archive, descendants, until

PLUGIN = "emulator.pytest_plugin"
INSTALLED = any(one.value == PLUGIN for one in entry_points(group="pytest11"))
LONG_S = 240


@dataclass(frozen=True)
class Run:
    """What became of a run: its output, and each test's failure or error, empty if it passed."""

    code: int
    output: str
    said: dict[str, str]


def run(folder: Path, *words: str, tests: Path | None = None, cwd: Path | None = None) -> Run:
    """Run the tests below `folder`, every warning an error."""
    report = folder / "report.xml"
    plugin = [] if INSTALLED else ["-p", PLUGIN]  # loading it twice is an error of pytest's
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:schemathesis", "-W", "error"]
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "EMULATOR_"))}
    done = subprocess.run(
        [*command, f"--junitxml={report}", f"--basetemp={folder / 'temp'}", *words,
         str(tests or folder)],
        cwd=cwd or folder,
        env=kept | {"PYTHONPATH": os.pathsep.join(import_path(kept.get("PYTHONPATH", "")))},
        capture_output=True, text=True, timeout=LONG_S,
    )  # fmt: skip
    cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
    said = {
        case.attrib["name"]: "".join(
            f"{one.attrib['message']}\n{one.text}" for one in case if "message" in one.attrib
        )
        for case in cases
    }
    return Run(done.returncode, done.stdout + done.stderr, said)


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def test_the_example_passes_as_its_readers_run_it(tmp_path: Path) -> None:
    done = run(tmp_path, tests=Path("examples/pytest"), cwd=ROOT)
    assert done.code == 0, done.output
    assert len(done.said) == 7


def blocks(name: str) -> list[str]:
    """The tests that a document shows."""
    found = re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(), re.M | re.S)
    return [text for text in found if "def test_" in text]


def test_what_the_documents_show_is_so(tmp_path: Path) -> None:
    """Some of it with settings of its own, so that the server is started anew."""
    shown = blocks("README.md") + blocks("docs/testing.md")
    assert len(shown) == 5
    for number, text in enumerate(shown):
        (tmp_path / f"test_{number}.py").write_text(text)
    done = run(tmp_path, f"--rootdir={tmp_path}", cwd=ROOT)
    (failed,) = (name for name, said in done.said.items() if said)
    assert failed == "test_two_hours_of_an_instance", done.output
    message = done.said[failed].partition("\nlukewarm = ")[0]
    assert f"```text\n{message}\n```" in (ROOT / "docs/testing.md").read_text()


USES = f"""
    import os, signal, pytest
    from datetime import timedelta
    from pathlib import Path
    from emulator.errors import SetupError

    HERE = Path(__file__).parent
    REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"
    BODY = {{"instances": [[[0] * 28] * 28]}}

    @pytest.fixture(scope="session")
    def lukewarm_settings():
        return {{"EMULATOR_COLD_START": "2", "EMULATOR_REGION": "us-east-1"}} | {LIGHT}

    def test_makes_things(lukewarm, lukewarm_boto3):
        own = lukewarm.deploy({str(KERAS)!r}, memory_mb=2048, concurrency=3)
        assert own in lukewarm.endpoints
        assert lukewarm.invoke(own, BODY).json()["predictions"]
        s3 = lukewarm_boto3("s3")
        s3.create_bucket(Bucket="things")
        lukewarm.faults(SERVERLESS, "ServiceUnavailable", times=9)
        assert lukewarm.invoke(SERVERLESS, BODY).error == "ServiceUnavailable"
        lukewarm.faults(SERVERLESS, None)
        assert lukewarm.invoke(SERVERLESS, BODY).status == 200
        lukewarm.delete(own)
        assert own not in lukewarm.endpoints
        assert lukewarm.bill(own).invocations == 1
        before = lukewarm.now
        assert lukewarm.advance(1.5) - before == timedelta(seconds=1.5)

    def test_finds_nothing_of_them(lukewarm, lukewarm_boto3):
        assert sorted(lukewarm.endpoints) == [REALTIME, SERVERLESS]
        assert lukewarm.bill().total == 0
        assert lukewarm.calls() == ()
        assert lukewarm_boto3("s3").list_buckets()["Buckets"] == []

    def test_a_bill_that_is_too_high(lukewarm):
        lukewarm.advance(7200)
        lukewarm.assert_costs(REALTIME, at_least="0.1", at_most="0.2")
        lukewarm.assert_costs(REALTIME, at_most="0.1")

    def test_a_latency_that_is_too_high(lukewarm):
        lukewarm.evict(SERVERLESS)
        for _ in range(4):
            lukewarm.invoke(SERVERLESS, BODY)
        lukewarm.invoke(SERVERLESS, b"no JSON")
        lukewarm.assert_latency(SERVERLESS, warm=True, p100_ms=1999)
        lukewarm.assert_latency(SERVERLESS, p75_ms=1999, p95_ms=100)

    def test_real_time(lukewarm):
        own = lukewarm.deploy({str(KERAS)!r}, "own", instance="ml.m5.large", count=2)
        lukewarm.advance(3600)
        line, = lukewarm.bill(own).lines
        assert (line.usage_type, line.quantity, line.unit) == ("USE1-Host:ml.m5.large", 2, "Hrs")

    @pytest.mark.parametrize(("ask", "said"), [
        (lambda one: one.evict("nobody"), "Could not find endpoint"),
        (lambda one: one.bill("nobody"), "no endpoint nobody on the bill: it has fashion-mnist-re"),
        (lambda one: one.deploy("nothing.keras"), "There is nothing at nothing.keras."),
        (lambda one: one.deploy({str(KERAS)!r}, SERVERLESS), "fashion-mnist-serverless already"),
        (lambda one: one.deploy({str(KERAS)!r}, memory_mb=1), "1024"),
        (lambda one: one.deploy({str(KERAS)!r}, count=1), "name a type with instance"),
        (lambda one: one.deploy({str(KERAS)!r}, count=1, instance="ml.m5.large", memory_mb=1024),
         "instance='ml.m5.large' makes a real-time endpoint, which has no memory_mb"),
        (lambda one: one.deploy(HERE / "empty"), "holds no model"),
        (lambda one: one.deploy(HERE / "model.tar.gz"), "model has failed: "),
        (lambda one: one.faults(SERVERLESS, "Nonsense"), "Nonsense"),
    ], ids=lambda value: "")
    def test_refusals(lukewarm, ask, said):
        with pytest.raises(SetupError) as caught:
            ask(lukewarm)
        assert said in str(caught.value)

    def test_clients_of_the_code_s_own(lukewarm_env, monkeypatch):
        import boto3
        assert boto3.client("sts").get_caller_identity()["Account"] == "123456789012"
        listed = boto3.client("sagemaker").list_endpoints()["Endpoints"]
        assert {{one["EndpointName"] for one in listed}} == {{REALTIME, SERVERLESS}}

    def test_of_which_nothing_is_left(lukewarm):
        assert "AWS_ENDPOINT_URL" not in os.environ

    def test_kills_the_server(lukewarm):
        lock, = Path(os.environ["TEMP_OF_RUN"]).glob("lukewarm0/state/lock")
        os.kill(int(lock.read_text()), signal.SIGKILL)
        lukewarm.invoke(SERVERLESS, BODY)

    def test_has_another_one(lukewarm):
        assert lukewarm.invoke(SERVERLESS, BODY).status == 200
"""


@pytest.fixture(scope="module")
def uses(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run, for the tests that look at what became of its tests."""
    folder = written(tmp_path_factory.mktemp("uses"), test_uses=USES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMP_OF_RUN", str(folder / "temp"))
        (folder / "empty").mkdir()
        archive(folder, BREAKS)
        done = run(folder)
    assert len(done.said) == 19, done.output
    assert not list((folder / "temp").glob("lukewarm0/state"))  # a run that is over leaves its log
    assert list((folder / "temp").glob("lukewarm0/server.log"))
    return done


def test_tests_do_what_they_want_with_a_server_and_the_next_ones_do_not_notice(uses: Run) -> None:
    failed = {name for name, said in uses.said.items() if said}
    assert failed == {
        "test_a_bill_that_is_too_high", "test_a_latency_that_is_too_high", "test_kills_the_server",
    }, uses.output  # fmt: skip


def test_a_failed_bill_shows_its_sum(uses: Run) -> None:
    assert (
        textwrap.dedent(
            """\
        AssertionError: fashion-mnist-realtime cost 0.112 USD, which is 0.012 more than 0.1.
          USE1-Host:ml.t2.medium  2 Hrs x 0.056 = 0.112
          total                   0.112 USD
          0 calls, 0 cold starts, 0 throttles, 0 errors
        """
        ).strip()
        in uses.said["test_a_bill_that_is_too_high"]
    )


def test_a_failure_shows_the_test_s_line_and_the_server_s_log(uses: Run) -> None:
    said = uses.said["test_a_bill_that_is_too_high"]
    assert re.search(r'^>\s+lukewarm.assert_costs\(REALTIME, at_most="0.1"\)$', said, re.M)
    assert "testbed.py" not in said
    shown = uses.output.partition("_ test_a_bill_that_is_too_high _")[2].partition("\n____")[0]
    assert "Lukewarm's log" in shown
    assert shown.count("fashion-mnist-serverless is InService.") == 1  # of this test alone


def test_a_failed_latency_shows_the_slowest(uses: Run) -> None:
    message = uses.said["test_a_latency_that_is_too_high"].partition("\nlukewarm = ")[0]
    found = re.sub(r"\b(?!2000)\d+\.\d\b", "N", message).splitlines()
    assert found[:3] == [
        "AssertionError: fashion-mnist-serverless: p95 is N ms, over 100 ms. It is what 95 % of "
        "4 calls do not exceed: number 4 of 4 in order.",
        "Latency is ModelLatency + OverheadLatency, in ms; 1 call that failed is left out. The "
        "slowest:",
        "  N = cold: 2000.0 provisioning + N runtime + N load + N model + N other overhead",
    ]
    assert found[3:] == ["  N = warm: N model + N overhead"] * 3


def test_a_server_that_is_gone_says_so(uses: Run) -> None:
    assert (
        "SetupError: The server has ended with code -9. Its log:"
        in (uses.said["test_kills_the_server"])
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"EMULATOR_REGION": "atlantis"}, "atlantis"),
        ({"EMULATOR_SEED": "x"}, "The setting EMULATOR_SEED is 'x'"),
        (
            {"EMULATOR_STATE_DIR": "/tmp"},
            "EMULATOR_STATE_DIR cannot be set for tests: ",
        ),
        ({"seed": "1"}, "The setting 'seed': '1' is not understood: it has the form"),
        ({"EMULATOR_SEED": 1}, "The setting 'EMULATOR_SEED': 1 is not understood"),
    ],
    ids=["found by the server", "value", "not here", "name", "type"],
)
def test_a_server_that_does_not_start_is_one_clear_error(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    text = f"""
        import pytest
        @pytest.fixture(scope="session")
        def lukewarm_settings():
            return {settings!r}
        def test_one(lukewarm): ...
    """
    done = run(written(tmp_path, test_start=text))
    assert done.code == 1
    assert said in done.said["test_one"]
    assert "Traceback" not in done.output
    assert "emulator/" not in done.output


def test_workers_of_xdist_have_servers_of_their_own_and_modules_may_share_endpoints(
    tmp_path: Path,
) -> None:
    text = f"""
        import pytest
        from pathlib import Path
        @pytest.fixture(scope="session")
        def lukewarm_settings():
            return {LIGHT}
        def test_makes(lukewarm):
            lukewarm.deploy({str(KERAS)!r}, "own", variables={{"LUKEWARM_RUNTIME": "litert"}})
            Path(__file__).with_suffix(".url").write_text(lukewarm.url)
        def test_has(lukewarm, lukewarm_boto3):
            sagemaker = lukewarm_boto3("sagemaker")
            assert sagemaker.describe_endpoint(EndpointName="own")["EndpointStatus"] == "InService"
            assert lukewarm.url == Path(__file__).with_suffix(".url").read_text()
    """
    written(tmp_path, test_one=text, test_two=text)
    words = ("-n", "2", "--dist", "loadfile", "--lukewarm-keep", "-o", "lukewarm_scope=module")
    done = run(tmp_path, *words)
    assert done.code == 0, done.output
    assert len({one.read_text() for one in tmp_path.glob("*.url")}) == 2
    assert len(list((tmp_path / "temp").glob("*/lukewarm0/state/ledger.sqlite"))) == 2


def test_a_scope_that_is_none(tmp_path: Path) -> None:
    written(tmp_path, test_one="def test_one(lukewarm): ...")
    done = run(tmp_path, "-o", "lukewarm_scope=day")
    assert done.output.strip() == (
        "ERROR: The setting lukewarm_scope is 'day'; it is one of function, class, module, "
        "package, session."
    )


def test_who_does_not_use_it_does_not_pay_for_it() -> None:
    code = f"import sys, pytest; old = set(sys.modules); import {PLUGIN}; "
    code += "print(sorted(set(sys.modules) - old))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == ["emulator", PLUGIN]


def test_the_package_registers_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["pytest11"] == {"lukewarm": PLUGIN}
    assert hasattr(import_module(PLUGIN), "pytest_addoption")


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    environment = os.environ | {"EMULATOR_STATE_DIR": str(tmp_path)} | LIGHT
    with subprocess.Popen(
        [sys.executable, "-m", "emulator.ephemeral"], cwd=ROOT, env=environment,
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as server:  # fmt: skip
        try:
            place = tmp_path / "url"
            url = until(lambda: place.exists() and place.read_text(), "it says where it is")
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", str(url))
            pids = descendants(server.pid)
            assert server.stdin
            server.stdin.close()  # as it is when the process that has the other end is killed
            assert server.wait(30) == 0
        finally:
            server.kill()
    until(lambda: not any(map(alive, pids)), f"no process of {pids} is left", LEFT_S)
