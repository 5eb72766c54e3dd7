"""The envelope of our own REST: how large a request may be, and what every answer tells browsers.

Decides nothing about what is inside; the routes are `rest.py`.
"""

from __future__ import annotations

from emulator.asgi import Asgi, Message, Receive, Scope, Send, answer_detail, take_in
from emulator.errors import PayloadTooLarge
from emulator.origin import SAFE

LARGEST = 4 << 20  # bytes; ten variants with all the variables that they may have are smaller

# No guessing of types, no frame of another page around ours, no address of ours told to others.
TOLD = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


class Envelope:
    """An application with bounded requests and careful answers."""

    def __init__(self, inner: Asgi) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *TOLD]
            await send(message)

        if scope["type"] == "http" and scope["method"] not in SAFE:
            try:
                body = await take_in(receive, LARGEST)
                if body is None:
                    return
                if body.size > LARGEST:
                    raise PayloadTooLarge
            except PayloadTooLarge as error:
                text = f"The body has more than {LARGEST} bytes, which is the limit here."
                await answer_detail(careful, error.status, text)
                return
            receive = body.again(receive)
        await self._inner(scope, receive, careful)
