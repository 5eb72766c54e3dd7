"""Whom an AWS request is for, as its signature says: service, account and region.

AWS tells its regions apart by host name; here all of them are behind one port, and the credential
scope of SigV4 names them. Pure: whether a signature is right is `auth.py`'s to say.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

_CREDENTIAL = re.compile(rb"Credential=([^\s,/]+)/[^\s,/]*/([^\s,/]+)/([^\s,/]+)/aws4_request")
_REGION = re.compile(rb"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")
_ACCOUNT = re.compile(rb"[0-9]{12}")
_KEPT = 1024  # scopes that have been read; there are a handful, unless somebody makes them up


class Home(NamedTuple):
    """Where a resource lives. Those of different homes do not see each other."""

    account: str
    region: str


class Key(NamedTuple):
    """What a resource of a kind is known by."""

    home: Home
    name: str


class Address(NamedTuple):
    """`service` is the signing name, "" for a request that is not signed."""

    service: str
    home: Home


class Addressing:
    """Reads addresses; what is not signed, or not in a way that can be read, is at `default`."""

    def __init__(self, default: Home) -> None:
        self.default = default
        self._unsigned = Address("", default)
        self._known: dict[bytes, Address] = {}

    def of(self, authorization: bytes, query: bytes = b"") -> Address:
        """The address in an Authorization header, or in the query of a presigned URL.

        An access key of 12 digits is the account; any other is the default account's.
        """
        found = _CREDENTIAL.search(authorization) if authorization else None
        if found is None and b"X-Amz-Credential=" in query:
            found = _CREDENTIAL.search(unquote_to_bytes(query).replace(b"&", b" "))
        if found is None:
            return self._unsigned
        address = self._known.get(found[0])
        if address is None:
            address = self._read(*found.groups())
            if len(self._known) < _KEPT:
                self._known[found[0]] = address
        return address

    def _read(self, key_id: bytes, region: bytes, service: bytes) -> Address:
        account = key_id.decode() if _ACCOUNT.fullmatch(key_id) else self.default.account
        named = region.decode("ascii", "replace") if _REGION.fullmatch(region) else ""
        home = Home(account, named or self.default.region)
        return Address(service.decode("ascii", "replace"), home)
