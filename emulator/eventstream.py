"""`application/vnd.amazon.eventstream`: messages with headers and checksums, as AWS's clients read
them. Pure.

A message is the length of all of it and of its headers, the CRC-32 of these eight bytes, the
headers, the payload, and the CRC-32 of everything before. All numbers are big-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
STRING = 7  # the type of a header's value; there are others, which are not needed here
_PRELUDE = struct.Struct("!II")
_CHECKSUM = struct.Struct("!I")
_AROUND = _PRELUDE.size + 2 * _CHECKSUM.size


def event(kind: str, content_type: str, payload: bytes) -> bytes:
    """An event of that kind, a member of the operation's stream."""
    head = {":message-type": "event", ":event-type": kind, ":content-type": content_type}
    return message(head, payload)


def exception(kind: str, payload: bytes) -> bytes:
    """A modelled exception of that kind; `payload` is its members as JSON. It ends the stream."""
    head = {
        ":message-type": "exception",
        ":exception-type": kind,
        ":content-type": "application/json",
    }
    return message(head, payload)


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message. A name has at most 255 bytes, a value 65,535."""
    described = b"".join(_header(name, value) for name, value in headers.items())
    prelude = _PRELUDE.pack(_AROUND + len(described) + len(payload), len(described))
    checked = zlib.crc32(prelude)
    begin = prelude + _CHECKSUM.pack(checked) + described
    whole = zlib.crc32(payload, zlib.crc32(begin))
    return b"".join((begin, payload, _CHECKSUM.pack(whole)))


def _header(name: str, value: str) -> bytes:
    called, said = name.encode(), value.encode()
    return struct.pack("!B", len(called)) + called + struct.pack("!BH", STRING, len(said)) + said
