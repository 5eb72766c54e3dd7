"""A client below HTTP: what it sends is bytes, and what it gets is bytes."""

from __future__ import annotations

import asyncio
import re

from tests.servers import DEADLINE_S, SNEAKER, Server

REALTIME = "fashion-mnist-realtime"
INVOKE = f"POST /endpoints/{REALTIME}/invocations HTTP/1.1\r\nhost: x\r\n".encode()
CALL = INVOKE + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(SNEAKER)


async def talk(server: Server, data: bytes, more: bytes = b"", pause_s: float = 0.0) -> bytes:
    """Send `data`, then `more` a byte at a time, and return all that comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        answer = asyncio.ensure_future(reader.read(-1))
        for at in range(len(more)):
            await asyncio.wait({answer}, timeout=pause_s)
            if answer.done():
                break
            writer.write(more[at : at + 1])
        return await asyncio.wait_for(answer, DEADLINE_S)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def said(server: Server, data: bytes) -> tuple[list[int], bytes]:
    """The statuses of all answers until the connection is closed, and what was received."""
    answer = asyncio.run(talk(server, data))
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer)], answer
