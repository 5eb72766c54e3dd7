"""Bodies of requests on their way in: small ones into memory, those of objects into a file.

Either way the form `aws-chunked` comes off, and what the client says of the body is held to it.
Hashing and writing happen in threads; the event loop only passes pieces on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO

from emulator.asgi import Message, Receive, drain
from emulator.checksums import KINDS, Checksum, encoded
from emulator.chunks import Malformed, Unchunked
from emulator.content import PIECE, Incoming
from emulator.refusals import Refusal

LARGEST = 64 << 20  # bytes of a body that is no object's
SUM = b"x-amz-checksum-"


class Gone(Exception):
    """The client left before its body was complete."""


class Inlet:
    """A `receive` that knows whether the body has come to its end."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body")
        return message

    async def drain(self) -> None:
        """Read what is left of a refused body, so that its sender comes to see the answer."""
        if not self.ended:
            await drain(self)


class Pieces:
    """A body in pieces of about PIECE bytes, without the form `aws-chunked` if it has that."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes]) -> None:
        self._receive, self._headers = receive, headers
        chunked = headers.get(b"x-amz-content-sha256", b"").startswith(b"STREAMING-")
        self._form = Unchunked() if chunked or b"aws-chunked" in _encodings(headers) else None
        self._more = True
        self.size = 0

    async def next(self) -> bytes:
        """The next piece, empty at the end. Raises Gone, or Refusal for what is malformed."""
        piece = bytearray()
        while self._more and len(piece) < PIECE:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Gone
            self._more = bool(message.get("more_body"))
            if raw := message.get("body", b""):
                try:
                    for plain in self._form.feed(raw) if self._form else (raw,):
                        piece += plain
                except Malformed as error:
                    raise Refusal("InvalidRequest", str(error)) from None
        self.size += len(piece)
        if not self._more:
            self._check()
        return bytes(piece)

    def _check(self) -> None:
        """The body is complete; its trailers become headers. Raises Refusal if it is too short."""
        said = self._headers.get(b"x-amz-decoded-content-length", b"%d" % self.size)
        if (self._form and not self._form.done) or said != b"%d" % self.size:
            raise Refusal(
                "IncompleteBody",
                f"You did not provide the number of bytes specified: {self.size} bytes came.",
            )
        if self._form:
            for name, value in self._form.trailers.items():
                self._headers[name.encode("latin-1")] = value.encode("latin-1")
            _plain(self._headers)


async def into_memory(receive: Receive, headers: dict[bytes, bytes]) -> bytes:
    """A whole body. Raises Gone, or Refusal if it has more than LARGEST bytes."""
    pieces, kept = Pieces(receive, headers), bytearray()
    while piece := await pieces.next():
        kept += piece
        if len(kept) > LARGEST:
            raise Refusal(
                "RequestEntityTooLarge", f"The body has more than {LARGEST} bytes, the limit.", 413
            )
    return bytes(kept)


async def into_file(
    receive: Receive, headers: dict[bytes, bytes], path: Path, threads: Executor
) -> Incoming:
    """A body in a new file at `path`, with its MD5; checksums that are named are in `headers` then.

    Raises Gone, Refusal if the body is not what was said, or OSError; no file is left then.
    """
    pieces = Pieces(receive, headers)
    filing = _Filing(path, headers)
    loop = asyncio.get_running_loop()
    try:
        while piece := await pieces.next():
            await loop.run_in_executor(threads, filing.write, piece)
        filing.close()
        filing.check(headers)
    except BaseException:
        filing.close()
        path.unlink(missing_ok=True)
        raise
    return Incoming(path, pieces.size, md5=filing.md5.hexdigest())


class _Filing:
    """A file that is written and hashed in one go."""

    def __init__(self, path: Path, headers: dict[bytes, bytes]) -> None:
        self._file: BinaryIO = path.open("xb", buffering=0)
        self.md5 = hashlib.md5(usedforsecurity=False)
        named = {headers.get(b"x-amz-sdk-checksum-algorithm", b"").lower()}
        named |= {name.removeprefix(SUM) for name in headers if name.startswith(SUM)}
        named.add(headers.get(b"x-amz-trailer", b"").strip().lower().removeprefix(SUM))
        kinds = {name: KINDS.get(name.decode("latin-1")) for name in named}
        self._sums: dict[bytes, Checksum] = {name: kind() for name, kind in kinds.items() if kind}

    def write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.md5.update(piece)
        for checksum in self._sums.values():
            checksum.update(piece)

    def close(self) -> None:
        self._file.close()

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Hold the body to what was said of it, and say the rest. Raises Refusal."""
        said_md5 = headers.get(b"content-md5")
        if said_md5 and said_md5 != base64.b64encode(self.md5.digest()):
            raise Refusal(
                "BadDigest", "The Content-MD5 you specified did not match what we received."
            )
        for name, checksum in self._sums.items():
            due = encoded(checksum).encode()
            if headers.setdefault(SUM + name, due) != due:
                raise Refusal(
                    "BadDigest",
                    f"The {name.decode().upper()} you specified did not match the calculated"
                    " checksum.",
                )
        algorithm = headers.get(b"x-amz-sdk-checksum-algorithm", b"").lower()
        if algorithm and SUM + algorithm not in headers:  # else it would be taken of no bytes
            del headers[b"x-amz-sdk-checksum-algorithm"]


def _encodings(headers: dict[bytes, bytes]) -> list[bytes]:
    given = headers.get(b"content-encoding", b"").split(b",")
    return [one.strip() for one in given if one.strip()]


def _plain(headers: dict[bytes, bytes]) -> None:
    """What headers say of the form is true no more."""
    kept = [one for one in _encodings(headers) if one != b"aws-chunked"]
    headers.pop(b"content-encoding", None)
    if kept:
        headers[b"content-encoding"] = b",".join(kept)
    headers.pop(b"x-amz-trailer", None)
    headers.pop(b"x-amz-decoded-content-length", None)
    headers[b"x-amz-content-sha256"] = b"UNSIGNED-PAYLOAD"
