"""Keeps a client on this machine: a connection or a name that leads elsewhere is written down and
refused. On PYTHONPATH, so that it holds for what the client starts, too.

An audit hook sees what Python's sockets do, whoever uses them, and cannot be taken away.
"""

import ipaddress
import os
import sys
from pathlib import Path
from typing import Any

ATTEMPTS = Path(os.environ["LUKEWARM_ATTEMPTS"])
CONNECTING = {"socket.connect", "socket.sendto", "socket.sendmsg"}  # a socket, an address
NAMING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}  # a name
NAMED_BY_ADDRESS = "socket.getnameinfo"


def _host(event: str, arguments: tuple[Any, ...]) -> object:
    """The host that is wanted; None for none, as of a socket that is a file."""
    if event in NAMING:
        return arguments[0]
    address = arguments[0] if event == NAMED_BY_ADDRESS else arguments[1]
    return address[0] if isinstance(address, tuple) else None


def _is_here(host: object) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "localhost")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in CONNECTING or event in NAMING or event == NAMED_BY_ADDRESS:
        host = _host(event, arguments)
        if not _is_here(host):
            with ATTEMPTS.open("a") as attempts:
                attempts.write(f"{event} {host}\n")
            raise PermissionError(f"A test does not reach {host}.")


ATTEMPTS.touch()  # so that it is seen to have been here
sys.addaudithook(_watch)
