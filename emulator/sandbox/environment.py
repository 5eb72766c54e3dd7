"""One environment as the host sees it: a channel, a process, a log and a limit. The same for every
backend; how the process comes to be is the backend's business."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from emulator.core import Cause
from emulator.sandbox.channel import Channel
from emulator.sandbox.footprint import private
from emulator.sandbox.frames import Frame, Kind
from emulator.sandbox.limits import Gauge, Watch, too_much
from emulator.sandbox.logs import LogPipe
from emulator.sandbox.processes import Process
from emulator.sandbox.protocol import (
    EnvironmentFailed,
    Invocation,
    Isolation,
    Reply,
    Setup,
    Spec,
    Stats,
)
from emulator.sandbox.stream import Stream

GRACE_S = 0.2  # between the first sign that a process is gone and giving up on the second
PATIENCE_S = 5.0  # for a killed process to leave the process table
SHOWN_LINES = 5
ROOM_BYTES = 1 << 21  # asked for of a socket's buffer; the kernel gives what it allows

Begin = Callable[[socket.socket, int], Awaitable[Process]]


class WorkerEnvironment:
    """An `Environment` whose other end is `worker.serve`.

    Invocations are answered in the order in which they came: one whose future was cancelled still
    occupies the environment until it is through.
    """

    def __init__(self, spec: Spec, watch: Watch) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[EnvironmentFailed] = self._loop.create_future()
        self.folder: Path | None = None  # its scratch folder, where it has one
        self._spec = spec
        self._watch = watch
        self._ready: asyncio.Future[Setup] = self._loop.create_future()
        self._pending: deque[asyncio.Future[list[Reply]]] = deque()
        self._streams: dict[asyncio.Future[list[Reply]], Stream] = {}  # of those pending
        self._calls = 0  # that were streamed
        self._channel = Channel(self._arrived, self._hung_up)
        self._log: LogPipe | None = None
        self._process: Process | None = None
        self._gauge: Gauge | None = None
        self._verdict: EnvironmentFailed | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._measuring = False
        self._peak = 0
        self._estimated = False
        self._silent = False
        self.together = 1
        self.isolation = Isolation()

    @property
    def pid(self) -> int:
        """The process's number; 0 before there is one."""
        return self._process.pid if self._process else 0

    @property
    def setup(self) -> Setup:
        """The measured start."""
        return self._ready.result()

    async def connect(self, begin: Begin, requested_ns: int) -> None:
        """Make the descriptors, say what to load, and have the process begin."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for end in (ours, theirs):  # room for a batch, so that neither side waits for the other
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)
        output, log = os.pipe()
        try:
            self._log = LogPipe(output, self._spec.log)
            await self._loop.create_unix_connection(lambda: self._channel, sock=ours)
            self._channel.write(Kind.LOAD, _load_order(self._spec, self.folder, requested_ns))
            self._attach(await begin(theirs, log))
        finally:
            theirs.close()
            os.close(log)

    async def loaded(self) -> None:
        """Wait for the model. Raises EnvironmentFailed if the environment ends instead."""
        await asyncio.wait((self._ready, self.ended), return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise self.ended.result()

    def invoke(self, batch: Sequence[Invocation]) -> asyncio.Future[list[Reply]]:
        """Hand over requests to be answered in one call; the future raises EnvironmentFailed if
        the environment ends. One whose answer is streamed is alone in its batch."""
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._verdict or self.ended.done():
            future.set_exception(self._verdict or self.ended.result())
            return future
        requests = [
            (len(one.body), one.content_type, one.accept, one.custom_attributes) for one in batch
        ]
        meta: dict[str, Any] = {"requests": requests}
        if (stream := batch[0].stream) is not None:
            self._calls += 1
            meta["stream"] = self._calls
            self._streams[future] = stream
            stream.begin(_Source(self._channel, self._calls))
        body = batch[0].body if len(batch) == 1 else b"".join([one.body for one in batch])
        self._channel.write(Kind.INVOKE, meta, body)
        self._pending.append(future)
        if self._spec.memory_bytes is not None:
            self._watch.add(self)
        return future

    def stats(self) -> Stats:
        """As measured last: after the load, and when a request has made it grow by megabytes."""
        if self._gauge is None or self._process is None or self.ended.done():
            return Stats(0, 0)
        shared = self._process.shared
        footprint = self._gauge.shown
        own = private(self._process.pid) if shared is None else footprint - shared
        return Stats(footprint, own, 0 if self._estimated else self._peak)

    async def stop(self) -> None:
        """End the process and wait until it is gone. Safe to call twice."""
        self._condemn(Cause.CLOSED, "The environment was stopped.")
        if self._process is None:
            self._finish()
        else:
            await asyncio.wait((self.ended, self._process.gone), timeout=PATIENCE_S)

    def check(self) -> None:
        """Compare the estimate with the limit, and only if it is over it look closely. That takes
        milliseconds, so it is not done in the loop's thread."""
        limit = self._spec.memory_bytes
        if self._gauge is None or limit is None or self._measuring:
            return
        if self._gauge.estimate() > limit:
            self._measuring = True
            self._loop.run_in_executor(None, self._gauge.exact).add_done_callback(self._measured)

    def _measured(self, look: asyncio.Future[tuple[int, int]]) -> None:
        self._measuring = False
        if self._gauge is not None and not look.cancelled():
            self._gauge.note(*look.result())
            self._within(self._gauge.footprint)

    def _within(self, used: int) -> bool:
        """Whether `used` bytes are allowed; the environment is condemned if they are not."""
        limit = self._spec.memory_bytes
        if limit is None or used <= limit or not self._enforced():
            return True
        self._condemn(Cause.OUT_OF_MEMORY, too_much(used, limit))
        return False

    def _enforced(self) -> bool:
        """A thread in the server's process has no memory of its own to be held to."""
        return self.pid != os.getpid()

    def _attach(self, process: Process) -> None:
        self._process = process
        process.gone.add_done_callback(lambda _: self._sign())
        if self._verdict:
            process.kill()
            return
        if self._silent:
            self._sign()
        self._gauge = Gauge(process.pid, process.shared)
        if self._spec.memory_bytes is not None and self._enforced():
            self._watch.add(self)

    def _arrived(self, frame: Frame) -> None:
        if self._verdict:
            return
        if frame.kind is Kind.READY:
            self._came_up(frame.meta)
        elif frame.kind is Kind.REPLY and self._pending:
            self._answered(frame)
        elif frame.kind is Kind.PART and self._pending and self._pending[0] in self._streams:
            stream = self._streams[self._pending[0]]
            if frame.meta:
                stream.open(**frame.meta)
            stream.put(frame.body)
        elif frame.kind is Kind.USAGE:
            self._noted(frame.meta)
        elif frame.kind is Kind.FAILED:
            self._condemn(Cause.LOAD_FAILED, frame.meta["message"])
        else:
            self._condemn(Cause.DIED, f"The environment sent {frame.kind.name} out of turn.")

    def _came_up(self, meta: dict[str, Any]) -> None:
        if self._noted(meta):
            self._watch.discard(self)
            self.together = meta["together"]
            self.isolation = Isolation(**meta["isolation"])
            self._ready.set_result(Setup(meta["runtime_ns"], meta["load_ns"]))

    def _answered(self, frame: Frame) -> None:
        if not self._noted(frame.meta):
            return  # over the limit in between: its request ends with it, answer or not
        future = self._pending.popleft()
        if self._streams and (stream := self._streams.pop(future, None)) is not None:
            stream.release()
        if not self._pending:
            self._watch.discard(self)
        if not future.done():
            future.set_result(_replies(frame))

    def _noted(self, meta: dict[str, Any]) -> bool:
        if self._gauge is not None:
            self._gauge.shown = meta["footprint_bytes"] or self._gauge.shown
            if not meta["estimated"]:
                self._gauge.note(meta["footprint_bytes"], meta["resident_bytes"])
        self._estimated = meta["estimated"]
        if not self._estimated:  # an estimate is no peak that ever was
            self._peak = max(self._peak, meta["peak_bytes"])
        return self._within(meta["peak_bytes"])

    def _condemn(self, cause: Cause, message: str) -> None:
        """The first verdict stands. What follows is noticed like any other end."""
        if self._verdict or self.ended.done():
            return
        self._verdict = EnvironmentFailed(cause, message)
        if self._process is not None:
            self._process.kill()
        self._channel.close()

    def _hung_up(self, reason: str) -> None:
        self._silent = True
        if reason:
            self._condemn(Cause.DIED, reason)
        self._sign()

    def _sign(self) -> None:
        """One sign of the end: the socket is closed, or the process is gone. The other one is
        worth a short wait: a last frame may be in the socket, and the process has an exit code."""
        if self.ended.done() or self._process is None:
            return
        if self._silent and self._process.gone.done():
            self._finish()
        elif self._timer is None:
            self._timer = self._loop.call_later(GRACE_S, self._finish)

    def _finish(self) -> None:
        if self.ended.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._process.kill()
        self._watch.discard(self)
        self._channel.close()
        if self._log is not None:
            self._log.close()
        verdict = self._verdict or EnvironmentFailed(Cause.DIED, self._epitaph())
        self.ended.set_result(verdict)
        for future in self._pending:
            if not future.done():
                future.set_exception(verdict)
        self._pending.clear()
        self._streams.clear()

    def _epitaph(self) -> str:
        gone = self._process.gone if self._process else None
        how = f" {gone.result()}" if gone and gone.done() and gone.result() else ""
        if self._ready.done():
            return f"The process ended{how}."
        tail = list(self._log.tail)[-SHOWN_LINES:] if self._log else []
        said = f" Its last output: {' | '.join(tail)}" if tail else ""
        return f"The process ended{how} while it was loading the model.{said}"


class _Source:
    """Where the parts of one stream come from."""

    def __init__(self, channel: Channel, number: int) -> None:
        self.pause, self.resume = channel.pause, channel.resume
        self._channel, self._number = channel, number

    def cancel(self) -> None:
        self._channel.write(Kind.CANCEL, {"stream": self._number})


def _load_order(spec: Spec, folder: Path | None, requested_ns: int) -> dict[str, Any]:
    return {
        "runtime": spec.runtime,
        "scratch": str(folder) if folder else None,
        "model_dir": str(spec.model_dir),
        "program": spec.program,
        "conversion": str(spec.conversion) if spec.conversion else None,
        "variables": dict(spec.variables),
        "warm_up": spec.warm_up,
        "batch": spec.batch,
        "compiled": spec.compiled,
        "memory_bytes": spec.memory_bytes,
        "requested_ns": requested_ns,
    }


def _replies(frame: Frame) -> list[Reply]:
    meta, body, at = frame.meta, frame.body, 0
    given = meta["replies"]
    replies = []
    for size, status, content_type, custom_attributes in given:
        replies.append(
            Reply(
                status,
                content_type,
                body if len(given) == 1 else body[at : at + size],
                meta["model_ns"],
                meta["cpu_ns"] // len(given),
                meta["peak_bytes"],
                custom_attributes,
            )
        )
        at += size
    return replies
