"""A request as moto takes it, and moto's answer as ours: the only place that knows both forms.

moto is imported inside of the functions, by whoever is the first to ask for something.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes
from xml.parsers.expat import ExpatError

from emulator.address import Address
from emulator.content import Content, Incoming, Reader
from emulator.refusals import UNKNOWN, Headers, Refusal

log = logging.getLogger("lukewarm.companion")

S3 = "s3"
HOME, BODY = "lukewarm.home", "lukewarm.body"  # what a request's environ has for us
_HIDDEN = {b"user-agent", b"x-moto-account-id", b"host", b"transfer-encoding", b"expect"}
_OURS = {"date", "server", "connection", "transfer-encoding", "status"}
_HOST = re.compile(rb"(.+?)\.(?:s3[.-].*|s3$|localhost(?::\d+)?$)")


class Request(NamedTuple):
    """A request as the threads get it: the path as sent, S3's bucket always in it."""

    method: str
    raw_path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes | Incoming
    address: Address


@dataclass(slots=True)
class Answer:
    """What a thread hands back. `body` is read while it is sent, if it is a Reader."""

    status: int
    headers: Headers
    body: bytes | Reader = b""


def prepare() -> None:
    """Keep moto from whatever this machine is configured for; before its first import."""
    for name in tuple(os.environ):
        if name.startswith("MOTO_") or name in _CONFUSING:
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


_CONFUSING = {
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "TEST_SERVER_MODE", "TEST_PROXY_MODE"),
    *("INITIAL_NO_AUTH_ACTION_COUNT", "S3_IGNORE_SUBDOMAIN_BUCKETNAME"),
}


def aws_host(request: Request, template: str) -> str:
    return template.format(region=request.address.home.region) + ".amazonaws.com"


def asked(request: Request, host: str) -> Any:
    """moto's form of a request, with our account and region and without what would confuse it."""
    from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY, environ_key_for_header
    from moto.core.request import Request as MotoRequest

    body = b"" if isinstance(request.body, Incoming) else request.body
    headers = {name: value for name, value in request.headers.items() if name not in _HIDDEN}
    headers[b"content-length"] = b"%d" % len(body)
    headers[b"x-moto-account-id"] = request.address.home.account.encode()
    own = request.headers.get(b"host", b"") if request.address.service == "sqs" else b""
    headers[b"host"] = own or aws_host(request, host).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.raw_path).decode("latin-1"),
        "RAW_URI": request.raw_path.decode("latin-1"),
        "QUERY_STRING": request.query.decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http" if own else "https",
        "wsgi.input": io.BytesIO(body),
        HOME: request.address.home,
        BODY: request.body if isinstance(request.body, Incoming) else None,
        PRESERVED_HEADER_NAMES_ENVIRON_KEY: {},
    }
    for raw_name, value in headers.items():
        name = raw_name.decode("latin-1")
        environ[environ_key_for_header(name)] = value.decode("latin-1")
        if "_" in name:
            environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY][environ_key_for_header(name)] = name
    return MotoRequest(environ)


def guarded(handler: Callable[[], Any], s3: bool = False) -> tuple[int, dict[str, Any], Any]:
    """Whatever moto does with a request, as an answer. Raises Refusal for what it cannot do."""
    from werkzeug.exceptions import HTTPException

    try:
        found: tuple[int, dict[str, Any], Any] = handler()
    except Refusal:
        raise
    except HTTPException as error:
        return error.code or 400, dict(error.get_headers()), error.get_body()
    except NotImplementedError as error:
        text = f"{error}.".replace("..", ".") if str(error) else "moto does not have this."
        raise (Refusal("MethodNotAllowed", text, 405) if s3 else Refusal(UNKNOWN, text)) from None
    except (sqlite3.Error, OSError) as error:
        log.error("An answer could not be kept: %s.", error)
        raise Refusal("InternalError", f"The change could not be kept: {error}.", 500) from None
    except ExpatError as error:
        code = "MalformedXML" if s3 else "ValidationError"
        raise Refusal(code, f"The XML you provided was not well-formed: {error}.") from None
    except Exception as error:
        log.warning("A request was not understood: %s: %s.", type(error).__name__, error)
        log.debug("Where:", exc_info=error)
        raise Refusal(
            "InvalidRequest",
            f"The request could not be understood ({type(error).__name__}: {error}).",
        ) from None
    return found


def as_answer(request: Request, status: int, headers: dict[str, Any], body: Any) -> Answer:
    told: dict[bytes, bytes] = {}
    left_out = _OURS if request.method == "HEAD" else _OURS | {"content-length"}
    for name, value in headers.items():
        if name.lower() not in left_out:
            text = re.sub(r"[\r\n\0]", " ", str(value))
            told[name.lower().encode("latin-1", "replace")] = text.encode("latin-1", "replace")
    if isinstance(body, Content):
        try:
            return Answer(int(status), list(told.items()), body.open())
        except OSError as error:
            raise Refusal(
                "InternalError",
                f"The content of this object is gone from the state directory ({error}).",
                500,
            ) from None
    raw = body.encode() if isinstance(body, str) else bytes(body or b"")
    if (
        int(status) >= 400
        and not raw
        and request.method != "HEAD"
        and request.address.service != S3
    ):
        raise unknown(request)
    if request.address.service == "sagemaker" and raw.startswith(b"{"):
        raw = _without_empty_members(raw)
    return Answer(int(status), list(told.items()), b"" if request.method == "HEAD" else raw)


def unknown(request: Request) -> Refusal:
    target = request.headers.get(b"x-amz-target", b"").decode("latin-1")
    asked = target or f"{request.method} {request.raw_path.decode('latin-1')}"
    return Refusal(UNKNOWN, f"There is no operation {asked[:200]!r} here.")


def _without_empty_members(raw: bytes) -> bytes:
    """moto writes `"VpcConfig": {}` where AWS writes nothing, and clients that know types fail."""
    with suppress(ValueError):
        return json.dumps(_pruned(json.loads(raw))).encode()
    return raw


def _pruned(value: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(one) for one in value]
    if isinstance(value, dict):
        return {
            name: _pruned(one)
            for name, one in value.items()
            if not (one == {} and name.endswith("Config"))
        }
    return value


def path_style(host: bytes, raw_path: bytes) -> bytes:
    """The path with the bucket in it, where a client has put that into the host's name."""
    found = _HOST.fullmatch(host)
    return b"/" + found[1] + raw_path if found and not host.startswith(b"s3.") else raw_path


def brings_object(raw_path: bytes, query: bytes, headers: dict[bytes, bytes]) -> bool:
    """Whether the body of this PUT is an object, or a part of one."""
    _, _, key = raw_path.lstrip(b"/").partition(b"/")
    if not key or b"x-amz-copy-source" in headers:
        return False
    names = {pair.partition(b"=")[0].lower() for pair in query.split(b"&")} - {b""}
    return not names & _SUBRESOURCES


_SUBRESOURCES = {b"acl", b"tagging", b"retention", b"legal-hold", b"torrent", b"restore"}
