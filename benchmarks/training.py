"""A training job against the same script by itself: what the job adds, in turns, and with a log of
hundreds of megabytes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Figure, Running, seconds, server

ROUNDS = 7
SCRIPTS = {
    "that does nothing": "pass",
    "that imports TensorFlow": "import tensorflow",
}
FLOOD = "import sys\nfor _ in range(400): sys.stdout.write(('x' * 79 + '\\n') * 12_500)"
ROLE = "arn:aws:iam::123456789012:role/benchmark"


def figures() -> list[Figure]:
    with server() as running, tempfile.TemporaryDirectory() as folder:
        running.wait("/ping")
        sagemaker = running.boto3("sagemaker")
        found = [
            _overhead(sagemaker, Path(folder), name, script) for name, script in SCRIPTS.items()
        ]
        return [*found, _flood(sagemaker, running, Path(folder))]


def _overhead(sagemaker: Any, folder: Path, name: str, script: str) -> Figure:
    """By how much a job, from the call until it is Completed, takes longer than its script."""
    kind = name.replace(" ", "-")
    code = folder / kind
    code.mkdir()
    (code / "train.py").write_text(script)
    alone, job = [], []
    for number in range(ROUNDS):
        alone.append(seconds(lambda: _alone(code / "train.py")))
        job.append(_job(sagemaker, f"{kind}-{number}", code))
    note = f"medians of {ROUNDS}: {median(job):.2f} s against {median(alone):.2f} s"
    return Figure(
        f"what a training job adds to a script {name}",
        median(job) - median(alone),
        "s",
        3,
        note=note,
    )


def _alone(script: Path) -> None:
    subprocess.run([sys.executable, script], stderr=subprocess.DEVNULL, check=True)


def _flood(sagemaker: Any, running: Running, folder: Path) -> Figure:
    """How far a job that prints 400 MB raises the memory of the server."""
    code = folder / "flood"
    code.mkdir()
    (code / "train.py").write_text(FLOOD)
    before = _resident(running.process.pid)
    taken = _job(sagemaker, "flood", code)
    grown = (_resident(running.process.pid) - before) / (1 << 20)
    return Figure(
        "growth of the server under 400 MB of a job's output", grown, "MB", 20,
        note=f"the job took {taken:.1f} s",
    )  # fmt: skip


def _job(sagemaker: Any, name: str, code: Path) -> float:
    """Seconds from the call to Completed."""
    begin = time.perf_counter()
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": "an-image", "TrainingInputMode": "File"},
        HyperParameters={
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": f'"{code.as_uri()}"',
        },
        OutputDataConfig={"S3OutputPath": (code.parent / "results").as_uri()},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    while (status := _status(sagemaker, name)) == "InProgress":
        time.sleep(0.01)
    assert status == "Completed", status
    return time.perf_counter() - begin


def _status(sagemaker: Any, name: str) -> str:
    found: str = sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
    return found


def _resident(pid: int) -> int:
    """Bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
