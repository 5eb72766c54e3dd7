"""People with a client: its environment, told where the server is, and nothing of the developer's.

A person writes into a folder of its own and reaches the server and nothing else; what it tries to
reach beside it is written down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.environments import obtain
from tests.servers import ROOT, Server

HERE = Path(__file__).resolve().parent
REGION, ACCOUNT = "eu-west-3", "123456789012"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/anybody"
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")
TIMEOUT_S = 110


@dataclass(frozen=True)
class Done:
    """What a command did: what it printed, and where else it wanted to connect."""

    stdout: str
    stderr: str
    attempts: list[str]

    @property
    def json(self) -> Any:
        """The last line, which scripts print as JSON; before it some clients print dots."""
        return json.loads(self.stdout.strip().splitlines()[-1])


@dataclass(frozen=True)
class Person:
    """Somebody with a client, a home and a server."""

    python: Path
    home: Path
    server: Server
    exports: Mapping[str, str]  # the variables that lead AWS's clients here

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        surroundings = {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PYTHONPATH": str(HERE / "guard"),
            "LUKEWARM_ATTEMPTS": str(self.home / "attempts"),
        }
        return kept | surroundings | dict(self.exports)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the client's interpreter with these arguments."""
        confined = [sys.executable, "-m", "tests.clients.confined", str(self.server.port)]
        return subprocess.Popen(
            [*confined, str(self.home), str(self.python), *arguments],
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], code: int = 0) -> Done:
        """Wait until it has ended, with this exit code."""
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"not within {TIMEOUT_S} s: {stdout}\n{stderr}") from None
        assert process.returncode == code, f"{process.returncode}: {stdout}\n{stderr}"
        return Done(stdout, stderr, self.attempts())

    def attempts(self) -> list[str]:
        """Where the client wanted to connect, beside the server; the guard has made the file."""
        return (self.home / "attempts").read_text().splitlines()

    def runs(self, script: str, *arguments: str) -> Done:
        """Run one of the scripts to its end."""
        return self.end(self.begin(str(HERE / "scripts" / script), *arguments))

    def calls(self, *arguments: str, code: int = 0) -> Done:
        """Run the AWS CLI to its end."""
        return self.end(self.begin("-m", "awscli", *arguments), code)


def exports(server: Server, home: Path) -> dict[str, str]:
    """What `lukewarm env` prints for somebody with this home."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "emulator.cli", "env", "--json"],
        cwd=home,
        env=kept
        | {"HOME": str(home), "PYTHONPATH": str(ROOT), "EMULATOR_STATE_DIR": str(server.state)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    given: dict[str, str] = json.loads(done.stdout)
    return given


def person(client: str, home: Path, server: Server, given: Mapping[str, str]) -> Person:
    """Somebody with this client and these exports. Raises NotBuilt if it cannot be installed."""
    home.mkdir(parents=True, exist_ok=True)
    return Person(obtain(client), home, server, given)
