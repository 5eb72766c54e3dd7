"""An environment from the inside: load one model, then answer invocations until the host hangs up.

It imports nothing of the server but frames, footprint and isolation, so that a cold start carries
no weight of ours, and nothing but the standard library until it knows its runtime: the interpreter
of a script may have no more. `serve` is the loop of every backend; `main` is the fresh process of
`spawn`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from emulator.sandbox import kernel, notation
from emulator.sandbox.footprint import Peak
from emulator.sandbox.frames import Frame, FrameError, Kind, receive, send
from emulator.sandbox.isolation import OPEN, Enclosure, hint
from emulator.sandbox.parts import Incoming, streamed

_FAULT = (500, "application/json", "")  # status, content type, custom attributes


def main(arguments: list[str]) -> None:
    """`python -m emulator.sandbox.worker <descriptor of the socket> <server's pid> <isolation>`"""
    descriptor, parent = map(int, arguments[:2])
    die_with(parent, signal.SIGKILL)
    settle()
    enclosure = Enclosure(arguments[2])
    enclosure.enter(Path.cwd())
    enclosure.seal(Path.cwd())
    with socket.socket(fileno=descriptor) as connection:
        connection.set_inheritable(False)
        serve(connection, None, enclosure)
    leave()


def die_with(parent: int, number: signal.Signals) -> None:
    """Ask for `number` when the parent dies, and end at once if that has happened already."""
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os._exit(1)


def settle() -> None:
    """What every process of ours sets for itself: no core files, whole lines into the log, a
    traceback for a crash, and Ctrl-C in a terminal left to the server."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()


def leave() -> None:
    """End without the interpreter's farewell: TensorFlow's threads make it slow and fragile."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def serve(connection: socket.socket, shared: int | None, enclosure: Enclosure | None) -> None:
    """Answer on `connection` until it is closed. `shared` is the zygote's resident set in bytes,
    None where no pages are shared with one; `enclosure` is None in a thread of the server."""
    try:
        _serve(connection, shared, enclosure)
    except (BrokenPipeError, ConnectionResetError):
        return  # the host hung up, which is how an environment is told to end


def _serve(connection: socket.socket, shared: int | None, enclosure: Enclosure | None) -> None:
    request = receive(connection)
    if request is None:
        return
    isolation, rest_port = _move_in(request.meta, enclosure) if enclosure else (OPEN, None)
    peak = Peak(shared, request.meta["memory_bytes"])
    try:
        container, inference, meta = _load(request.meta, isolation, rest_port, bool(enclosure))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in user code has to be told, too
        traceback.print_exc()
        message = f"{_sentence(error)} {hint(error, isolation)}".strip()
        send(connection, Kind.FAILED, {"message": message})
        return
    send(connection, Kind.READY, meta | {"isolation": isolation} | _memory(peak))
    incoming = Incoming(connection)
    while (request := _next(connection, incoming, peak)) is not None:
        _answer(connection, incoming, container, inference, request, peak)


def _move_in(
    meta: dict[str, Any], enclosure: Enclosure
) -> tuple[dict[str, str], socket.socket | None]:
    """Make the environment's own folder its working directory and the place of all it writes, and
    close the doors behind it. What is in force, and the one port that its code may connect to."""
    scratch = meta["scratch"]
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch)
    tempfile.tempdir = None  # or a fork would go on with the zygote's
    rest_port = None
    if not meta["program"] and (Path(meta["model_dir"]) / "code" / "inference.py").is_file():
        rest_port = socket.create_server(("127.0.0.1", 0))
    port = rest_port.getsockname()[1] if rest_port else None
    return enclosure.confine(Path(scratch), port), rest_port


def _next(connection: socket.socket, incoming: Incoming, peak: Peak) -> Frame | None:
    """The next request. A pause before it is used to measure what was only estimated."""
    if peak.estimated and not incoming.waiting():
        peak.refresh()
        send(connection, Kind.USAGE, _memory(peak))
    return incoming.next()


def _load(
    meta: dict[str, Any],
    isolation: dict[str, str],
    rest_port: socket.socket | None,
    alone: bool,
) -> tuple[Any, ModuleType, dict[str, int]]:
    os.environ.update(meta["variables"])
    contents, load = _runtime(meta, alone)
    # The model's directory is read-only for a container, so its code leaves no __pycache__ there.
    sys.dont_write_bytecode = True
    begin = time.monotonic_ns()
    surroundings = contents.Surroundings(rest_port, partial(hint, in_force=isolation))
    with _uncollected():
        container = load(Path(meta["model_dir"]), meta["variables"], surroundings=surroundings)
        if meta["warm_up"]:
            container.warm_up(meta["batch"], meta["compiled"])
    setup = {
        "together": container.together,
        "runtime_ns": begin - meta["requested_ns"],
        "load_ns": time.monotonic_ns() - begin,
    }
    return container, contents, setup


def _runtime(meta: dict[str, Any], alone: bool) -> tuple[ModuleType, Callable[..., Any]]:
    """The module of the container, with its runtime imported, and its `load`. `alone` says that
    the process has no other environments."""
    if meta["program"]:
        from model import script

        return script, partial(script.load, program=meta["program"], alone=alone)
    from model import inference

    inference.import_runtime(meta["runtime"])
    conversion = Path(meta["conversion"]) if meta["conversion"] else None
    return inference, partial(inference.load, conversion=conversion)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """A collection in the middle of a load frees nothing and unshares pages."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _answer(
    connection: socket.socket,
    incoming: Incoming,
    container: Any,
    inference: ModuleType,
    frame: Frame,
    peak: Peak,
) -> None:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    requests = _requests(inference, frame)
    if "stream" in frame.meta:
        send_parts = partial(streamed, connection, incoming, frame.meta["stream"])
        replies, body = _streamed(container, requests[0], send_parts)
    else:
        replies, body = _handled(container, requests)
    meta = {
        "replies": replies,
        "model_ns": time.perf_counter_ns() - wall,
        "cpu_ns": time.process_time_ns() - cpu,
    } | _memory(peak)
    try:
        send(connection, Kind.REPLY, meta, body)
    except FrameError as error:
        text = notation.encode({"error": str(error)})
        meta["replies"] = [(len(text), *_FAULT)] * len(replies)
        send(connection, Kind.REPLY, meta, text * len(replies))


def _requests(inference: ModuleType, frame: Frame) -> list[Any]:
    given, at, requests = frame.meta["requests"], 0, []
    for size, content_type, accept, custom_attributes in given:
        body = frame.body if len(given) == 1 else frame.body[at : at + size]
        requests.append(inference.Request(body, content_type, accept, custom_attributes))
        at += size
    return requests


def _handled(container: Any, requests: list[Any]) -> tuple[list[tuple[Any, ...]], bytes]:
    """What is said of each answer (its length first), and the answers in a row."""
    try:
        responses = container.handle_all(requests)
        bodies = [bytes(one.body) for one in responses]
        said = [
            (len(body), one.status, one.content_type, one.custom_attributes)
            for one, body in zip(responses, bodies, strict=True)
        ]
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is answered
        traceback.print_exc()
        bodies = [notation.encode({"error": str(error)})] * len(requests)
        said = [(len(bodies[0]), *_FAULT)] * len(requests)
    sys.stdout.flush()
    return said, bodies[0] if len(bodies) == 1 else b"".join(bodies)


def _streamed(
    container: Any, request: Any, send_parts: Callable[..., Any]
) -> tuple[list[tuple[Any, ...]], bytes]:
    """As `_handled` for one request whose answer may come in parts; what is left when they are
    sent. Raises OSError if the host is gone."""
    try:
        response = container.stream(request)
    except BaseException as error:  # noqa: BLE001 - as above
        response = container.failed(error)
    if response.parts is not None:
        response = send_parts(response, container.failed)
    sys.stdout.flush()
    body = bytes(response.body)
    return [(len(body), response.status, response.content_type, response.custom_attributes)], body


def _memory(peak: Peak) -> dict[str, int]:
    return {
        "peak_bytes": peak.update(),
        "footprint_bytes": peak.footprint,
        "estimated": peak.estimated,
        "resident_bytes": peak.resident,
    }


def _sentence(error: BaseException) -> str:
    """A model's own complaint speaks for itself; anything else is introduced by its type."""
    text = str(error)
    if type(error).__name__ == "ModelLoadError" and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main(sys.argv[1:])
