"""Other AWS services, answered by moto in this process: imported when somebody asks, and never on
the event loop. Nothing here reaches a network, and no file of AWS's own configuration is read.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, TypeVarTuple
from urllib.parse import unquote_to_bytes
from xml.parsers.expat import ExpatError

from emulator.address import Address, Home
from emulator.asgi import Headers, Receive, Scope, Send, answer
from emulator.content import Content, Incoming, Reader
from emulator.errors import SetupError
from emulator.objects import Objects
from emulator.refusals import UNKNOWN, Refusal, refuse
from emulator.taking import Gone, Inlet, into_file, into_memory

if TYPE_CHECKING:
    from emulator.buckets import Buckets

log = logging.getLogger("lukewarm.companion")

Given = TypeVarTuple("Given")
Found = TypeVar("Found")

THREADS = 8
S3 = "s3"
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
_HIDDEN = {b"user-agent", b"x-moto-account-id", b"host", b"transfer-encoding", b"expect"}
_OURS = {"date", "server", "connection", "transfer-encoding", "status"}
_HOST = re.compile(rb"(.+?)\.(?:s3[.-].*|s3$|localhost(?::\d+)?$)")


class Request(NamedTuple):
    """A request as the threads get it: the path as sent, S3's bucket always in it."""

    method: str
    raw_path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes | Incoming
    address: Address


@dataclass(slots=True)
class Answer:
    """What a thread hands back. `body` is read while it is sent, if it is a Reader."""

    status: int
    headers: Headers
    body: bytes | Reader = b""


class Mounted:
    """moto with our account and region, and S3 objects that outlive the server."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
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
            raw_path = _path_style(headers.get(b"host", b""), raw_path)
            buckets = await self._in_thread(self._s3)
            if method == "PUT" and _brings_object(raw_path, query, headers):
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

    def _answer_s3(self, buckets: Buckets, request: Request) -> Answer:
        try:
            with self._turn:
                path = unquote_to_bytes(request.raw_path).decode("utf-8", "replace")
                made = _guarded(lambda: buckets.answer(_moto(request, "s3.{region}"), path), True)
                return _as_answer(request, *made)
        finally:
            if isinstance(request.body, Incoming):
                request.body.drop()

    def _answer_other(self, request: Request) -> Answer:
        name, host = SERVICES[request.address.service]
        with self._mounting:
            if name not in self._routes:
                prepare()
                self._routes[name] = _routes(name)
        asked = _moto(request, host)
        url = asked.raw_url.partition("?")[0]
        # Queues are known by the address that they were made at, so that keeps the client's host.
        aws_url = re.sub(r"^https?://[^/]*", f"https://{_host(request, host)}", url)
        found = (handler for pattern, handler in self._routes[name] if pattern.match(aws_url))
        handler = next(found, None)
        if handler is None:
            raise _unknown(request)
        made = _guarded(lambda: handler(asked, asked.raw_url, asked.headers))
        return _as_answer(request, *made)

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


def prepare() -> None:
    """Keep moto from whatever this machine is configured for; before its first import."""
    for name in tuple(os.environ):
        if name.startswith("MOTO_") or name in _CONFUSING:
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


_CONFUSING = {
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "TEST_SERVER_MODE", "TEST_PROXY_MODE"),
    *("INITIAL_NO_AUTH_ACTION_COUNT", "S3_IGNORE_SUBDOMAIN_BUCKETNAME"),
}


def _routes(name: str) -> list[tuple[re.Pattern[str], Callable[..., Any]]]:
    """The handlers of one of moto's services, by the address that AWS has them at."""
    from moto import backends
    from moto.core import DEFAULT_ACCOUNT_ID

    from emulator import quirks

    held: Any = backends.get_backend(name)[DEFAULT_ACCOUNT_ID]
    backend = held["us-east-1" if "us-east-1" in held else "aws"]
    quirks.mend(name)
    return [(re.compile(url), handler) for url, handler in backend.urls.items()]


def _host(request: Request, template: str) -> str:
    return template.format(region=request.address.home.region) + ".amazonaws.com"


def _moto(request: Request, host: str) -> Any:
    """moto's form of a request, with our account and region and without what would confuse it."""
    from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY, environ_key_for_header
    from moto.core.request import Request as MotoRequest

    from emulator.buckets import BODY, HOME

    body = b"" if isinstance(request.body, Incoming) else request.body
    headers = {name: value for name, value in request.headers.items() if name not in _HIDDEN}
    headers[b"content-length"] = b"%d" % len(body)
    headers[b"x-moto-account-id"] = request.address.home.account.encode()
    own = request.headers.get(b"host", b"") if request.address.service == "sqs" else b""
    headers[b"host"] = own or _host(request, host).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.raw_path).decode("latin-1"),
        "RAW_URI": request.raw_path.decode("latin-1"),
        "QUERY_STRING": request.query.decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http" if own else "https",
        "wsgi.input": io.BytesIO(body),
        HOME: request.address.home,
        BODY: request.body if isinstance(request.body, Incoming) else None,
        PRESERVED_HEADER_NAMES_ENVIRON_KEY: {},
    }
    for raw_name, value in headers.items():
        name = raw_name.decode("latin-1")
        environ[environ_key_for_header(name)] = value.decode("latin-1")
        if "_" in name:
            environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY][environ_key_for_header(name)] = name
    return MotoRequest(environ)


def _guarded(handler: Callable[[], Any], s3: bool = False) -> tuple[int, dict[str, Any], Any]:
    """Whatever moto does with a request, as an answer. Raises Refusal for what it cannot do."""
    from werkzeug.exceptions import HTTPException

    try:
        found: tuple[int, dict[str, Any], Any] = handler()
    except Refusal:
        raise
    except HTTPException as error:
        return error.code or 400, dict(error.get_headers()), error.get_body()
    except NotImplementedError as error:
        text = f"{error}.".replace("..", ".") if str(error) else "moto does not have this."
        raise (Refusal("MethodNotAllowed", text, 405) if s3 else Refusal(UNKNOWN, text)) from None
    except (sqlite3.Error, OSError) as error:
        log.error("An answer could not be kept: %s.", error)
        raise Refusal("InternalError", f"The change could not be kept: {error}.", 500) from None
    except ExpatError as error:
        code = "MalformedXML" if s3 else "ValidationError"
        raise Refusal(code, f"The XML you provided was not well-formed: {error}.") from None
    except Exception as error:
        log.warning("A request was not understood: %s: %s.", type(error).__name__, error)
        log.debug("Where:", exc_info=error)
        raise Refusal(
            "InvalidRequest",
            f"The request could not be understood ({type(error).__name__}: {error}).",
        ) from None
    return found


def _as_answer(request: Request, status: int, headers: dict[str, Any], body: Any) -> Answer:
    told: dict[bytes, bytes] = {}
    left_out = _OURS if request.method == "HEAD" else _OURS | {"content-length"}
    for name, value in headers.items():
        if name.lower() not in left_out:
            text = re.sub(r"[\r\n\0]", " ", str(value))
            told[name.lower().encode("latin-1", "replace")] = text.encode("latin-1", "replace")
    if isinstance(body, Content):
        try:
            return Answer(int(status), list(told.items()), body.open())
        except OSError as error:
            raise Refusal(
                "InternalError",
                f"The content of this object is gone from the state directory ({error}).",
                500,
            ) from None
    raw = body.encode() if isinstance(body, str) else bytes(body or b"")
    if (
        int(status) >= 400
        and not raw
        and request.method != "HEAD"
        and request.address.service != S3
    ):
        raise _unknown(request)
    if request.address.service == "sagemaker" and raw.startswith(b"{"):
        raw = _without_empty_members(raw)
    return Answer(int(status), list(told.items()), b"" if request.method == "HEAD" else raw)


def _unknown(request: Request) -> Refusal:
    target = request.headers.get(b"x-amz-target", b"").decode("latin-1")
    asked = target or f"{request.method} {request.raw_path.decode('latin-1')}"
    return Refusal(UNKNOWN, f"There is no operation {asked[:200]!r} here.")


def _without_empty_members(raw: bytes) -> bytes:
    """moto writes `"VpcConfig": {}` where AWS writes nothing, and clients that know types fail."""
    with suppress(ValueError):
        return json.dumps(_pruned(json.loads(raw))).encode()
    return raw


def _pruned(value: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(one) for one in value]
    if isinstance(value, dict):
        return {
            name: _pruned(one)
            for name, one in value.items()
            if not (one == {} and name.endswith("Config"))
        }
    return value


def _path_style(host: bytes, raw_path: bytes) -> bytes:
    """The path with the bucket in it, where a client has put that into the host's name."""
    found = _HOST.fullmatch(host)
    return b"/" + found[1] + raw_path if found and not host.startswith(b"s3.") else raw_path


def _brings_object(raw_path: bytes, query: bytes, headers: dict[bytes, bytes]) -> bool:
    """Whether the body of this PUT is an object, or a part of one."""
    _, _, key = raw_path.lstrip(b"/").partition(b"/")
    if not key or b"x-amz-copy-source" in headers:
        return False
    names = {pair.partition(b"=")[0].lower() for pair in query.split(b"&")} - {b""}
    return not names & _SUBRESOURCES


_SUBRESOURCES = {b"acl", b"tagging", b"retention", b"legal-hold", b"torrent", b"restore"}


async def _send(send: Send, made: Answer, body: bytes) -> None:
    if any(name == b"content-length" for name, _ in made.headers):  # of a HEAD
        start = {"type": "http.response.start", "status": made.status, "headers": made.headers}
        await send(start)
        await send({"type": "http.response.body", "body": b""})
    else:
        await answer(send, made.status, made.headers, body)
