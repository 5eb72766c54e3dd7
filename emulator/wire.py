"""InvokeEndpoint as it is on the wire: raw ASGI in front of everything else.

Bodies are opaque bytes here; only the environment parses them. The rest of the HTTP face is
`rest.py`. Shapes, headers and errors: botocore's sagemaker-runtime model, and captured replies.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from dataclasses import dataclass, field

import orjson

from emulator import members, streams
from emulator.address import Addressing, Key
from emulator.asgi import DRAINED, Headers, Receive, Scope, Send, answer
from emulator.billing import UsageKind
from emulator.errors import (
    InternalFailure,
    InvocationError,
    ModelError,
    PayloadTooLarge,
    ServiceUnavailable,
    ThrottlingException,
    ValidationError,
)
from emulator.hosting import Hosting
from emulator.inflight import Served
from emulator.live import LiveVariant, is_header
from emulator.sandbox.stream import Stream
from emulator.tariff import Tariff, plain

PREFIX, SUFFIX = "/endpoints/", "/invocations"
STREAM_SUFFIX = "/invocations-response-stream"

log = logging.getLogger("lukewarm.wire")

_DRAW = random.Random()  # seeded by the system


class ClientGone(Exception):
    """The client left before its request was complete."""


@dataclass(slots=True)
class Wire:
    """The invocation route of one server."""

    hosting: Hosting
    addressing: Addressing
    # By region: from when, until when, and which.
    _tariffs: dict[str, tuple[int, int, Tariff]] = field(default_factory=dict)

    @staticmethod
    def takes(scope: Scope) -> bool:
        path: str = scope["path"]
        if not path.startswith(PREFIX):
            return False
        if path.endswith(SUFFIX):
            return len(path) > len(PREFIX) + len(SUFFIX) - 1
        return path.endswith(STREAM_SUFFIX) and len(path) > len(PREFIX) + len(STREAM_SUFFIX) - 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived = time.monotonic_ns()
        request_id = _request_id()
        headers = dict(scope["headers"])
        if scope["method"] != "POST":
            await answer(send, 405, [(b"allow", b"POST")], _message("Only POST is answered here."))
            return
        path: str = scope["path"]
        try:
            if path.endswith(STREAM_SUFFIX):
                name = path[len(PREFIX) : -len(STREAM_SUFFIX)]
                await self._stream(name, headers, receive, send, request_id, arrived)
                return
            name = path[len(PREFIX) : -len(SUFFIX)]
            served = await self._invoke(name, headers, receive, request_id, arrived)
        except ClientGone:
            return
        except asyncio.CancelledError:  # uvicorn's, when the grace of a stop is over
            error = ServiceUnavailable("The server is being stopped.")
            await answer(send, error.status, *_error(error, request_id))
            return
        except InvocationError as error:
            await answer(send, error.status, *_error(error, request_id))
            return
        except Exception:
            log.exception("A fault of ours, in the request %s.", request_id)
            fault = InternalFailure("")
            await answer(send, fault.status, *_error(fault, request_id))
            return
        await self._answer(send, served)

    async def _invoke(
        self,
        name: str,
        headers: dict[bytes, bytes],
        receive: Receive,
        request_id: str,
        arrived: int,
        stream: Stream | None = None,
    ) -> Served:
        try:
            target = members.target_variant(headers)
            home = self.addressing.of(headers.get(b"authorization", b"")).home
            key = Key(home, name)
            variant, modelled_ns = self.hosting.variant(key, target), 0
        except InvocationError:
            if self.hosting.refusals is not None:  # the network's part alone
                await self.hosting.clock.pause(self.hosting.refusals.draw()[0])
            raise
        limit = variant.terms.payload_bytes
        body, size = await _read(receive, limit, int(headers.get(b"content-length") or 0))
        if variant.terms.latency is not None:
            arrived, modelled_ns = await variant.travel(variant.terms.latency)
        if variant.closed:  # while the body came in
            variant = self.hosting.variant(key, target)
        if size > limit:
            error = _oversize(variant, request_id, limit)
            return await variant.refuse(request_id, error, size, arrived, modelled_ns)
        invocation, inference_id = members.invocation(body, headers, stream)
        if stream is not None:
            stream.variant = variant.variant.name
        return await variant.invoke(request_id, invocation, arrived, inference_id, modelled_ns)

    async def _stream(
        self,
        name: str,
        headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
        request_id: str,
        arrived: int,
    ) -> None:
        """InvokeEndpointWithResponseStream: until something is yielded an error is an answer of its
        own, as to InvokeEndpoint."""
        stream = Stream()
        work = self._invoke(name, headers, receive, request_id, arrived, stream)
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_seen)
        await asyncio.wait((task, stream.opened), return_when=asyncio.FIRST_COMPLETED)
        if stream.opened.done() and not is_header(stream.content_type, stream.custom_attributes):
            stream.abandon()  # what is said of it follows with its end
        elif stream.opened.done():
            head = _stream_head(
                request_id, stream.variant, stream.content_type, stream.custom_attributes
            )
            await streams.deliver(stream, task, receive, send, head)
            return
        served = await task
        if served.error is not None:
            await self._answer(send, served)
            return
        assert served.reply is not None
        reply = served.reply
        head = _stream_head(
            request_id, served.row.variant, reply.content_type, reply.custom_attributes
        )
        await streams.whole(send, head + self._extra(served), reply.body)

    async def _answer(self, send: Send, served: Served) -> None:
        row, extra = served.row, self._extra(served)
        if served.error is not None:
            headers, body = _error(served.error, row.request_id)
            await answer(send, served.error.status, headers + extra, body)
            return
        assert served.reply is not None
        reply = served.reply
        headers = [
            (b"x-amzn-requestid", row.request_id.encode()),
            (b"x-amzn-invoked-production-variant", row.variant.encode()),
            (b"content-type", reply.content_type.encode("latin-1", "replace")),
        ]
        headers += _attributes(reply.custom_attributes)
        await answer(send, 200, headers + extra, reply.body)

    def _extra(self, served: Served) -> Headers:
        """What the call cost and how long it took, which the real service does not say."""
        row = served.row
        return [
            (b"x-emulator-cold-start", b"true" if row.cold_start else b"false"),
            (b"x-emulator-billed-ms", b"%d" % self._billed_ms(served)),
            (b"x-emulator-cost-usd", self._cost(served).encode()),
            (b"x-emulator-model-latency-us", b"%d" % (row.model_ns // 1000)),
            (b"x-emulator-overhead-latency-us", b"%d" % (row.overhead_ns // 1000)),
            (b"x-emulator-setup-time-us", b"%d" % (served.setup_ns // 1000)),
        ]

    def _billed_ms(self, served: Served) -> int:
        row = served.row
        if not row.bytes_billed:
            return 0
        return row.billed_startup_ms if self.hosting.config.bill_startup else row.billed_ms

    def _cost(self, served: Served) -> str:
        """What this call alone adds to the bill: data in and out, and a serverless duration.

        The hours of an instance are not a call's and are not in it.
        """
        row = served.row
        if not row.bytes_billed:
            return "0"
        parts = [
            (UsageKind.DATA_IN, row.persona, row.request_bytes),
            (UsageKind.DATA_OUT, row.persona, row.response_bytes),
        ]
        if row.memory_mb:
            kind = UsageKind.SERVERLESS_DURATION
            if row.provisioned:
                kind = UsageKind.PROVISIONED_DURATION
            parts.append((kind, str(row.memory_mb), self._billed_ms(served)))
        tariff = self._tariff(row.region, row.at_ns)
        costs = [tariff.quanta(kind, sku, quantity) for kind, sku, quantity in parts]
        known = [one for one in costs if one is not None]
        return plain(sum(known)) if len(known) == len(costs) else "no price"

    def _tariff(self, region: str, instant: int) -> Tariff:
        """The prices of a region in which something is hosted: there are as many as that."""
        known = self._tariffs.get(region)
        if known is None or not known[0] <= instant < known[1]:
            listed = self.hosting.tables.known(region)
            begun = listed.begun(instant)
            known = begun, listed.until(instant), Tariff(listed.at(instant))
            self._tariffs[region] = known
        return known[2]


async def _read(receive: Receive, limit: int, announced: int) -> tuple[bytes | bytearray, int]:
    """The request's body and its size. Past `limit` the body is dropped while it is counted."""
    body: bytes | bytearray = b""  # and no list: there may be a chunk for every two bytes
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit or announced > limit:
            body = b""
        elif not body:
            body = chunk
        else:
            body = bytearray(body) if isinstance(body, bytes) else body
            body += chunk
        if not message.get("more_body"):
            return body, size
        if size > limit + DRAINED:
            return b"", size


def _request_id() -> str:
    """A random UUID. From a generator of our own: the system's takes two system calls each."""
    return str(uuid.UUID(int=_DRAW.getrandbits(128), version=4))


def _oversize(variant: LiveVariant, request_id: str, limit: int) -> InvocationError:
    """The two personas' different words for a body over the limit: docs/fidelity.md."""
    if variant.variant.serverless:
        return ValidationError(f"Request {request_id} has oversize body.")
    return PayloadTooLarge(f"HTTP content length exceeded {limit} bytes.")


def _seen(task: asyncio.Task[Served]) -> None:
    """A failure that comes when nobody waits for it any more is no fault."""
    if not task.cancelled():
        task.exception()


def _stream_head(request_id: str, variant: str, content_type: str, attributes: str) -> Headers:
    """The modelled headers of a streamed answer: its own type is not that of the events."""
    return [
        (b"x-amzn-requestid", request_id.encode()),
        (b"x-amzn-invoked-production-variant", variant.encode()),
        (b"x-amzn-sagemaker-content-type", content_type.encode("latin-1", "replace")),
        *_attributes(attributes),
    ]


def _attributes(text: str) -> Headers:
    if not text:
        return []
    value = text[: members.MAX_HEADER].encode("latin-1", "replace")
    return [(b"x-amzn-sagemaker-custom-attributes", value)]


def _error(error: InvocationError, request_id: str) -> tuple[Headers, bytes]:
    """The error's headers and body, as AWS writes them: `Message` where the error is modelled."""
    headers = [(b"x-amzn-requestid", request_id.encode())]
    if isinstance(error, PayloadTooLarge):
        return [*headers, (b"content-type", b"text/plain")], str(error).encode()
    headers.append((b"x-amzn-errortype", error.code.encode()))
    headers.append((b"content-type", b"application/json"))
    if isinstance(error, ThrottlingException):
        return headers, b'{"message":null}'
    if isinstance(error, ModelError):
        body = {
            "Message": str(error),
            "OriginalStatusCode": error.original_status,
            "OriginalMessage": error.original_message,
            "LogStreamArn": error.log_stream_arn,
        }
        return headers, orjson.dumps(body)
    return headers, _message(str(error))


def _message(text: str) -> bytes:
    return orjson.dumps({"Message": text})
