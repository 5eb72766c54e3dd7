"""Tries to leave this machine, in each of the ways that a client has. OPEN CLOSED are ports here:
the server's, and one that is no business of a client's."""

import ctypes
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

ELSEWHERE = "192.0.2.1"  # an address for documents, which nobody has
allowed, other = int(sys.argv[1]), int(sys.argv[2])


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "connected"


def datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sending:
        sending.sendto(b"", (ELSEWHERE, 53))


def past_python() -> None:
    """As a library in C does, which no hook of Python sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket() as stream:
        address = struct.pack("=HH", socket.AF_INET, socket.htons(other)) + b"\x7f\0\0\1" + bytes(8)
        if libc.connect(stream.fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), "connect")


def child() -> None:
    code = f"import socket; socket.create_connection(({ELSEWHERE!r}, 80), 5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "PermissionError" in done.stderr:
        raise PermissionError


print(
    json.dumps(
        {
            "server": outcome(lambda: socket.create_connection(("localhost", allowed), 5)),
            "address": outcome(lambda: socket.create_connection((ELSEWHERE, 80), 5)),
            "name": outcome(lambda: socket.getaddrinfo("example.org", 443)),
            "datagram": outcome(datagram),
            "child": outcome(child),
            "past python": outcome(past_python),
        }
    )
)
