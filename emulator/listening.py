"""Where the server listens, as far as the program that runs the application tells.

ASGI has no word for it. uvicorn calls the lifespan with a bound method of an object that has its
configuration; this file is the only one that knows.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Listening:
    """`address` for people; `local` if only this machine can reach it, as far as is known; `url`
    for programs of this machine, empty where there is none."""

    address: str
    local: bool
    url: str = ""


def uvicorn_config(receive: object) -> Any | None:
    """uvicorn's Config, from the `receive` of the lifespan; None under another server."""
    config = getattr(getattr(receive, "__self__", None), "config", None)
    return config if all(hasattr(config, name) for name in ("host", "port", "uds", "fd")) else None


def listening(receive: object) -> Listening:
    """Where the server that calls the lifespan with `receive` listens.

    An address that cannot be found out is taken for one that others can reach.
    """
    config = uvicorn_config(receive)
    if config is None:
        return Listening("an address that is not known", local=False)
    if config.fd is not None:
        return Listening(f"the descriptor {config.fd}", local=False)
    if config.uds is not None:
        return Listening(f"the Unix socket {config.uds}", local=True)
    host = config.host or ""
    shown = f"[{host}]" if ":" in host else host or "every address"
    return Listening(f"{shown}:{config.port}", is_local(host), _url(host, config.port))


def _url(host: str, port: int) -> str:
    """By address where that can be: clients of S3 put a bucket's name before any other host's."""
    if not port:  # the system chooses one, after the application has been started
        return ""
    if host in ("", "0.0.0.0", "::", "localhost"):  # all of them lead to this one
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(host: str) -> bool:
    """Whether a name or an address is the loopback interface's and nothing else's."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)} if host else set()
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(one).is_loopback for one in found)
