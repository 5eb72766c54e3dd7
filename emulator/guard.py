"""Who is let in to what: ASGI callables around the wire and around our own REST.

Which of them stands before what is chosen once, at the start; with authentication off nothing
stands before the wire. The rules of a signature are `auth.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_to_bytes

import orjson

from emulator import origin
from emulator.asgi import Asgi, Message, Receive, Scope, Send, answer, answer_detail, drain, take_in
from emulator.auth import Verifier
from emulator.errors import (
    AccessError,
    ContentMismatch,
    ForeignRequest,
    InvalidSignatureException,
    PayloadTooLarge,
    SignatureError,
    TokenRequired,
)
from emulator.refusals import Refusal, refuse
from emulator.taking import Inlet

OPEN = "/ping"  # for whoever looks after the process; it says nothing but which endpoints start
COOKIE = b"lukewarm"
Refuse = Callable[[Scope, Send, SignatureError], Awaitable[None]]
_OF_S3 = {
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "AccessDenied",
    "IncompleteSignatureException": "AuthorizationHeaderMalformed",
}
_HASH = re.compile(r"[0-9a-f]{64}")
_UNKEPT = (b"cache-control", b"no-store")


class Signed:
    """Lets in what is signed, up to `limit` bytes of body, and gives it on as it came.

    A signature covers the hash of the body, so all of it is here before anything is done with it;
    it is hashed as it comes in, and read once. The time is the wall clock's, as the client's is.
    """

    def __init__(self, inner: Asgi, verifier: Verifier, limit: int, refuse: Refuse) -> None:
        self._inner, self._verifier, self._limit = inner, verifier, limit
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            claim = self._verifier.admit(scope["headers"], time.time())
        except SignatureError as error:
            await drain(receive)
            await self._refuse(scope, send, error)
            return
        try:
            body = await take_in(receive, self._limit)
            if body is None:
                return
            target = scope["method"], scope["raw_path"], scope["query_string"]
            self._verifier.check(claim, *target, scope["headers"], body.digest)
        except SignatureError as error:
            await self._refuse(scope, send, error)
        except PayloadTooLarge as error:
            await answer(
                send, error.status, [(b"content-type", b"text/plain")], str(error).encode()
            )
        else:
            await self._inner(scope, body.again(receive), send)


class SignedStream:
    """Lets in what is signed before its body is here: S3's objects may be larger than memory.

    S3 signs the hash that a header announces, or that there is none; an announced hash is compared
    when the body has come in, and what is behind sees no end of a body with another one.
    """

    def __init__(self, inner: Asgi, verifier: Verifier) -> None:
        self._inner, self._verifier = inner, verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = dict(scope["headers"]).get(b"x-amz-content-sha256", b"").decode("latin-1")
        inlet = Inlet(receive)
        try:
            claim = self._verifier.admit(scope["headers"], time.time())
            target = scope["method"], scope["raw_path"], scope["query_string"]
            self._verifier.check(claim, *target, scope["headers"], announced)
            await self._inner(scope, hashed(inlet, announced), send)
        except SignatureError as error:
            await inlet.drain()
            await refuse_as_s3(scope, send, error)


def hashed(receive: Receive, announced: str) -> Receive:
    """The same body; its last part raises ContentMismatch if the hash is another. Raises
    InvalidSignatureException for what announces neither a hash nor that there is none."""
    if announced == "UNSIGNED-PAYLOAD" or announced.startswith("STREAMING-"):
        return receive
    if not _HASH.fullmatch(announced):
        raise InvalidSignatureException(
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-... or a valid sha256 value."
        )
    digest = hashlib.sha256()

    async def compared() -> Message:
        message = await receive()
        digest.update(message.get("body", b""))
        whole = message["type"] == "http.request" and not message.get("more_body")
        if whole and digest.hexdigest() != announced:
            raise ContentMismatch(
                "The provided 'x-amz-content-sha256' header does not match what was computed."
            )
        return message

    return compared


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
            await drain(receive)
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
        await answer(send, 303, [*headers, (b"referrer-policy", b"no-referrer"), _UNKEPT], b"")


class SameOrigin:
    """With authentication off: lets in all but what a web page from elsewhere sends.

    A browser on this machine reaches 127.0.0.1, too, whoever wrote the page that it shows. So what
    changes something has to come from a page of ours, or from no browser; and where `hosts` is
    given, the server has to be called by one of these names or by an address, since any name can be
    made to lead here. `every_method` is for what takes orders by GET, too, as AWS's query protocol
    does.
    """

    def __init__(
        self, inner: Asgi, hosts: frozenset[str] | None, every_method: bool = False
    ) -> None:
        self._inner, self._hosts, self._every_method = inner, hosts, every_method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != OPEN:
            headers = dict(scope["headers"])
            try:
                if self._hosts is not None:
                    origin.check_host(headers, self._hosts)
                    origin.check_reached(scope.get("server"))
                origin.check_page(headers, "" if self._every_method else scope["method"])
            except ForeignRequest as error:
                await drain(receive)
                await _refuse(send, error)
                return
        await self._inner(scope, receive, send)


async def refuse_as_s3(scope: Scope, send: Send, error: SignatureError) -> None:
    """The same errors under the names that S3 has for them, in its XML."""
    code = _OF_S3.get(error.code, error.code)
    told, body = refuse("s3", {}, Refusal(code, str(error), error.status))
    await answer(send, error.status, told, body)


async def refuse_as_asked(scope: Scope, send: Send, error: SignatureError) -> None:
    """In the form of the protocol that the request has: JSON, CBOR or XML."""
    given = dict(scope["headers"])
    told, body = refuse("", given, Refusal(error.code, str(error), error.status))
    await answer(send, error.status, told, body)


async def refuse_as_runtime(scope: Scope, send: Send, error: SignatureError) -> None:
    """As SageMaker's runtime puts it."""
    headers = [
        (b"x-amzn-requestid", str(uuid.uuid4()).encode()),
        (b"x-amzn-errortype", error.code.encode()),
        (b"content-type", b"application/json"),
    ]
    await answer(send, error.status, headers, orjson.dumps({"message": str(error)}))


async def _refuse(send: Send, error: AccessError) -> None:
    headers = [_UNKEPT]
    if isinstance(error, TokenRequired):
        headers.append((b"www-authenticate", b'Bearer realm="lukewarm"'))
    await answer_detail(send, error.status, str(error), headers)
