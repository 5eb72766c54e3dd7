"""Who is let in to what: ASGI callables around the wire and around our own REST.

Which of them stands before what is chosen once, at the start; with authentication off nothing
stands before the wire. The rules of a signature are `auth.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from emulator import origin
from emulator.auth import Verifier
from emulator.errors import (
    AccessError,
    ForeignRequest,
    PayloadTooLarge,
    SignatureError,
    TokenRequired,
)
from emulator.wire import DRAINED, Receive, Scope, Send

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Message = MutableMapping[str, Any]

OPEN = "/ping"  # for whoever looks after the process; it says nothing but which endpoints start
COOKIE = b"lukewarm"


class Signed:
    """Lets in what is signed, up to `limit` bytes of body, and gives it on as it came.

    A signature covers the hash of the body, so all of it is here before anything is done with it;
    it is hashed as it comes in, and read once. The time is the wall clock's, as the client's is.
    """

    def __init__(self, inner: Asgi, verifier: Verifier, limit: int) -> None:
        self._inner, self._verifier, self._limit = inner, verifier, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            claim = self._verifier.admit(scope["headers"], time.time())
        except SignatureError as error:
            await _drain(receive)
            await _refuse_as_aws(send, error)
            return
        try:
            body = await _take_in(receive, self._limit)
            if body is None:
                return
            target = scope["method"], scope["raw_path"], scope["query_string"]
            self._verifier.check(claim, *target, scope["headers"], body.digest)
        except SignatureError as error:
            await _refuse_as_aws(send, error)
        except PayloadTooLarge as error:
            await _send(send, error.status, [_TEXT], str(error).encode())
        else:
            await self._inner(scope, body.again(receive), send)


class SignedOrToken:
    """Lets in what is signed, and what has the token: as Bearer, in a cookie, or once as `?token=`,
    which sets the cookie. What a cookie lets in has to come from the server's own pages."""

    def __init__(self, inner: Asgi, signed: Signed, token: str) -> None:
        self._inner, self._signed = inner, signed
        self._token = token.encode()
        # Browsers send a host's cookies to every port of it: the token itself stays out of them.
        self._cookie = hmac.digest(self._token, b"cookie", "sha256").hex().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        authorization: bytes = headers.get(b"authorization", b"")
        if authorization.startswith(b"AWS4-"):
            await self._signed(scope, receive, send)
            return
        try:
            given = self._from_query(scope)
            if given and scope["method"] in origin.SAFE:
                await self._welcome(given, scope, send)
                return
            if scope["path"] != OPEN:
                self._check(authorization, headers, scope["method"])
        except AccessError as error:
            await _drain(receive)
            await _refuse(send, error)
        else:
            await self._inner(scope, receive, send)

    def _check(self, authorization: bytes, headers: dict[bytes, bytes], method: str) -> None:
        """Raises TokenRequired or ForeignRequest."""
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            self._compare(given.strip(), self._token)
        elif cookie := origin.cookie(headers, COOKIE):
            self._compare(cookie, self._cookie)
            origin.check_page(headers, method)
        else:
            raise TokenRequired(
                "This takes a request signed with the server's keys, or its token: in a browser "
                "add ?token=TOKEN to the address, once; else send Authorization: Bearer TOKEN."
            )

    @staticmethod
    def _compare(given: bytes, due: bytes) -> None:
        if not hmac.compare_digest(given, due):
            raise TokenRequired(
                "This is not the server's token: it is EMULATOR_TOKEN, or was printed at the start."
            )

    @staticmethod
    def _from_query(scope: Scope) -> bytes:
        """The token of a query, which leaves it: uvicorn logs queries."""
        query: bytes = scope["query_string"]
        if b"token=" not in query:
            return b""
        pairs = query.split(b"&")
        given = [pair for pair in pairs if pair.startswith(b"token=")]
        scope["query_string"] = b"&".join(pair for pair in pairs if pair not in given)
        return unquote_to_bytes(given[0][6:]) if given else b""

    async def _welcome(self, given: bytes, scope: Scope, send: Send) -> None:
        """On to the same address without the token, which the browser need not know any more."""
        self._compare(given, self._token)
        query: bytes = scope["query_string"]
        # Slashes are taken together: //elsewhere would be another server's address.
        target = b"/" + scope["raw_path"].lstrip(b"/\\") + (b"?" + query if query else b"")
        cookie = b"%s=%s; Path=/; HttpOnly; SameSite=Strict" % (COOKIE, self._cookie)
        if scope["scheme"] == "https":
            cookie += b"; Secure"
        headers = [(b"location", target), (b"set-cookie", cookie)]
        await _send(send, 303, [*headers, (b"referrer-policy", b"no-referrer"), _UNKEPT], b"")


class SameOrigin:
    """With authentication off: lets in all but what a web page from elsewhere sends.

    A browser on this machine reaches 127.0.0.1, too, whoever wrote the page that it shows. So what
    changes something has to come from a page of ours, or from no browser; and where `hosts` is
    given, the server has to be called by one of these names or by an address, since any name can be
    made to lead here.
    """

    def __init__(self, inner: Asgi, hosts: frozenset[str] | None) -> None:
        self._inner, self._hosts = inner, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != OPEN:
            headers = dict(scope["headers"])
            try:
                if self._hosts is not None:
                    origin.check_host(headers, self._hosts)
                    origin.check_reached(scope.get("server"))
                origin.check_page(headers, scope["method"])
            except ForeignRequest as error:
                await _drain(receive)
                await _refuse(send, error)
                return
        await self._inner(scope, receive, send)


# -- bodies and answers ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Body:
    messages: list[Message]
    digest: str

    def again(self, receive: Receive) -> Receive:
        """A `receive` that gives the body once more, and then what comes."""
        waiting = iter(self.messages)

        async def replay() -> Message:
            message = next(waiting, None)
            return await receive() if message is None else message

        return replay


async def _take_in(receive: Receive, limit: int) -> _Body | None:
    """A whole body with its SHA-256; None if the client left.

    Past `limit` the rest is hashed and not kept: what is kept is over the limit then, so that who
    reads it comes to the same verdict. Raises PayloadTooLarge where that goes on for long.
    """
    messages: list[Message] = []
    size, digest = 0, hashlib.sha256()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk = message.get("body", b"")
        if size <= limit:
            messages.append(message)
        size += len(chunk)
        digest.update(chunk)
        if not message.get("more_body"):
            break
        if size > limit + DRAINED:
            raise PayloadTooLarge(f"HTTP content length exceeded {limit} bytes.")
    messages[-1]["more_body"] = False
    return _Body(messages, digest.hexdigest())


async def _drain(receive: Receive) -> None:
    """Read a refused body, so that its sender comes to see the answer; but not for ever."""
    size = 0
    while size <= DRAINED:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return


_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain")
_UNKEPT = (b"cache-control", b"no-store")


async def _refuse_as_aws(send: Send, error: SignatureError) -> None:
    headers = [
        (b"x-amzn-requestid", str(uuid.uuid4()).encode()),
        (b"x-amzn-errortype", error.code.encode()),
        _JSON,
    ]
    await _send(send, error.status, headers, orjson.dumps({"message": str(error)}))


async def _refuse(send: Send, error: AccessError) -> None:
    headers = [_JSON, _UNKEPT]
    if isinstance(error, TokenRequired):
        headers.append((b"www-authenticate", b'Bearer realm="lukewarm"'))
    await _send(send, error.status, headers, orjson.dumps({"detail": str(error)}))


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
