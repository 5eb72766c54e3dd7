"""Runs the walkthrough from top to bottom: python -m examples.run [--in-place].

It installs the SageMaker SDK and Jupyter into an environment of their own, once; starts a server on
a free port, with a new state directory and the latency profile of the comparison; leads the
notebook there as `lukewarm env` would; and writes the executed notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from model import data
from tests.clients.environments import NotBuilt, obtain

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "walkthrough.ipynb"
PROFILE = "paris-2022"
STARTED_S = 120.0
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "EPOCHS", "CALLS", "COLD_CALLS", "LOGS")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.run", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/walkthrough.ipynb"))
    parser.add_argument("--in-place", action="store_true", help="replace the stored outputs")
    asked = parser.parse_args()
    target = NOTEBOOK if asked.in_place else asked.output
    begun = time.monotonic()
    try:
        images = data.find() or data.downloaded(os.environ, data.DEBIAN, data.keras_download)
        python = obtain("walkthrough")
    except (data.DataError, NotBuilt) as error:
        print(error, file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="lukewarm-walkthrough-") as folder,
        _server(Path(folder)) as variables,
    ):
        own = {name: os.environ[name] for name in KEPT if name in os.environ}
        own |= {"HOME": folder, "FASHION_MNIST_DIR": str(images)}
        command = [str(python), str(HERE / "execute.py"), str(NOTEBOOK), str(target)]
        code = subprocess.run(command, env=own | variables, check=False).returncode
    if code == 0:
        print(f"{target} took {time.monotonic() - begun:.0f} s.")
    return code


@contextmanager
def _server(folder: Path) -> Iterator[dict[str, str]]:
    """A server, and the variables that lead clients to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith("EMULATOR")
    }
    settings |= {"EMULATOR_STATE_DIR": str(folder / "state"), "EMULATOR_PROFILE": PROFILE}
    lukewarm = [sys.executable, "-m", "emulator.cli"]
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*lukewarm, "serve", "--port", str(port)], env=settings, stdout=output, stderr=output
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/ping", log)
        told = subprocess.run(
            [*lukewarm, "env", "--json"],
            env=settings | {"HOME": str(folder)}, check=True, capture_output=True,
        ).stdout  # fmt: skip
        yield json.loads(told)
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + STARTED_S
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"The server does not answer. Its log: {log.read_text()}")


if __name__ == "__main__":
    sys.exit(main())
