"""AWS Signature Version 4 as the service checks it: from a request's parts to a verdict.

Pure: it is given the time, opens nothing and knows no framework; botocore's signer is what the
tests hold it to. Sentences and the order of the checks are those of captured replies:
docs/fidelity.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from emulator.errors import (
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
)

Headers = Sequence[tuple[bytes, bytes]]

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
SKEW_MIN = 5

S3 = "s3"
SCOPES_KEPT = 256

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d{1,2}", re.ASCII)
_STAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_REQUIRED = ("Credential", "Signature", "SignedHeaders")


@dataclass(frozen=True, slots=True)
class Keys:
    """One pair of access keys. The secret is in no `repr`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an Authorization header says: who signed what, when, with which result."""

    stamp: str  # 20260131T235959Z
    service: str
    scope: str  # 20260131/eu-west-3/sagemaker/aws4_request
    signed_headers: tuple[bytes, ...]
    signature: str


class Verifier:
    """Checks requests that are signed with one pair of keys, for any region and for `service`, or
    for whichever where that is empty."""

    def __init__(self, keys: Keys, service: str = "sagemaker") -> None:
        self._keys, self._service = keys, service
        self._signing: dict[str, bytes] = {}  # key by scope

    def admit(self, headers: Headers, now: float) -> Claim:
        """What the headers claim, if it can be true so far: the signature is not looked at.

        Header names in lower case; `now` in seconds since 1970. Raises SignatureError. A caller
        need not take in a body before this has returned.
        """
        named = dict(headers)
        header = named.get(b"authorization", b"").decode("latin-1").strip()
        if not header:
            raise MissingAuthenticationTokenException("Missing Authentication Token")
        algorithm, _, rest = header.partition(" ")
        parameters = _parameters(header, rest)
        date = named.get(b"x-amz-date") or named.get(b"date") or b""
        stamp = date.decode("latin-1").strip()
        _check_complete(header, parameters, stamp)
        _check_time(stamp, now)
        signed = parameters["SignedHeaders"].encode("latin-1").lower().split(b";")
        if b"host" not in signed:
            raise InvalidSignatureException(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
            )
        if algorithm != ALGORITHM:
            raise IncompleteSignatureException(
                f"Unsupported AWS 'algorithm': '{algorithm}' (only {ALGORITHM} for now). "
            )
        scope = self._check_credential(parameters["Credential"], stamp)
        service = scope.split("/")[2]
        return Claim(stamp, service, scope, tuple(sorted(set(signed))), parameters["Signature"])

    def check(
        self, claim: Claim, method: str, path: bytes, query: bytes, headers: Headers, payload: str
    ) -> None:
        """Compare the claim with what came: path and query as sent, `payload` the body's SHA-256.

        The payload's hash is that of the bytes that came, so a body cannot be exempted from the
        signature, except where S3 has it so. Raises InvalidSignatureException.
        """
        if claim.service != S3:
            path = canonical_path(path)
        request = canonical_request(method, path, query, headers, claim.signed_headers, payload)
        digest = hashlib.sha256(request).hexdigest()
        text = f"{ALGORITHM}\n{claim.stamp}\n{claim.scope}\n{digest}"
        due = hmac.digest(self._key(claim.scope), text.encode(), "sha256").hex()
        if not hmac.compare_digest(due.encode(), claim.signature.encode("latin-1")):
            raise InvalidSignatureException(
                "The request signature we calculated does not match the signature you provided."
                " Check your AWS Secret Access Key and signing method. Consult the service"
                " documentation for details."
            )

    def _check_credential(self, credential: str, stamp: str) -> str:
        parts = credential.split("/")
        if len(parts) != 5:
            raise IncompleteSignatureException(
                "Credential must have exactly 5 slash-delimited elements, e.g. "
                f"keyid/date/region/service/term, got '{credential}'"
            )
        key_id, *scope = parts
        if wrong := _wrong_scope(scope, self._service, stamp):
            raise InvalidSignatureException(wrong)
        if key_id != self._keys.access_key_id:
            raise UnrecognizedClientException(
                "The security token included in the request is invalid."
            )
        return "/".join(scope)

    def _key(self, scope: str) -> bytes:
        """The signing key of a scope: a day, a region, a service. Kept, since nearly all requests
        have one of a few scopes."""
        if scope not in self._signing:
            key = f"AWS4{self._keys.secret_access_key}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            if len(self._signing) >= SCOPES_KEPT:
                self._signing.clear()
            self._signing[scope] = key
        return self._signing[scope]


def canonical_request(
    method: str,
    path: bytes,
    query: bytes,
    headers: Headers,
    signed: Iterable[bytes],
    payload: str,
) -> bytes:
    """The one form of a request that both sides sign. `path` is canonical, `signed` is sorted; a
    header that is not there is empty, one that is there several times is joined."""
    values: dict[bytes, list[bytes]] = {name: [] for name in signed}
    for name, value in headers:
        if name in values:
            values[name].append(b" ".join(value.split()))
    lines = [method.encode(), path, canonical_query(query)]
    lines += [name + b":" + b",".join(found) for name, found in values.items()]
    lines += [b"", b";".join(values), payload.encode()]
    return b"\n".join(lines)


def canonical_path(path: bytes) -> bytes:
    """The path as sent without dots and doubled slashes, and escaped once more, as AWS has it for
    every service but S3."""
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    end = b"/" if segments and path.endswith(b"/") else b""
    return quote(b"/" + b"/".join(segments) + end, safe="/~").encode()


def canonical_query(query: bytes) -> bytes:
    """The query's pairs in order, escaped as they were sent."""
    if not query:
        return b""
    pairs = sorted(tuple(pair.partition(b"=")[::2]) for pair in query.split(b"&"))
    return b"&".join(b"=".join(pair) for pair in pairs)


def _parameters(header: str, rest: str) -> dict[str, str]:
    parameters = {}
    for word in re.split(r"[,\s]+", rest):
        name, equals, value = word.partition("=")
        if word and not equals:
            raise IncompleteSignatureException(
                "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with "
                f"SHA-256 and encoded with Base64): '{_hashed(header)}'."
            )
        parameters[name] = value
    return parameters


def _check_complete(header: str, parameters: dict[str, str], stamp: str) -> None:
    missing = "".join(
        f"Authorization header requires '{name}' parameter. "
        for name in _REQUIRED
        if not parameters.get(name)
    )
    if not stamp:
        missing += (
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        )
    if missing:
        raise IncompleteSignatureException(
            f"{missing}(Hashed with SHA-256 and encoded with Base64) "
            f"Authorization={_hashed(header)}"
        )


def _check_time(stamp: str, now: float) -> None:
    try:
        if not _STAMP.fullmatch(stamp):
            raise ValueError
        signed_at = datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        raise IncompleteSignatureException(
            f"Date must be in ISO-8601 'basic format'. Got '{stamp}'. "
            "See http://en.wikipedia.org/wiki/ISO_8601"
        ) from None
    earliest, latest = now - SKEW_MIN * 60, now + SKEW_MIN * 60
    if signed_at < earliest:
        raise InvalidSignatureException(
            f"Signature expired: {stamp} is now earlier than {_stamp(earliest)} "
            f"({_stamp(now)} - {SKEW_MIN} min.)"
        )
    if signed_at > latest:
        raise InvalidSignatureException(
            f"Signature not yet current: {stamp} is still later than {_stamp(latest)} "
            f"({_stamp(now)} + {SKEW_MIN} min.)"
        )


def _wrong_scope(scope: list[str], wanted: str, stamp: str) -> str:
    """All that is wrong with a scope, a sentence each; AWS leaves a space behind every one."""
    day, named_region, service, terminator = scope
    wrong = ""
    if not _REGION.fullmatch(named_region):
        wrong += f"Credential should be scoped to a valid region, not '{named_region}'. "
    if wanted and service != wanted:
        wrong += f"Credential should be scoped to correct service: '{wanted}'. "
    if terminator != TERMINATOR:
        wrong += (
            f"Credential should be scoped with a valid terminator: '{TERMINATOR}', not "
            f"'{terminator}'. "
        )
    if day != stamp[:8]:
        wrong += (
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
            f"HTTP: '{day}' != '{stamp[:8]}', from '{stamp}'. "
        )
    return wrong


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def _hashed(header: str) -> str:
    """What stands for an Authorization header in a message, so that no secret is repeated."""
    return base64.b64encode(hashlib.sha256(header.encode("latin-1")).digest()).decode()
