"""Signatures: what botocore signs is accepted, and nothing else; the sentences are AWS's."""

from __future__ import annotations

import base64
import hashlib
import re
import string
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SIGNED_HEADERS_BLACKLIST
from hypothesis import given
from hypothesis import strategies as st

from emulator.auth import Keys, Verifier
from emulator.errors import (
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    SignatureError,
    UnrecognizedClientException,
)
from tests.signing import KEYS, Wired, signed


def verify(wired: Wired, now: float | None = None, verifier: Verifier | None = None) -> None:
    """What the server does with a request, its clock right unless `now` says otherwise."""
    verifier = verifier or Verifier(KEYS)
    claim = verifier.admit(wired.headers, wired.signed_at() if now is None else now)
    payload = hashlib.sha256(wired.body).hexdigest()
    verifier.check(claim, wired.method, wired.path, wired.query, wired.headers, payload)


def refusal(wired: Wired, now: float | None = None) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        verify(wired, now)
    assert KEYS.secret_access_key not in str(caught.value)
    return caught.value


# -- against botocore ---------------------------------------------------------------------------

TOKEN_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_"
segments = st.one_of(st.sampled_from(["", ".", "..", "endpoints", "invocations"]), st.text())
paths = st.lists(segments, min_size=1, max_size=5).map(
    lambda found: "/" + "/".join(quote(one, safe="~!$'()*,;:@") for one in found)
)
words = st.text(max_size=8).map(lambda word: quote(word, safe="~"))
queries = st.lists(st.tuples(words, st.none() | words), max_size=4).map(
    lambda pairs: "&".join(name if value is None else f"{name}={value}" for name, value in pairs)
)
header_names = (
    st.text(TOKEN_CHARACTERS, min_size=1, max_size=12)
    .map(lambda name: f"x-{name}")
    .filter(lambda name: name not in (*SIGNED_HEADERS_BLACKLIST, "x-amz-date"))
    .filter(lambda name: not name.startswith("x-amz-"))
)
header_values = st.text(
    st.characters(min_codepoint=32, max_codepoint=126) | st.just("\t") | st.just("é"), max_size=20
)
requests = st.builds(
    signed,
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=paths,
    query=queries,
    headers=st.lists(st.tuples(header_names, header_values), max_size=4).map(tuple),
    body=st.binary(max_size=200),
    session=st.none() | st.just("a/session+token=="),
)


@given(requests)
def test_what_botocore_signs_is_accepted(wired: Wired) -> None:
    verify(wired)


KINDS = (string.digits.encode(), string.ascii_lowercase.encode(), string.ascii_uppercase.encode())


def changed(data: st.DataObject, text: bytes) -> bytes:
    """The same with one letter or digit another one: these mean something wherever they stand."""
    at = data.draw(st.sampled_from(telling(text)))
    kind = next(kind for kind in KINDS if text[at] in kind)
    other = data.draw(st.sampled_from([one for one in kind if one != text[at]]))
    return text[:at] + bytes([other]) + text[at + 1 :]


def telling(text: bytes) -> list[int]:
    return [at for at, byte in enumerate(text) if any(byte in kind for kind in KINDS)]


def another_body(data: st.DataObject, body: bytes) -> bytes:
    """The body with any one byte another one, or one byte longer."""
    at = data.draw(st.integers(0, len(body)))
    step = data.draw(st.integers(1, 255))
    last = bytes([(body[at] + step) % 256]) + body[at + 1 :] if at < len(body) else bytes([step])
    return body[:at] + last


def tampered(wired: Wired, data: st.DataObject) -> Wired:
    """The request with one byte of one of its parts changed."""
    parts: list[str | int] = ["body"]
    parts += [at for at, (_, value) in enumerate(wired.headers) if telling(value)]
    parts += ["query"] if telling(wired.query) else []
    if telling(wired.path) and b"/.." not in wired.path:  # dots take away what stands before them
        parts.append("path")
    part = data.draw(st.sampled_from(parts))
    if part == "body":
        return replace(wired, body=another_body(data, wired.body))
    if part == "path":
        return replace(wired, path=changed(data, wired.path))
    if part == "query":
        return replace(wired, query=changed(data, wired.query))
    assert isinstance(part, int)
    headers = list(wired.headers)
    headers[part] = (headers[part][0], changed(data, headers[part][1]))
    return replace(wired, headers=tuple(headers))


@given(requests, st.data())
def test_one_changed_byte_is_refused(wired: Wired, data: st.DataObject) -> None:
    now = wired.signed_at()
    with pytest.raises(SignatureError):
        verify(tampered(wired, data), now)


@given(requests, st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
def test_another_method_is_refused(wired: Wired, method: str) -> None:
    if method != wired.method:
        assert isinstance(refusal(replace(wired, method=method)), InvalidSignatureException)


VECTORS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (
        {"method": "GET", "path": "/", "headers": (), "body": b""},
        "ddaacce2ed29951c8b5f7c156599124943c9b715dfa72296af19e38ecd39aab4",
    ),
    "an invocation": ({}, "146443172f66f3d070a21c6637fa439d22cb79bf50d29841a8d7b8afffe424b6"),
    "dots and slashes": (
        {"path": "//a/./b/../c//"},
        "c51faf79e2cb8685fa9528af0320f4213a2db7f228cdbdbf554d583f0cc78e3b",
    ),
    "escapes": (
        {"path": "/caf%C3%A9/a%2Fb/%7Ec~"},
        "7ffaa31bd03f39c41ff4d1ebfde72df2ae48fcf6ab47be471dfd2ba215f1b9ae",
    ),
    "query out of order": (
        {"query": "b=2&a=2&a=1&flag&c=%20"},
        "e730ebfe339bdef48ed1f49c2ca2dc5d14364e136037d67982910ccacc0d408d",
    ),
    "spaces in a header": (
        {"headers": (("X-Words", "  one   two\t three "),)},
        "f5f1546677ff706d80beeedab7000dafd51514e053cdddb3bbc495fccf6c6700",
    ),
    "a header twice": (
        {"headers": (("X-Word", "two"), ("X-Word", "one"))},
        "109937769093ee7e3ca88a3cd1a58bdeccc419c9f90179b03eb294713317ad31",
    ),
    "a session token": (
        {"session": "a/session+token=="},
        "7efe025264934db8f87520b7be048485a05ed2a84512938190612e15dd4d9013",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    """Signatures that botocore 1.44 has given once, whatever a later one gives."""
    given, signature = VECTORS[name]
    wired = signed(**given, at="20260131T235959Z")
    assert wired.header(b"authorization").decode().endswith(f"Signature={signature}")
    verify(wired)


# -- AWS's sentences ------------------------------------------------------------------------------


def test_not_signed_at_all() -> None:
    error = refusal(signed().without(b"authorization"), 0)
    assert isinstance(error, MissingAuthenticationTokenException)
    assert str(error) == "Missing Authentication Token"
    assert error.status == 403


def test_an_authorization_of_another_kind() -> None:
    error = refusal(signed().having(b"authorization", b"Bearer abc"), 0)
    assert isinstance(error, IncompleteSignatureException)
    hashed = base64.b64encode(hashlib.sha256(b"Bearer abc").digest()).decode()
    assert str(error) == (
        "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 "
        f"and encoded with Base64): '{hashed}'."
    )


@pytest.mark.parametrize("name", ["Credential", "SignedHeaders", "Signature"])
def test_a_parameter_is_missing(name: str) -> None:
    wired = signed()
    header = re.sub(rf"{name}=[^,]*", f"{name}=", wired.header(b"authorization").decode())
    error = refusal(wired.having(b"authorization", header.encode()))
    assert isinstance(error, IncompleteSignatureException)
    assert str(error).startswith(f"Authorization header requires '{name}' parameter. (Hashed with")


def test_no_date() -> None:
    error = refusal(signed().without(b"x-amz-date"), 0)
    assert isinstance(error, IncompleteSignatureException)
    assert "requires existence of either a 'X-Amz-Date' or a 'Date' header. " in str(error)


@pytest.mark.parametrize("date", ["yesterday", "20241301T000000Z", "20240101T000000"])
def test_a_date_of_another_form(date: str) -> None:
    error = refusal(signed().having(b"x-amz-date", date.encode()), 0)
    assert isinstance(error, IncompleteSignatureException)
    assert str(error).startswith(f"Date must be in ISO-8601 'basic format'. Got '{date}'. See ")


@pytest.mark.parametrize("seconds", [-300, -299, 0, 299, 300])
def test_five_minutes_are_allowed(seconds: float) -> None:
    wired = signed()
    verify(wired, wired.signed_at() + seconds)


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def test_an_old_signature() -> None:
    wired = signed()
    now = wired.signed_at() + 301
    error = refusal(wired, now)
    assert isinstance(error, InvalidSignatureException)
    assert str(error) == (
        f"Signature expired: {stamp(now - 301)} is now earlier than {stamp(now - 300)} "
        f"({stamp(now)} - 5 min.)"
    )


def test_a_signature_of_the_future() -> None:
    wired = signed()
    now = wired.signed_at() - 301
    error = refusal(wired, now)
    assert isinstance(error, InvalidSignatureException)
    assert str(error) == (
        f"Signature not yet current: {stamp(now + 301)} is still later than {stamp(now + 300)} "
        f"({stamp(now)} + 5 min.)"
    )


def with_authorization(wired: Wired, change: Callable[[str], str]) -> Wired:
    header = change(wired.header(b"authorization").decode())
    return wired.having(b"authorization", header.encode())


def test_the_host_has_to_be_signed() -> None:
    wired = with_authorization(signed(), lambda header: header.replace(";host", ""))
    error = refusal(wired)
    assert isinstance(error, InvalidSignatureException)
    assert str(error) == (
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
    )


def test_another_algorithm() -> None:
    wired = with_authorization(signed(), lambda header: header.replace("SHA256", "SHA1"))
    error = refusal(wired)
    assert isinstance(error, IncompleteSignatureException)
    assert str(error).startswith("Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1'")


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "ap-southeast-4"])
def test_every_region_is_here(region: str) -> None:
    verify(signed(region=region))


def test_who_answers_for_every_service_takes_every_service() -> None:
    verify(signed(service="monitoring"), verifier=Verifier(KEYS, ""))


def test_a_credential_with_another_number_of_parts() -> None:
    error = refusal(signed(keys=Keys("a/b", KEYS.secret_access_key)))
    assert isinstance(error, IncompleteSignatureException)
    assert str(error).startswith("Credential must have exactly 5 slash-delimited elements, e.g. ")
    assert "got 'a/b/" in str(error)


@pytest.mark.parametrize(
    ("wired", "said"),
    [
        (
            signed(region="mars"),
            "Credential should be scoped to a valid region, not 'mars'. ",
        ),
        (
            signed(service="s3"),
            "Credential should be scoped to correct service: 'sagemaker'. ",
        ),
        (
            signed(region="mars", service="s3"),
            "Credential should be scoped to a valid region, not 'mars'. "
            "Credential should be scoped to correct service: 'sagemaker'. ",
        ),
        (
            with_authorization(signed(), lambda one: one.replace("aws4_request", "aws5_request")),
            "Credential should be scoped with a valid terminator: 'aws4_request', not "
            "'aws5_request'. ",
        ),
    ],
    ids=["region", "service", "both", "terminator"],
)
def test_another_scope(wired: Wired, said: str) -> None:
    error = refusal(wired)
    assert isinstance(error, InvalidSignatureException)
    assert str(error) == said


def test_a_scope_of_another_day() -> None:
    wired = with_authorization(signed(), lambda one: re.sub(r"/\d{8}/", "/20010101/", one))
    error = refusal(wired)
    date = wired.header(b"x-amz-date").decode()
    assert str(error) == (
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
        f" '20010101' != '{date[:8]}', from '{date}'. "
    )


def test_another_key() -> None:
    error = refusal(signed(keys=Keys("LKWMOTHER", KEYS.secret_access_key)))
    assert isinstance(error, UnrecognizedClientException)
    assert str(error) == "The security token included in the request is invalid."


def test_another_secret() -> None:
    error = refusal(signed(keys=Keys(KEYS.access_key_id, "x" + KEYS.secret_access_key)))
    assert isinstance(error, InvalidSignatureException)
    assert str(error) == (
        "The request signature we calculated does not match the signature you provided. Check "
        "your AWS Secret Access Key and signing method. Consult the service documentation for "
        "details."
    )


def test_a_body_cannot_be_exempted_from_the_signature() -> None:
    wired = signed(headers=(("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD"),))
    assert isinstance(refusal(wired), InvalidSignatureException)


def test_a_body_hash_in_a_header_has_to_be_the_bodys() -> None:
    right, wrong = (hashlib.sha256(body).hexdigest() for body in (b"{}", b"{} "))
    verify(signed(headers=(("X-Amz-Content-SHA256", right),)))
    assert isinstance(
        refusal(signed(headers=(("X-Amz-Content-SHA256", wrong),))), InvalidSignatureException
    )


def test_one_verifier_goes_through_midnight() -> None:
    """The signing key is kept for a day; the next day has another."""
    verifier = Verifier(KEYS)
    for at in ("20260131T235959Z", "20260201T000000Z", "20260131T235959Z"):
        verify(signed(at=at), verifier=verifier)


def test_the_secret_is_in_no_representation() -> None:
    assert KEYS.secret_access_key not in repr(KEYS)
    assert KEYS.secret_access_key not in repr(Verifier(KEYS))
