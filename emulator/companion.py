"""The AWS services around SageMaker (S3, STS, IAM, SNS, CloudWatch, ...): one ASGI callable.

They are answered in this process by moto (`mounted.py`), or by another emulator (`forwarded.py`).
What an S3 address is, and what is said of one that cannot be loaded, is settled here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from emulator.address import Address, Addressing, Home
from emulator.asgi import Receive, Scope, Send, take_in
from emulator.config import Config
from emulator.errors import SetupError
from emulator.figures import Figures
from emulator.forwarded import Forwarded
from emulator.logbook import Logbook
from emulator.mounted import Mounted
from emulator.taking import LARGEST

# Where a request is not signed, its target may still say whom it is for.
_TARGETS = {
    b"AmazonEC2ContainerRegistry_V20150921": "ecr",
    b"AmazonSQS": "sqs",
    b"AmazonSSM": "ssm",
    b"AnyScaleFrontendService": "application-autoscaling",
    b"GraniteServiceVersion20100801": "monitoring",
    b"Logs_20140328": "logs",
    b"ResourceGroupsTaggingAPI_20170126": "tagging",
    b"SageMaker": "sagemaker",
    b"TrentService": "kms",
    b"secretsmanager": "secretsmanager",
}
_OUR_METRICS = re.compile(rb"AWS(/|%2F)SageMaker|(/|%2F)aws(/|%2F)sagemaker(/|%2F)Endpoints")
_VIRTUAL = re.compile(r"(.+)\.s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?")
_PATH = re.compile(r"s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?")


# Signature Version 2, which boto3 still signs S3's addresses with unless it is told otherwise.
_OLDER = re.compile(rb"(?:^|&)AWSAccessKeyId=([^&]+)")
_OLDER_HEADER = re.compile(rb"AWS ([^:\s]+):")
_ACCOUNT = re.compile(rb"[0-9]{12}")


class Companion:
    """Answers what is not for SageMaker itself, and fetches models from S3."""

    def __init__(
        self, config: Config, addressing: Addressing, figures: Figures, book: Logbook
    ) -> None:
        self._addressing = addressing
        self._mounted = Mounted(config.state_dir.resolve() / "objects", figures, book)
        self._behind: Mounted | Forwarded = self._mounted
        if config.companion_url:
            self._behind = Forwarded(config.companion_url, book)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = self._address(scope)
        behind = self._behind
        if address.service == "monitoring" and behind is not self._mounted:
            body = await take_in(receive, LARGEST)
            if body is None:
                return
            if _OUR_METRICS.search(body.kept):  # which another emulator does not have
                behind = self._mounted
            receive = body.again(receive)
        await behind.answer(address, scope, receive, send)

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for another service than SageMaker, as its signature or its target
        says; one that says neither is not."""
        headers = dict(scope["headers"])
        if target := headers.get(b"x-amz-target", b""):
            return not target.startswith(b"SageMaker.")
        authorization, query = headers.get(b"authorization", b""), scope["query_string"]
        service = self._addressing.of(authorization, query).service
        return service not in ("", "sagemaker") or bool(_older_key(authorization, query))

    async def reset(self) -> None:
        """Forget everything that is kept here; what another emulator has stays."""
        await self._mounted.reset()

    async def close(self) -> None:
        """End what is under way; to be called once."""
        await self._mounted.close()
        if self._behind is not self._mounted:
            await self._behind.close()

    def _address(self, scope: Scope) -> Address:
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization", b"")
        address = self._addressing.of(authorization, scope["query_string"])
        if address.service:
            return address
        if older := _older_key(authorization, scope["query_string"]):
            home = address.home
            account = older.decode() if _ACCOUNT.fullmatch(older) else home.account
            return Address("s3", Home(account, home.region))
        target = headers.get(b"x-amz-target", b"")
        if target:
            prefix = target.partition(b".")[0]
            service = _TARGETS.get(prefix, prefix.decode("latin-1"))
        elif scope["path"].startswith("/service/GraniteServiceVersion20100801/"):
            service = "monitoring"
        elif headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
            service = "sts" if scope["path"] == "/" else "s3"
        else:
            service = "s3"
        return Address(service, address.home)

    # -- models -------------------------------------------------------------------------------

    async def fetch(self, url: str, home: Home, target: Path, limit_bytes: int) -> None:
        """Copy the object at `url` (s3:// or https://) to a new file.

        Raises SetupError with a sentence that says what is missing, in the words of AWS's
        FailureReason, or that the object is too large; no file is left then.
        """
        bucket, key = place(url)
        opened = await self._opened(url, home, bucket, key)
        await asyncio.to_thread(_copy, url, opened[0], target, limit_bytes)

    async def stamp(self, url: str, home: Home) -> str:
        """What tells whether a copy is current: ETag and size. Raises SetupError, as `fetch`."""
        bucket, key = place(url)
        reader, etag = await self._opened(url, home, bucket, key)
        size = reader.left
        await asyncio.to_thread(reader.close)
        return f"{etag.strip(chr(34))}-{size}"

    async def listed(self, url: str, home: Home) -> list[str]:
        """The keys below the prefix at `url`, as they follow it. Raises SetupError if none is."""
        bucket, prefix = place(url)
        try:
            keys = await self._behind.keys(home, bucket, prefix)
        except KeyError:
            raise _missing(url, f"there is no bucket {bucket} in account {home.account}") from None
        below = [key.removeprefix(prefix) for key in keys if key != prefix]
        if not below:
            raise _missing(url, "there is no object below this prefix")
        return below

    async def keys(self, url: str, home: Home) -> list[str]:
        """All keys that begin as the one at `url` does, that one included. Raises SetupError if
        there is no such bucket."""
        bucket, prefix = place(url)
        try:
            return list(await self._behind.keys(home, bucket, prefix))
        except KeyError:
            raise SetupError(f"There is no bucket {bucket} in account {home.account}.") from None

    async def fetch_prefix(self, url: str, home: Home, target: Path, limit_bytes: int) -> None:
        """Copy every object below the prefix at `url` into the new folder `target`.

        Raises SetupError, as `fetch` does, and for names that would lead out of the folder.
        """
        base = url if url.endswith("/") else url + "/"
        target.mkdir(parents=True)
        await self.fetch_each(base, await self.listed(base, home), home, target, limit_bytes)

    async def fetch_each(
        self, base: str, names: Iterable[str], home: Home, target: Path, limit_bytes: int
    ) -> None:
        """Copy the objects whose addresses are `base` and one of the names to these names below
        the folder `target`. Raises SetupError, as `fetch_prefix`."""
        left = limit_bytes
        for name in names:
            if name.endswith("/"):  # consoles make such objects to show a folder
                continue
            path = target / name
            if name.startswith("/") or "\0" in name or {"", ".", ".."} & set(name.split("/")):
                raise SetupError(
                    f'The object "{base}{name}" has a name that is no path of a file: rename it.'
                )
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                await self.fetch(base + name, home, path, left)
            except OSError as error:  # another object's name is its folder, or it is too long
                raise SetupError(
                    f'The object "{base}{name}" cannot be a file ({error.strerror}): rename it.'
                ) from None
            left -= path.stat().st_size

    async def put(
        self, url: str, home: Home, source: Path, content_type: str = "binary/octet-stream"
    ) -> None:
        """Store a copy of a file at `url`. Raises SetupError if its bucket is not there."""
        bucket, key = place(url)
        try:
            await self._behind.put(home, bucket, key, source, content_type)
        except KeyError:
            raise SetupError(
                f'The object "{url}" cannot be stored: there is no bucket {bucket} in account '
                f"{home.account}."
            ) from None

    async def _opened(self, url: str, home: Home, bucket: str, key: str) -> tuple[Any, str]:
        try:
            found = await self._behind.open(home, bucket, key)
        except KeyError:
            raise _missing(url, f"there is no bucket {bucket} in account {home.account}") from None
        except OSError as error:
            raise _missing(url, f"its content cannot be read, {error}") from None
        if found is None:
            raise _missing(url, f"there is no object of this key in the bucket {bucket}")
        return found


def place(url: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key, or of an https:// address of S3. Raises SetupError."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket that opens no address
        parts = urlsplit("")
    host = parts.hostname or ""
    path = parts.path.removeprefix("/")
    if parts.scheme == "s3" and parts.netloc:
        return parts.netloc, url.removeprefix(f"s3://{parts.netloc}").removeprefix("/")
    if parts.scheme in ("http", "https"):
        path = unquote(path)
        if found := _VIRTUAL.fullmatch(host):
            return found[1], path
        bucket, _, key = path.partition("/")
        if _PATH.fullmatch(host) and bucket:
            return bucket, key
    raise SetupError(f'"{url}" is no address of S3: it has the form s3://bucket/key.')


def _older_key(authorization: bytes, query: bytes) -> bytes:
    """The access key of a request that is signed the older way, which only S3 still takes."""
    found = _OLDER_HEADER.match(authorization) or _OLDER.search(query)
    return next(filter(None, found.groups()), b"") if found else b""


def _missing(url: str, reason: str) -> SetupError:
    return SetupError(
        f'Failed to download model data from URL: "{url}" ({reason}). Please ensure that there is '
        "an object located at the URL."
    )


def _copy(url: str, reader: Any, target: Path, limit_bytes: int) -> None:
    try:
        if reader.left > limit_bytes:
            raise SetupError(
                f'The model data at URL: "{url}" has {reader.left} bytes, which is more than the '
                f"limit of {limit_bytes} bytes (EMULATOR_MODEL_BYTES)."
            )
        try:
            with target.open("xb") as out:
                while piece := reader.piece():
                    out.write(piece)
            if reader.left:
                raise OSError(f"{reader.left} bytes of it did not come")
        except OSError as error:
            target.unlink(missing_ok=True)
            reason = error.strerror or error
            raise SetupError(
                f'The model data at URL: "{url}" cannot be copied: {reason}.'
            ) from None
    finally:
        reader.close()
