"""JSON as frames carry it: by orjson, or by the standard library where the interpreter of a script
has nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

try:
    import orjson
except ImportError:
    FAST = False
else:
    FAST = True

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes | bytearray | memoryview], Any]


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _decode(text: bytes | bytearray | memoryview) -> Any:
    return json.loads(bytes(text))


encode: Encode = orjson.dumps if FAST else _encode
decode: Decode = orjson.loads if FAST else _decode
