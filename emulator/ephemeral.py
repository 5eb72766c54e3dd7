"""A server for a while: on a free port of loopback, with a state of its own, and at its end as soon
as whoever started it is gone. Run as a program, this is that server.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from emulator.caller import Caller
from emulator.config import FILE, PREFIX, read
from emulator.errors import SetupError

READY_S = 240.0
STOPPED_S = 40.0
ENDING_S = 2.0  # from its last connection to its end
POLL_S = 0.02
SHOWN_BYTES = 20_000  # of its log
PATIENCE_S = 120.0  # for an answer of its own REST; moving time may wait for many starts
OWN = ("EMULATOR_STATE_DIR", "EMULATOR_CONFIG")
DEFAULTS = {
    "EMULATOR_CLOCK": "virtual",
    "EMULATOR_COMPILE": "false",  # which would take most of the time of a reset
    "EMULATOR_GRACE_S": "2",
}


class Ephemeral:
    """A server in a folder of its own, which has to be there and empty; `refresh` starts it."""

    caller: Caller

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "server.log"
        self.log.touch()
        self._state = folder / "state"
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: Mapping[str, str] = {}
        self._refused: tuple[Mapping[str, str], SetupError] | None = None
        self._begun = 0  # where in the log the present use begins

    def refresh(self, settings: Mapping[str, str]) -> None:
        """Have it as it is at a first start, but for the time, which only goes on: the same process
        where that can be, with the same settings.

        `settings` are EMULATOR_ variables; the process's own ones, and a settings file where it
        works, do not count. Raises SetupError, with the server's log, if it does not start.
        """
        if self._refused and self._refused[0] == settings:
            raise self._refused[1]
        self._begun = self.log.stat().st_size
        if self._process and self._settings == settings:
            try:
                self.caller.post("/_emulator/reset")
                self._await_ready(self._process)
                return
            except SetupError:
                self._begun = self.log.stat().st_size
        self.stop()
        try:
            self._start(dict(settings))
        except SetupError as error:
            self.stop()
            self._refused = dict(settings), error
            raise

    def stop(self) -> None:
        """End it, and everything that it started. Safe to call again."""
        process, self._process = self._process, None
        if process is None:
            return
        if hasattr(self, "caller"):
            self.caller.close()
        assert process.stdin
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOPPED_S)
        except subprocess.TimeoutExpired:
            process.kill()  # what it started dies with it
            process.wait()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        """What it has logged since it was refreshed, or the last 20 kB of that."""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._begun, end - SHOWN_BYTES))
            return log.read().decode("utf-8", "replace")

    def forget_state(self) -> None:
        """Remove what it has kept; the log stays."""
        shutil.rmtree(self._state, ignore_errors=True)

    def explain(self, error: SetupError) -> SetupError:
        """An error that says more if the server has ended."""
        if self._process is None or self.caller.answers("/_emulator/clock"):
            return error
        try:
            code = self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            return error
        return SetupError(f"The server has ended with code {code}. Its log:\n{self.said()}")

    def _start(self, settings: Mapping[str, str]) -> None:
        _check(settings)
        self._settings = settings
        self.forget_state()
        (self.folder / FILE).touch()
        environment = self._environment()
        config = read(environment, self.folder)  # raises before anything runs
        with self.log.open("ab") as out:
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "emulator.ephemeral"],
                cwd=self.folder,  # where no module of the user's takes the place of one of ours
                env=environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C is for the tests, which end the server themselves
            )
        self.caller = Caller(self._announced(process), config, PATIENCE_S)
        self._await_ready(process)

    def _environment(self) -> dict[str, str]:
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(PREFIX)}
        own = {"EMULATOR_STATE_DIR": str(self._state), "EMULATOR_CONFIG": str(self.folder / FILE)}
        path = os.pathsep.join(import_path(inherited.get("PYTHONPATH", "")))
        found = {"PYTHONPATH": path} if path else {}
        return {**inherited, **DEFAULTS, **self._settings, **own, **found}

    def _announced(self, process: subprocess.Popen[bytes]) -> str:
        """The address, which the server writes before it can answer."""
        place = self._state / "url"
        until = time.monotonic() + READY_S
        while process.poll() is None and time.monotonic() < until:
            with suppress(FileNotFoundError):
                if url := place.read_text():
                    return url
            time.sleep(POLL_S)
        raise self._failed(process, "has not started")

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + READY_S
        while process.poll() is None and time.monotonic() < until:
            if self.caller.answers("/ping"):
                return
            time.sleep(POLL_S)
        raise self._failed(process, "is not ready to answer")

    def _failed(self, process: subprocess.Popen[bytes], what: str) -> SetupError:
        code = process.poll()
        why = f"it ended with code {code}" if code is not None else f"not within {READY_S:g} s"
        return SetupError(
            f"Lukewarm's server {what} ({why}); its log, {self.log}, says:\n{self.said()}"
        )


def _check(settings: Mapping[str, str]) -> None:
    """Raises SetupError for what is no setting, and for those that are not the user's here."""
    for name, value in settings.items():
        if name in OWN:
            raise SetupError(
                f"{name} cannot be set for tests: their server is reset again and again, so it has "
                "a state of its own; leave it out."
            )
        if not name.startswith(PREFIX) or not isinstance(value, str):
            raise SetupError(
                f"The setting {name!r}: {value!r} is not understood: it has the form "
                '"EMULATOR_REGION": "us-east-1", a variable of docs/settings.md and a text.'
            )


def import_path(given: str) -> list[str]:
    """PYTHONPATH for another working directory, and with this package on it."""
    root = str(Path(__file__).resolve().parent.parent)
    path = [str(Path(one).absolute()) for one in given.split(os.pathsep) if one]
    installed = root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return path if installed or root in path else [root, *path]


def main() -> int:
    """The server: until its standard input ends."""
    import uvicorn  # not for those who start it

    # Nobody else can take a port that is bound; the application is told before it listens.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config("emulator.app:app", "127.0.0.1", port))

        def watch() -> None:
            sys.stdin.buffer.read()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
        server.run(sockets=[listener])
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
