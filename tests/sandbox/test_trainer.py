"""The process around a training script: what it keeps, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.sandbox.trainer import Order, Outcome, Step
from tests.servers import DEADLINE_S, ROOT, alive, until

MIB = 1 << 20
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


class Job:
    """A folder for one job, and its process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.room, self.log = folder, folder / "room", folder / "logs" / "1.log"
        self.process: subprocess.Popen[str] | None = None

    def begin(
        self,
        *scripts: str,
        isolation: str = "full",
        metrics: list[tuple[str, str]] | None = None,
        grace_s: float = 1.0,
        log_bytes: int = MIB,
        parent: int = 0,
    ) -> subprocess.Popen[str]:
        code = self.room / "opt" / "ml" / "code"
        code.mkdir(parents=True)
        (self.room / "tmp").mkdir()
        steps = []
        for number, script in enumerate(scripts):
            (code / f"{number}.py").write_text(script)
            steps.append(Step([sys.executable, f"{number}.py"], "/opt/ml/code"))
        tmp = str(self.room / "tmp")
        variables = {"PATH": os.environ["PATH"], "HOME": tmp, "TMPDIR": tmp, "WHERE": "/opt/ml"}
        order = Order(
            str(self.room), steps, variables | {"PYTHONUNBUFFERED": "1"}, isolation,
            str(self.log), log_bytes, 1_000, metrics or [], grace_s,
        )  # fmt: skip
        order.write(self.folder / "order.json")
        module = ["-P", "-m", "emulator.sandbox.trainer", str(self.folder / "order.json")]
        self.process = subprocess.Popen(
            [sys.executable, *module, str(parent or os.getpid())],
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def run(self, *scripts: str, **more: object) -> Outcome:
        process = self.begin(*scripts, **more)  # type: ignore[arg-type]
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, errors) == (0, "")
        return Outcome.read(self.folder / "outcome.json")

    def lines(self) -> list[str]:
        made: list[str] = []
        for path in (self.log.with_suffix(".old"), self.log):
            if path.exists():
                made += [json.loads(line)[1] for line in path.read_text().splitlines()]
        return made

    def said(self, line: str) -> list[str]:
        return until(lambda: self.lines() if line in self.lines() else None, f"it says {line}")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    if made.process and made.process.poll() is None:
        made.process.send_signal(signal.SIGQUIT)
        made.process.communicate(timeout=DEADLINE_S)


def test_steps_follow_each_other_until_one_fails(job: Job) -> None:
    outcome = job.run("print('one')", "raise SystemExit(7)", "print('three')")
    assert (outcome.step, outcome.code) == (1, 7)
    assert "one" in job.lines()
    assert "three" not in job.lines()
    assert outcome.command == f"{sys.executable} 1.py"


def test_the_error_is_that_of_the_last_traceback(job: Job) -> None:
    script = """
import sys, traceback
try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
raise ValueError("first\\nsecond")
"""
    assert job.run(script).error == "ValueError: first\nsecond"


def test_metrics_are_the_last_values_of_their_lines(job: Job) -> None:
    script = """
import sys
for n in range(5):
    print(f"epoch {n} loss={n / 4}")
print("loss=nan", "accuracy: 0.5", file=sys.stderr)
print("loss=none")
"""
    metrics = [("loss", "loss=(\\S+)"), ("accuracy", "accuracy: ([0-9.]+)"), ("none", "(never)")]
    outcome = job.run(script, metrics=metrics)
    assert {name: value for name, (value, _) in outcome.metrics.items()} == {
        "loss": 1.0,
        "accuracy": 0.5,
    }


def test_a_flood_is_kept_within_bounds_and_said_to_be(job: Job) -> None:
    script = """
import sys
line = "x" * 99 + "\\n"
for _ in range(400):
    sys.stdout.write(line * 5000)  # 200 MB
print("the end is 3", file=sys.stderr)
"""
    outcome = job.run(script, log_bytes=MIB, metrics=[("end", "end is (.*)")])
    kept = sum(path.stat().st_size for path in job.log.parent.iterdir())
    assert kept < 5 * MIB
    assert [line for line in job.lines() if "lines are left out" in line]
    assert outcome.metrics["end"][0] == 3


def test_lines_without_end_and_bytes_that_are_no_text(job: Job) -> None:
    script = """
import os
os.write(1, b"\\xff\\r\\n" + b"y" * 200_000)
"""
    job.run(script)
    lines = job.lines()
    assert "\\xff" in lines
    assert max(map(len, lines)) <= 65_536
    assert sum(line.count("y") for line in lines) == 200_000


def test_it_is_asked_to_end_and_then_killed(job: Job) -> None:
    script = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("not yet"))
print("ready")
time.sleep(600)
time.sleep(600)
"""
    process = job.begin(script, grace_s=0.5)
    job.said("ready")
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    assert "not yet" in job.lines()
    assert Outcome.read(job.folder / "outcome.json").code == 128 + signal.SIGKILL


@LINUX
def test_what_it_leaves_behind_is_ended(job: Job) -> None:
    script = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(write, str(os.getpid()).encode())
    time.sleep(600)
print("left", os.read(read, 100).decode())
"""
    assert job.run(script).code == 0
    (line,) = [line for line in job.lines() if line.startswith("left")]
    pid = int(line.split()[1])
    until(lambda: not alive(pid), f"{pid} is gone")


@LINUX
def test_it_ends_with_the_server(job: Job) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", START, str(job.folder)],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = until(lambda: next((x for x in job.lines() if x.startswith("pid")), None), "a pid")
        pid = int(line.split()[1])
        server.kill()
        until(lambda: not alive(pid), f"{pid} is gone")
    finally:
        server.kill()
        server.communicate()


START = """
import os, sys, time
from pathlib import Path
from tests.sandbox.test_trainer import Job
job = Job(Path(sys.argv[1]))
job.begin("import os, time; print('pid', os.getpid()); time.sleep(600)", grace_s=60)
time.sleep(600)
"""


@LINUX
@pytest.mark.parametrize("isolation", ["full", "files", "off"])
def test_opt_ml_is_there_and_the_rest_as_closed_as_asked(job: Job, isolation: str) -> None:
    outside = job.folder / "outside"
    script = f"""
import multiprocessing, os, socket, tempfile
print("base", os.environ["WHERE"])
open(os.path.join(os.environ["WHERE"], "mine"), "w").write("x")
multiprocessing.Lock()
tempfile.TemporaryFile().close()
try:
    open({str(outside)!r}, "w")
except OSError:
    print("closed")
own = socket.create_server(("127.0.0.1", 0))
socket.create_connection(own.getsockname()).close()
"""
    outcome = job.run(script, isolation=isolation)
    assert outcome.code == 0, job.lines()
    assert ("closed" in job.lines()) == (isolation != "off")
    assert outside.exists() == (isolation == "off")
    assert (job.room / "opt" / "ml" / "mine").read_text() == "x"
    if "base /opt/ml" not in job.lines():  # a kernel that allows no mounts
        assert [line for line in job.lines() if line.startswith("There is no /opt/ml here")]
