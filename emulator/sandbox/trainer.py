"""A training job from outside its script: runs it in a room of its own, keeps what it prints, and
leaves nothing of it running.

`python -m emulator.sandbox.trainer ORDER PID` carries out the steps of an order (`Order`, as JSON)
for the server PID, one after the other, until one fails, and writes an `Outcome` beside the order.
SIGTERM asks the script to end and ends it after a while; SIGQUIT, also when the server dies, ends
it at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from emulator.sandbox import kernel
from emulator.sandbox.isolation import Enclosure
from emulator.sandbox.processes import ending
from emulator.sandbox.transcript import Transcript
from emulator.sandbox.worker import die_with

BASE = "/opt/ml"  # where AWS's containers have it
MOUNTED = Path("/opt")
CHUNK = 1 << 20
DRAIN_S = 2.0  # for output of what the script has left behind
SWEEP_S = 5.0  # for ending it


@dataclass(frozen=True, slots=True)
class Step:
    """One command, as in AWS's container: paths below /opt/ml."""

    command: list[str]
    cwd: str


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done. `room` holds `opt/ml` and `tmp`; the steps may write there only."""

    room: str
    steps: list[Step]
    variables: dict[str, str]
    isolation: str
    log: str  # the transcript's file
    log_bytes: int  # of it; then it begins anew and the one before is kept
    began_ms: int  # the time that the transcript starts at
    metrics: list[tuple[str, str]]  # names and regular expressions
    grace_s: float  # from SIGTERM to SIGKILL

    @classmethod
    def read(cls, path: Path) -> Order:
        given = json.loads(path.read_bytes())
        return cls(**{**given, "steps": [Step(**step) for step in given["steps"]]})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `step` is the last one that ran and `code` how that ended, as a shell has it:
    128 and more for a signal."""

    step: int
    code: int
    error: str  # what it said last on stderr
    command: str
    metrics: dict[str, tuple[float, int]]

    @classmethod
    def read(cls, path: Path) -> Outcome:
        return cls(**json.loads(path.read_bytes()))


def main(arguments: list[str]) -> None:
    path, parent = Path(arguments[0]), int(arguments[1])
    ear, mouth = socket.socketpair()
    for end in (ear, mouth):
        end.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno())
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent, signal.SIGQUIT)
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    order = Order.read(path)
    started = time.monotonic()

    def now() -> int:
        return order.began_ms + int((time.monotonic() - started) * 1000)

    transcript = Transcript(Path(order.log), order.log_bytes, order.metrics, now)
    runner = _Runner(order, transcript, ear)
    outcome = runner.run()
    transcript.close()
    part = path.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(outcome)))
    part.replace(path.with_name("outcome.json"))


class _Runner:
    """The steps of one order."""

    def __init__(self, order: Order, transcript: Transcript, ear: socket.socket) -> None:
        self._order, self._transcript, self._ear = order, transcript, ear
        self._selector = selectors.DefaultSelector()
        self._selector.register(ear, selectors.EVENT_READ, "signal")
        self._pid = 0
        self._code: int | None = None
        self._kill_at: float | None = None  # monotonic; set once it has been asked to end

    def run(self) -> Outcome:
        done, command = 0, ""
        for step in self._order.steps:
            command = self._start(step)
            self._follow()
            done += 1
            if self._code or self._kill_at is not None:
                break
        error = self._transcript.error if self._code else ""
        return Outcome(done - 1, self._code or 0, error, command, self._transcript.metrics)

    def _start(self, step: Step) -> str:
        """Fork the script's process; the command as it is really run."""
        self._code = None
        told, tell = os.pipe()
        outputs = {name: os.pipe() for name in ("stdout", "stderr")}
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            with contextlib.suppress(BaseException):
                os.close(told)
                _become(self._order, step, [outputs[name][1] for name in outputs], tell, parent)
            os._exit(127)
        os.close(tell)
        for name, (reading, writing) in outputs.items():
            os.close(writing)
            os.set_blocking(reading, False)
            self._selector.register(reading, selectors.EVENT_READ, name)
        with open(told, "rb") as said:  # noqa: PTH123 - a descriptor
            *reports, command = said.read().decode("utf-8", "replace").split("\0")
        for line in reports:
            self._transcript.say(line)
        return command

    def _follow(self) -> None:
        """Until the process has ended, and all that it has left behind."""
        drained_at: float | None = None
        while self._code is None or len(self._selector.get_map()) > 1:
            for key, _ in self._selector.select(self._patience(drained_at)):
                if key.data == "signal":
                    self._hear(self._ear.recv(4096))
                else:
                    self._read(key.fd, key.data)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill()
            if self._code is not None and drained_at is None:
                _sweep()
                drained_at = time.monotonic() + DRAIN_S
            if drained_at is not None and time.monotonic() >= drained_at:
                break
        for key in [one for one in self._selector.get_map().values() if one.data != "signal"]:
            self._close(key.fd)

    def _patience(self, drained_at: float | None) -> float | None:
        ends = [at for at in (drained_at, self._kill_at) if at is not None]
        if self._code is not None:
            ends = ends[:1]
        return max(0.0, min(ends) - time.monotonic()) + 0.001 if ends else None

    def _hear(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        if signal.SIGQUIT in numbers:
            self._kill_at = time.monotonic()
        elif signal.SIGTERM in numbers and self._kill_at is None:
            self._kill_at = time.monotonic() + self._order.grace_s
            if self._code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGTERM)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = 128 - code if code < 0 else code
                    if code < 0:
                        self._transcript.say(f"The process ended {ending(code)}.")

    def _kill(self) -> None:
        if self._code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._kill_at = time.monotonic() + SWEEP_S

    def _read(self, descriptor: int, source: str) -> None:
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(descriptor, CHUNK)
            if not data:
                self._close(descriptor)
        if data:
            self._transcript.take(source, data)

    def _close(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)


def _become(order: Order, step: Step, outputs: list[int], tell: int, parent: int) -> None:
    """In the child: go into the room, say what is in force there and what is run, and run it."""
    os.setsid()
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    room, reports = Path(order.room), []
    base = BASE
    enclosure = Enclosure(order.isolation)
    enclosure.enter(room, furnished=True)
    if enclosure.furnish(room / "opt", MOUNTED):
        also = [path for path in (Path(BASE), Path("/dev/shm")) if path.is_dir()]
    else:
        base, also = str(room / "opt" / "ml"), []
        reports.append(f"There is no {BASE} here (the kernel allows no mounts): it is {base}.")
    enclosure.seal(room)
    in_force = enclosure.confine(room, None, also)
    if in_force["network"] == "none":
        reports.append("There is no network here; EMULATOR_ISOLATION=files would leave it open.")
    if sys.platform == "linux":  # only now: what came before may have taken it away
        die_with(parent, signal.SIGKILL)

    def here(text: str) -> str:
        return text if base == BASE else text.replace(BASE, base)

    command = [here(word) for word in step.command]
    variables = {name: here(value) for name, value in order.variables.items()}
    try:
        os.chdir(here(step.cwd))
        reports.append(" ".join(command))
        os.write(tell, "\0".join(reports).encode("utf-8", "replace"))
        os.execvpe(command[0], command, variables)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        raise


def _sweep() -> None:
    """End everything that is left of the script: what has lost its parent is ours now."""
    until = time.monotonic() + SWEEP_S
    while time.monotonic() < until and (left := _children()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            for _ in left:
                os.waitpid(-1, 0)


def _children() -> list[int]:
    """The direct children of this process."""
    own, found = os.getpid(), []
    for entry in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError, ValueError):
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == own:
                found.append(int(entry.parent.name))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
