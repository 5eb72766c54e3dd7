"""Where a request comes from, as its headers tell: what browsers say, and what a name can hide.

A browser on this machine reaches 127.0.0.1, too, whoever wrote the page that it shows. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from emulator.errors import ForeignRequest

Headers = Mapping[bytes, bytes]

# Under these nobody can have a name of their own lead here: AWS's clients call buckets so.
OWNED = (".localhost", ".amazonaws.com")
SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing


def cookie(headers: Headers, wanted: bytes) -> bytes:
    """The value of a cookie; empty if there is none."""
    for part in headers.get(b"cookie", b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == wanted:
            return value
    return b""


def check_page(headers: Headers, method: str) -> None:
    """That a request which changes something comes from a page of ours or from no browser.

    Browsers tell `Sec-Fetch-Site` to localhost and over TLS, and `Origin` everywhere. Raises
    ForeignRequest.
    """
    if method in SAFE:
        return
    page = headers.get(b"origin", b"")
    site = headers.get(b"sec-fetch-site")
    if site is None:
        own = not page or page.partition(b"://")[2] == headers.get(b"host")
    else:
        own = site in (b"same-origin", b"none")
    if not own:
        raise ForeignRequest(
            f"A page of {page.decode('latin-1') or 'another site'} asks for this; only the "
            "server's own pages and clients that are no browser may change something."
        )


def check_host(headers: Headers, hosts: frozenset[str]) -> None:
    """That the server is called by an address or one of `hosts`: any other name can be made to
    lead here by who owns it. Raises ForeignRequest."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    name = re.sub(r":\d*$", "", host)
    if "*" in hosts or name in hosts or name.endswith(OWNED) or _plain(_address(name)):
        return
    raise ForeignRequest(
        f"The request is addressed to {name!r}; while there is no authentication, call the server "
        "localhost or by its address, or add the name to EMULATOR_HOSTS."
    )


def check_reached(server: tuple[str, int | None] | None) -> None:
    """That a server which was started for this machine only was not reached in another way.

    Not every program tells the truth of where it listens: gunicorn opens uvicorn's sockets itself.
    Raises ForeignRequest.
    """
    host, port = server or ("", None)
    address = _address(host)
    if port is not None and address is not None and not address.is_loopback:
        raise ForeignRequest(
            f"The server was reached at {host}, which other machines can reach, too; set "
            "EMULATOR_AUTH to sigv4, or to off if that is meant."
        )


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    """Not 0.0.0.0 or an IPv4 address inside IPv6: they lead here, too, but to these browsers do not
    say of which site the page is that reads something."""
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    return address is not None and not (address.is_unspecified or mapped)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None
