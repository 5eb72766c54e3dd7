"""Requests that botocore's signer has signed, as a server gets them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.auth import Keys

KEYS = Keys("LKWMEXAMPLE", "an/example+secret-of/forty-characters-0")
REGION = "eu-west-3"
HOST = "localhost:8000"


@dataclass(frozen=True)
class Wired:
    """A request as a server gets it."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: bytes) -> bytes:
        return dict(self.headers)[name]

    def without(self, name: bytes) -> Wired:
        return replace(self, headers=tuple(one for one in self.headers if one[0] != name))

    def having(self, name: bytes, value: bytes) -> Wired:
        return replace(self, headers=(*self.without(name).headers, (name, value)))

    def signed_at(self) -> float:
        return datetime.fromisoformat(self.header(b"x-amz-date").decode()).timestamp()


def signed(
    method: str = "POST",
    path: str = "/endpoints/clothes/invocations",
    query: str = "",
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),),
    body: bytes = b"{}",
    keys: Keys = KEYS,
    region: str = REGION,
    service: str = "sagemaker",
    session: str | None = None,
    at: str | None = None,
    host: str = HOST,
) -> Wired:
    """The request, signed by botocore now, or `at` another time."""
    url = f"http://{host}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, data=body)
    for name, value in headers:
        request.headers.add_header(name, value)
    credentials = Credentials(keys.access_key_id, keys.secret_access_key, session)
    signer = SigV4Auth(credentials, service, region)
    if at is None:
        signer.add_auth(request)
    else:  # the steps of add_auth
        request.context["timestamp"] = at
        signer._modify_request_before_signing(request)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))
    sent = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    parts = urlsplit(url)
    sent.append((b"host", host.encode()))
    return Wired(method, parts.path.encode(), parts.query.encode(), tuple(sent), body)
