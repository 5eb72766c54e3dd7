"""Other AWS services, answered by another emulator: requests are passed on as they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from emulator.address import Address, Home
from emulator.asgi import Receive, Scope, Send, answer
from emulator.errors import SetupError
from emulator.logbook import Logbook
from emulator.logfeed import RemoteLogs
from emulator.refusals import Refusal, refuse
from emulator.taking import Gone, Inlet

log = logging.getLogger("lukewarm.companion")

CONNECT_S = 5.0
READ_S = 300.0
PIECE = 1 << 20
# What belongs to one connection, and what the server before us says itself.
_HOPS = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te"),
    *(b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"date", b"server"),
}
_NO_SUCH_BUCKET = {"NoSuchBucket"}
_NO_SUCH_KEY = {"NoSuchKey", "404", "NotFound"}


class Forwarded:
    """A client of the other emulator, which is at `url`."""

    def __init__(self, url: str, book: Logbook) -> None:
        self.url, self._book = url, book
        self._logs = RemoteLogs(book, lambda home: _client(url, home, "logs"))
        self._base = httpx.URL(url)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=64),
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def answer(self, address: Address, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, passed on and answered as it is answered there."""
        given, inlet = dict(scope["headers"]), Inlet(receive)
        if address.service == "logs":
            await self._send_logs(address.home)
        target: bytes = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = [pair for pair in scope["headers"] if pair[0] not in _HOPS]
        headers.append((b"x-moto-account-id", address.home.account.encode()))
        with_body = b"content-length" in given or b"transfer-encoding" in given
        request = self._client.build_request(
            scope["method"],
            self._base.copy_with(raw_path=self._base.raw_path.rstrip(b"/") + target),
            headers=headers,
            content=_body(inlet) if with_body else None,
        )
        try:
            response = await self._client.send(request, stream=True)
        except Gone:
            return
        except httpx.TransportError as error:
            await inlet.drain()
            refusal = unreachable(self.url, error)
            told, text = refuse(address.service, given, refusal)
            await answer(send, refusal.status, told, text)
            return
        try:
            await _pass_back(response, send)
        finally:
            await response.aclose()

    async def _send_logs(self, home: Home) -> None:
        """Have our endpoints' output over there before somebody looks for it."""
        from botocore.exceptions import BotoCoreError, ClientError

        await self._book.flush()
        try:
            await self._book.call(lambda: self._logs.feed(home))
        except (BotoCoreError, ClientError) as error:
            log.warning("The companion %s does not take our logs: %s.", self.url, error)

    # -- for the loader of models -------------------------------------------------------------

    async def open(self, home: Home, bucket: str, key: str) -> tuple[Any, str] | None:
        """An object's bytes and its ETag; None if there is no such object.

        Raises KeyError if there is no such bucket, SetupError if the companion does not answer.
        """

        def found() -> tuple[Any, str] | None:
            got = self._called(home, "get_object", Bucket=bucket, Key=key)
            if got is None:
                return None
            return _Streamed(got["Body"], got["ContentLength"]), str(got["ETag"])

        return await asyncio.to_thread(found)

    async def keys(self, home: Home, bucket: str, prefix: str) -> list[str]:
        """The keys below a prefix. Raises KeyError or SetupError, as `open` does."""

        def listed() -> list[str]:
            names: list[str] = []
            more: dict[str, str] = {}
            while True:
                page = self._called(home, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
                names += [one["Key"] for one in (page or {}).get("Contents", ())]
                if not page or not page.get("IsTruncated"):
                    return sorted(names)
                more = {"ContinuationToken": page["NextContinuationToken"]}

        return await asyncio.to_thread(listed)

    async def put(self, home: Home, bucket: str, key: str, source: Path, content_type: str) -> None:
        """Store a copy of a file. Raises KeyError or SetupError, as `open` does."""

        def stored() -> None:
            with source.open("rb") as body:
                self._called(
                    home, "put_object", Bucket=bucket, Key=key, Body=body, ContentType=content_type
                )

        await asyncio.to_thread(stored)

    def _called(self, home: Home, operation: str, **given: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(_client(self.url, home, "s3"), operation)(**given)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _NO_SUCH_BUCKET:
                raise KeyError(given["Bucket"]) from None
            if code in _NO_SUCH_KEY:
                return None
            raise SetupError(
                f"The companion at {self.url} answered {operation}: {error}."
            ) from None
        except BotoCoreError as error:
            raise SetupError(str(unreachable(self.url, error))) from None


class _Streamed:
    """A body that comes over a connection, read as a Reader is."""

    def __init__(self, body: Any, size: int) -> None:
        self._body, self.left = body, size

    def piece(self) -> bytes:
        got: bytes = self._body.read(PIECE)
        self.left -= len(got)
        return got

    def close(self) -> None:
        self._body.close()


def unreachable(url: str, error: Exception) -> Refusal:
    """The sentence for a companion that does not answer."""
    reason = str(error) or type(error).__name__
    return Refusal(
        "ServiceUnavailable",
        f"The companion {url} (EMULATOR_COMPANION_URL) does not answer ({reason}): start it, or "
        "leave that setting out.",
        503,
    )


def _client(url: str, home: Home, service: str) -> Any:
    """A client of the companion as boto3 makes it, with nothing of this machine's configuration."""
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session()
    for name in ("config_file", "credentials_file"):
        session.set_config_variable(name, "/dev/null")
    session.set_config_variable("profile", None)
    return session.create_client(
        service,
        region_name=home.region,
        endpoint_url=url,
        aws_access_key_id=home.account,
        aws_secret_access_key="companion",
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=CONNECT_S,
            retries={"total_max_attempts": 1},
            proxies={},
        ),
    )


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        if piece := message.get("body", b""):
            yield piece
        if not message.get("more_body"):
            return


async def _pass_back(response: httpx.Response, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in response.headers.raw]
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": [pair for pair in headers if pair[0] not in _HOPS],
        }
    )
    async for piece in response.aiter_raw(PIECE):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
