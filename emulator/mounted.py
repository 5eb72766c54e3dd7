"""Other AWS services, answered by moto in this process: imported when somebody asks, and never on
the event loop. Nothing here reaches a network, and no file of AWS's own configuration is read.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple
from urllib.parse import unquote_to_bytes

from emulator import cbor
from emulator.address import Address, Home
from emulator.asgi import Receive, Scope, Send, answer
from emulator.calls import (
    S3,
    Answer,
    Request,
    as_answer,
    asked,
    aws_host,
    brings_object,
    guarded,
    path_style,
    prepare,
    unknown,
)
from emulator.content import Content, Incoming, Reader
from emulator.errors import SetupError
from emulator.figures import Figures
from emulator.logbook import Logbook
from emulator.logfeed import MotoLogs
from emulator.objects import Objects
from emulator.refusals import UNKNOWN, Refusal, refuse
from emulator.taking import Gone, Inlet, into_file, into_memory

if TYPE_CHECKING:
    from emulator.buckets import Buckets

log = logging.getLogger("lukewarm.companion")

Given = TypeVarTuple("Given")
Found = TypeVar("Found")

THREADS = 8
LOGS = "logs"
# Signing names, moto's names and AWS's host names. Others of moto's services start containers, call
# out, or need what is not installed.
SERVICES = {
    "application-autoscaling": ("applicationautoscaling", "application-autoscaling.{region}"),
    "ecr": ("ecr", "api.ecr.{region}"),
    "iam": ("iam", "iam"),
    "kms": ("kms", "kms.{region}"),
    "logs": ("logs", "logs.{region}"),
    "monitoring": ("cloudwatch", "monitoring.{region}"),
    "sagemaker": ("sagemaker", "api.sagemaker.{region}"),
    "secretsmanager": ("secretsmanager", "secretsmanager.{region}"),
    "sns": ("sns", "sns.{region}"),
    "sqs": ("sqs", "sqs.{region}"),
    "ssm": ("ssm", "ssm.{region}"),
    "sts": ("sts", "sts.{region}"),
    "tagging": ("resourcegroupstaggingapi", "tagging.{region}"),
}


class Mounted:
    """moto with our account and region, and S3 objects that outlive the server."""

    def __init__(self, directory: Path, figures: Figures, book: Logbook) -> None:
        self._directory, self._figures, self._book = directory, figures, book
        self._logs: MotoLogs | None = None
        self._threads = ThreadPoolExecutor(THREADS, "companion")
        self._turn = threading.Lock()  # moto's S3 and the index, one request at a time
        self._mounting = threading.Lock()
        self._objects: Objects | None = None
        self._buckets: Buckets | None = None
        self._routes: dict[str, list[tuple[re.Pattern[str], Callable[..., Any]]]] = {}

    async def close(self) -> None:
        """Wait for what is being answered, and forget everything but the objects."""
        await asyncio.to_thread(self._threads.shutdown)
        if self._objects:
            self._objects.close()
        if self._routes or self._buckets:
            from emulator import buckets

            buckets.forget()

    async def reset(self) -> None:
        """Forget everything, the objects included."""
        await self._in_thread(self._forget)

    async def answer(self, address: Address, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, whatever becomes of it."""
        headers = dict(scope["headers"])
        service, inlet = address.service, Inlet(receive)
        try:
            made = await self._answered(address, scope, headers, inlet)
        except Gone:
            return
        except (Refusal, OSError) as error:
            if isinstance(error, OSError):
                log.error("A body could not be kept: %s.", error)
                error = Refusal("InternalError", f"The body could not be kept: {error}.", 500)
            await inlet.drain()
            told, text = refuse(service, headers, error)
            made = Answer(error.status, told, b"" if scope["method"] == "HEAD" else text)
        if isinstance(made.body, bytes):
            await _send(send, made, made.body)
        else:
            await self._stream(made, made.body, receive, send)

    async def _answered(
        self, address: Address, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> Answer:
        method, raw_path, query = scope["method"], scope["raw_path"], scope["query_string"]
        if address.service == S3:
            raw_path = path_style(headers.get(b"host", b""), raw_path)
            buckets = await self._in_thread(self._s3)
            if method == "PUT" and brings_object(raw_path, query, headers):
                assert self._objects
                path = self._objects.new_file()
                body = await into_file(receive, headers, path, self._threads)
                request = Request(method, raw_path, query, headers, body, address)
                return await self._in_thread(self._answer_s3, buckets, request)
            small = await into_memory(receive, headers)
            request = Request(method, raw_path, query, headers, small, address)
            return await self._in_thread(self._answer_s3, buckets, request)
        if address.service not in SERVICES:
            raise Refusal(
                UNKNOWN,
                f"The service {address.service!r} is not emulated here; with EMULATOR_COMPANION_URL"
                " another emulator answers for it.",
            )
        small = await into_memory(receive, headers)
        if address.service == LOGS:
            await self._book.flush()
            await self._book.call(lambda: self._feed_logs(address.home))
        request = Request(method, raw_path, query, headers, small, address)
        return await self._in_thread(self._answer_other, request)

    async def _in_thread(self, work: Callable[[*Given], Found], *given: *Given) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def _stream(self, made: Answer, reader: Reader, receive: Receive, send: Send) -> None:
        """Send from a file, no faster than the client takes it, and no longer than it is there."""
        leaving = asyncio.ensure_future(receive())
        size = reader.left
        start = {"type": "http.response.start", "status": made.status}
        try:
            await send({**start, "headers": [*made.headers, (b"content-length", b"%d" % size)]})
            while reader.left and not leaving.done():
                piece = await self._in_thread(reader.piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if not reader.left:
                await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            reader.close()

    # -- in threads ---------------------------------------------------------------------------

    def _s3(self) -> Buckets:
        """moto's S3 with everything that was kept. Raises Refusal if that cannot be read."""
        with self._mounting:
            if self._buckets is None:
                prepare()
                from emulator.buckets import Buckets

                try:
                    self._objects = self._objects or Objects(self._directory)
                    self._buckets = Buckets(self._objects)
                except SetupError as error:
                    log.error("%s", error)
                    raise Refusal("InternalError", str(error), 500) from None
            return self._buckets

    def _forget(self) -> None:
        with self._mounting, self._turn:
            if self._objects is None and not self._directory.is_dir():
                if not self._routes and self._logs is None:
                    return  # nobody has asked for anything, so moto need not be imported
            else:
                self._objects = self._objects or Objects(self._directory)
                for row in tuple(self._objects.buckets()):
                    self._objects.delete_bucket(row.name)
            prepare()
            from emulator import buckets

            buckets.forget()
            self._buckets = self._logs = None

    def _answer_s3(self, buckets: Buckets, request: Request) -> Answer:
        try:
            with self._turn:
                path = unquote_to_bytes(request.raw_path).decode("utf-8", "replace")
                made = guarded(lambda: buckets.answer(asked(request, "s3.{region}"), path), True)
                return as_answer(request, *made)
        finally:
            if isinstance(request.body, Incoming):
                request.body.drop()

    def _feed_logs(self, home: Home) -> None:
        """In the logbook's thread."""
        logs = self._logs
        if logs is None:
            with self._mounting:
                prepare()
                logs = self._logs = MotoLogs(self._book)
        logs.feed(home)

    def _answer_other(self, request: Request) -> Answer:
        if request.headers.get(b"smithy-protocol") == cbor.MARK:
            return cbor.answered(request, self._answer_json)
        return self._answer_json(request)

    def _answer_json(self, request: Request) -> Answer:
        name, host = SERVICES[request.address.service]
        with self._mounting:
            if name not in self._routes:
                prepare()
                self._routes[name] = self._read_routes(name)
        call = asked(request, host)
        url = call.raw_url.partition("?")[0]
        # Queues are known by the address that they were made at, so that keeps the client's host.
        aws_url = re.sub(r"^https?://[^/]*", f"https://{aws_host(request, host)}", url)
        found = (handler for pattern, handler in self._routes[name] if pattern.match(aws_url))
        handler = next(found, None)
        if handler is None:
            raise unknown(request)
        made = guarded(lambda: handler(call, call.raw_url, call.headers))
        return as_answer(request, *made)

    def _read_routes(self, name: str) -> list[tuple[re.Pattern[str], Callable[..., Any]]]:
        routes = _routes(name)
        if name != "cloudwatch":
            return routes
        from emulator.monitoring import Responses

        Responses.figures = self._figures
        return [(pattern, Responses.dispatch) for pattern, _ in routes]

    # -- for the loader of models -------------------------------------------------------------

    async def open(self, home: Home, bucket: str, key: str) -> tuple[Reader, str] | None:
        """An object's bytes and its ETag; None if there is no such object.

        Raises KeyError if there is no such bucket in that account, SetupError if S3 is damaged.
        """

        def find() -> tuple[Reader, str] | None:
            buckets = self._s3()
            with self._turn:
                found = buckets.find(home, bucket, key)
                etag = buckets.etag(home, bucket, key)
                return (found.open(), etag or "") if found else None

        return await self._for_loader(find)

    async def keys(self, home: Home, bucket: str, prefix: str) -> list[str]:
        """The keys below a prefix. Raises KeyError or SetupError, as `open` does."""

        def listed() -> list[str]:
            buckets = self._s3()
            with self._turn:
                return buckets.keys(home, bucket, prefix)

        return await self._for_loader(listed)

    async def put(self, home: Home, bucket: str, key: str, source: Path, content_type: str) -> None:
        """Store a copy of a file. Raises KeyError or SetupError, as `open` does."""

        def stored() -> None:
            buckets = self._s3()
            assert self._objects
            copy = Content(source, source.stat().st_size).copy(self._objects.new_file())
            body = Incoming(copy.path, copy.size)
            try:
                with self._turn:
                    buckets.put(home, bucket, key, body, content_type)
            finally:
                body.drop()

        await self._for_loader(stored)

    async def _for_loader(self, work: Callable[[], Found]) -> Found:
        try:
            return await self._in_thread(work)
        except Refusal as error:
            raise SetupError(str(error)) from None


def _routes(name: str) -> list[tuple[re.Pattern[str], Callable[..., Any]]]:
    """The handlers of one of moto's services, by the address that AWS has them at."""
    from moto import backends
    from moto.core import DEFAULT_ACCOUNT_ID

    from emulator import quirks

    held: Any = backends.get_backend(name)[DEFAULT_ACCOUNT_ID]
    backend = held["us-east-1" if "us-east-1" in held else "aws"]
    quirks.mend(name)
    return [(re.compile(url), handler) for url, handler in backend.urls.items()]


async def _send(send: Send, made: Answer, body: bytes) -> None:
    if any(name == b"content-length" for name, _ in made.headers):  # of a HEAD
        start = {"type": "http.response.start", "status": made.status, "headers": made.headers}
        await send(start)
        await send({"type": "http.response.body", "body": b""})
    else:
        await answer(send, made.status, made.headers, body)
