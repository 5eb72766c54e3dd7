"""Checksums that S3's clients send along, computed while bytes go by. Those that Python has."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from typing import Protocol


class Checksum(Protocol):
    """What hashlib's objects are like."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    """CRC-32, big-endian, as S3 writes it."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _sha1() -> Checksum:
    return hashlib.sha1(usedforsecurity=False)


# S3 also knows CRC32C and CRC64NVME, which would need a library; those are kept as they are given.
KINDS: dict[str, Callable[[], Checksum]] = {
    "crc32": Crc32,
    "sha1": _sha1,
    "sha256": hashlib.sha256,
}


def encoded(checksum: Checksum) -> str:
    """The value of a header."""
    return base64.b64encode(checksum.digest()).decode()
