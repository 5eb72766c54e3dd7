"""Load by wrk, an HTTP load generator: so many connections, each with one request at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import DEADLINE_S, NotMeasured

SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run: times in milliseconds, `refused` answers with a status of 400 and up,
    `broken` requests that got no answer."""

    answers: int
    per_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def errors(self) -> int:
        return self.refused + self.broken


def version() -> str:
    """Of wrk, as it says; empty if there is none."""
    if not shutil.which("wrk"):
        return ""
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[1:2])


def post(
    url: str,
    bodies: Sequence[Path],
    connections: int,
    seconds: float,
    content_type: str = "application/json",
    authorization: str = "",
) -> Load:
    """Post the bodies in turn to `url` for so many (whole) seconds.

    Raises NotMeasured if there is no wrk, or if it could not reach the server.
    """
    if not shutil.which("wrk"):
        raise NotMeasured("wrk is not there: apt-get install wrk, or brew install wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT)]
    command += ["-H", f"Authorization: {authorization}"] if authorization else []
    command += [url, "--", content_type, *map(str, bodies)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds + DEADLINE_S
    )
    if done.returncode != 0:
        raise NotMeasured(f"wrk could not load {url}: {(done.stderr or done.stdout).strip()}")
    return parse(done.stdout)


def parse(printed: str) -> Load:
    """The line that the script prints, after whatever wrk says itself.

    Raises NotMeasured if there is none, or if it tells of no answer at all.
    """
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    if not lines:
        raise NotMeasured(f"wrk printed no result: {printed.strip()[:200] or 'nothing at all'}")
    found = json.loads(lines[-1])
    if not found["answers"] or not found["duration_us"]:
        raise NotMeasured(f"the server gave wrk no answer: {lines[-1]}")
    return Load(
        found["answers"],
        found["answers"] / (found["duration_us"] / 1e6),
        found["p50_us"] / 1e3,
        found["p99_us"] / 1e3,
        found["refused"],
        found["broken"],
    )
