"""Messages between the server and its zygote: small JSON objects that may carry descriptors.

The socket keeps message boundaries (SOCK_SEQPACKET), so one message is one system call.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

MAX_BYTES = 1 << 16
MAX_DESCRIPTORS = 4


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(
    control: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()
) -> None:
    """Send one message; the receiver gets copies of the descriptors."""
    data = orjson.dumps(message)
    if descriptors:
        socket.send_fds(control, [data], list(descriptors))
    else:
        control.send(data)


def receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One message and its descriptors, which now belong to the caller; None at the end."""
    data, descriptors, _, _ = socket.recv_fds(
        control, MAX_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    return (orjson.loads(data) if data else None), descriptors
