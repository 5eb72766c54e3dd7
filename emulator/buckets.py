"""moto's S3 with its objects in files: what it would hold in memory stays on the disk.

Imports moto, so it is imported when somebody asks for S3. The classes here take the places of
moto's own; all that is added is where the bytes of an object are, and what outlives the server.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.base_backend import BackendDict
from moto.s3 import models, responses
from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML
from moto.utilities.utils import get_partition

from emulator.address import Home
from emulator.calls import BODY, HOME
from emulator.checksums import KINDS, Checksum, encoded
from emulator.content import Content, Incoming
from emulator.objects import BucketRow, ObjectRow, Objects
from emulator.quirks import Forgetful

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_turn = threading.local()


class FileKey(models.FakeKey):  # type: ignore[misc]
    """An object whose bytes are in a file. `kept` once the index names that file."""

    store: Objects
    kept = False
    disposed: bool
    _content: Content
    _etag: str | None

    @property
    def content(self) -> Content:
        return self._content

    @property
    def value(self) -> Any:
        """The bytes, or where they are, if whoever asks can do with that."""
        return self._content if getattr(_turn, "by_reference", False) else self._content.read()

    @value.setter
    def value(self, new: Content | bytes | str) -> None:
        if isinstance(new, Incoming):
            new.taken = True
            self._content = Content(new.path, new.size, md5=new.md5)
        elif isinstance(new, Content):
            self._content = new.copy(self.store.new_file())
        else:
            raw = new.encode() if isinstance(new, str) else bytes(new)
            path = self.store.new_file()
            path.write_bytes(raw)
            self._content = Content(path, len(raw))
        self.contentsize = self._content.size
        self._value_buffer.close()  # moto's own place for them

    @property
    def etag(self) -> str:
        if self._etag is None:
            self._etag = self._content.digest()
        return f'"{self._etag}"'

    def dispose(self, garbage: bool = False) -> None:
        """Remove the file, unless the index still names it, which then removes it."""
        if not (self.disposed or self.kept or garbage):
            self._content.path.unlink(missing_ok=True)
        self.disposed = True

    def __del__(self) -> None:
        pass


class FileMultipart(models.FakeMultipart):  # type: ignore[misc]
    """An upload in parts, which are put together from file to file."""

    def complete(
        self, body: Iterator[tuple[int, str]]
    ) -> tuple[Content, str, tuple[str, str, int] | None]:
        parts = list(self._named(body))
        if not parts:
            raise MalformedXML
        if any(part.size < models.S3_UPLOAD_PART_MIN_SIZE for part in parts[:-1]):
            raise EntityTooSmall
        etags = hashlib.md5(usedforsecurity=False)
        for part in parts:
            etags.update(bytes.fromhex(part.etag.strip('"')))
        sums = _Sums(self.metadata)
        target = FileKey.store.new_file()
        with target.open("xb") as out:
            for part in parts:
                for piece in part.content.pieces():
                    out.write(piece)
                    sums.update(piece)
                sums.end_part()
        whole = Incoming(target, sum(part.size for part in parts))
        return whole, f"{etags.hexdigest()}-{len(parts)}", sums.result(len(parts))

    def _named(self, body: Iterator[tuple[int, str]]) -> Iterator[FileKey]:
        for number, etag in body:
            part = self.parts.get(number)
            if part is None or part.etag.strip('"') != etag.replace('"', ""):
                raise InvalidPart
            yield part


class _Sums:
    """The checksum of an object that comes in parts: of the whole, or of the parts' checksums."""

    def __init__(self, metadata: Any) -> None:
        self._new = KINDS.get(str(metadata.get("x-amz-checksum-algorithm", "")).lower())
        kind = metadata.get("x-amz-checksum-type") or "COMPOSITE"
        self._kind = str(kind)
        self._whole: Checksum | None = self._new() if self._new else None
        self._part: Checksum | None = self._new() if self._new else None

    def update(self, piece: bytes) -> None:
        target = self._part if self._kind == "COMPOSITE" else self._whole
        if target:
            target.update(piece)

    def end_part(self) -> None:
        if self._kind == "COMPOSITE" and self._whole and self._part and self._new:
            self._whole.update(self._part.digest())
            self._part = self._new()

    def result(self, parts: int) -> tuple[str, str, int] | None:
        if not self._whole:
            return None
        return self._kind, encoded(self._whole), parts if self._kind == "COMPOSITE" else 1


class FileBackend(models.S3Backend):  # type: ignore[misc]
    """The S3 of one account."""

    def copy_object(
        self, src_key: Any, dest_bucket_name: str, dest_key_name: str, *args: Any, **kwargs: Any
    ) -> None:
        with _by_reference():
            super().copy_object(src_key, dest_bucket_name, dest_key_name, *args, **kwargs)
        # moto copies a checksum of checksums and not that it is one; clients find it wrong then.
        new = self.buckets[dest_bucket_name].keys[dest_key_name]
        new.checksum_type, new.checksum_parts = src_key.checksum_type, src_key.checksum_parts

    def upload_part_copy(self, *args: Any, **kwargs: Any) -> Any:
        with _by_reference():
            return super().upload_part_copy(*args, **kwargs)


class Responses(responses.S3Response):  # type: ignore[misc]
    """Answers to requests, for the home that the request is for, whatever its headers say."""

    def setup_class(self, request: Any, full_url: Any = None, headers: Any = None) -> None:
        super().setup_class(request, full_url, headers)
        home: Home = request.environ[HOME]
        self.region, self.current_account = home.region, home.account
        if (body := request.environ.get(BODY)) is not None:
            self.body = body

    def get_object(self) -> Any:
        with _by_reference():
            return super().get_object()


@contextmanager
def _by_reference() -> Iterator[None]:
    _turn.by_reference = True
    try:
        yield
    finally:
        _turn.by_reference = False


class Buckets:
    """All of S3: `answer` for requests, `find` for the loader of models."""

    def __init__(self, store: Objects) -> None:
        self._store = store
        # Files of versions by bucket and key, to see which of them moto has let go of.
        self._versions: dict[str, dict[str, frozenset[Path]]] = {}
        FileKey.store = store
        FileKey.instances_tracked = Forgetful()
        FileMultipart.instances_tracked = Forgetful()
        models.FakeKey, models.FakeMultipart = FileKey, FileMultipart
        models.s3_backends.backend = FileBackend
        models.s3_allow_crossdomain_access = lambda: False
        for row in store.buckets():
            self._restore(row)

    def close(self) -> None:
        self._store.close()

    def answer(self, request: Any, path: str) -> tuple[int, dict[str, Any], Any]:
        """Let moto answer, and keep what has changed. `path` is decoded: /bucket/key."""
        bucket, _, key = path.lstrip("/").partition("/")
        handler = Responses.key_dispatch if key else Responses.ambiguous_dispatch
        if not bucket:
            handler = Responses.bucket_dispatch
        try:
            answer: tuple[int, dict[str, Any], Any] = handler(request, request.raw_url, {})
        finally:
            if request.method in ("PUT", "POST", "DELETE") and bucket:
                home: Home = request.environ[HOME]
                self.keep(home, bucket, key)
        return answer

    def keep(self, home: Home, bucket: str, key: str = "") -> None:
        """Bring a key, or a bucket with all its keys, into the index as moto has it now."""
        found = self._bucket(home, bucket)
        if found is None:
            if self._owned(bucket) is None:
                self._store.delete_bucket(bucket)
                self._versions.pop(bucket, None)
        elif key:
            self._keep_key(found, key)
        else:
            self._store.put_bucket(_bucket_row(self._backend(home), found))
            rows = (row.key for row in self._store.objects(bucket))
            for name in {*found.keys, *rows, *self._versions.get(bucket, ())}:
                self._keep_key(found, name)

    def _keep_key(self, bucket: Any, name: str) -> None:
        key, held = bucket.keys.get(name), _held(bucket, name)
        before = self._versions.get(bucket.name, {}).get(name, frozenset())
        if isinstance(key, FileKey):
            backend = models.s3_backends[bucket.account_id][bucket.partition]
            self._store.put(_object_row(self._store, backend, key), held)
            key.kept = True
        else:  # none, or a mark that it is deleted
            self._store.delete(bucket.name, name, held)
        for path in before - held:
            path.unlink(missing_ok=True)
        if held:
            self._versions.setdefault(bucket.name, {})[name] = held
        elif before:
            del self._versions[bucket.name][name]

    def find(self, home: Home, bucket: str, key: str) -> Content | None:
        """The bytes of an object. Raises KeyError if there is no such bucket in that account."""
        found = self._bucket(home, bucket)
        if found is None:
            raise KeyError(bucket)
        held = found.keys.get(key)
        return held.content if isinstance(held, FileKey) else None

    def etag(self, home: Home, bucket: str, key: str) -> str | None:
        """The ETag of an object, or None."""
        found = self._bucket(home, bucket)
        held = found.keys.get(key) if found else None
        return str(held.etag) if isinstance(held, FileKey) else None

    def keys(self, home: Home, bucket: str, prefix: str) -> list[str]:
        """The keys below a prefix. Raises KeyError if there is no such bucket in that account."""
        found = self._bucket(home, bucket)
        if found is None:
            raise KeyError(bucket)
        return sorted(
            name
            for name in dict(found.keys)
            if name.startswith(prefix) and isinstance(found.keys.get(name), FileKey)
        )

    def put(self, home: Home, bucket: str, key: str, content: Incoming, content_type: str) -> None:
        """Store an object. Raises KeyError if there is no such bucket in that account."""
        if self._bucket(home, bucket) is None:
            raise KeyError(bucket)
        new = self._backend(home).put_object(bucket, key, content)
        new.set_metadata({"Content-Type": content_type})
        self.keep(home, bucket, key)

    def _backend(self, home: Home) -> Any:
        return models.s3_backends[home.account][get_partition(home.region)]

    def _bucket(self, home: Home, name: str) -> Any:
        return self._backend(home).buckets.get(name)

    @staticmethod
    def _owned(bucket: str) -> Any:
        return models.s3_backends.bucket_accounts.get(bucket)

    def _restore(self, row: BucketRow) -> None:
        home = Home(row.account, row.region)
        backend = self._backend(home)
        bucket = models.FakeBucket(row.name, row.account, row.region)
        bucket.creation_date = _instant(row.created_us)
        facts = json.loads(row.facts)
        bucket.versioning_status = facts.get("versioning")
        backend.buckets[row.name] = bucket
        _tag(backend, bucket.arn, facts.get("tags"))
        for one in self._store.objects(row.name):
            bucket.keys.setlist(one.key, [self._restored(one, backend, bucket)])

    def _restored(self, row: ObjectRow, backend: Any, bucket: Any) -> FileKey:
        facts = json.loads(row.facts)
        content = Incoming(self._store.path(row.file), row.size)
        key = FileKey(
            row.key,
            content,
            account_id=bucket.account_id,
            region_name=backend.region_name,
            storage=facts.get("storage"),
            etag=row.etag,
            is_versioned=bucket.is_versioned,
            version_id=facts.get("version", "null"),
            bucket_name=bucket.name,
            **{name: facts[name] for name in _PLAIN if name in facts},
        )
        key.kept = True
        key.last_modified = _instant(row.modified_us).replace(tzinfo=None)
        key.set_metadata(dict(facts.get("metadata", {})))
        key.checksum_algorithm = facts.get("checksum_algorithm")
        key.website_redirect_location = facts.get("redirect")
        _tag(backend, key.arn, facts.get("tags"))
        return key


_PLAIN = (
    "encryption",
    "kms_key_id",
    "bucket_key_enabled",
    "checksum_value",
    "checksum_type",
    "checksum_parts",
)


def _held(bucket: Any, name: str) -> frozenset[Path]:
    """The files of a key's versions; of none where versions are not kept."""
    if not bucket.versioning_status:
        return frozenset()
    versions = bucket.keys.getlist(name, [])
    return frozenset(one.content.path for one in versions if isinstance(one, FileKey))


def _bucket_row(backend: Any, bucket: Any) -> BucketRow:
    facts = {
        "versioning": bucket.versioning_status,
        "tags": backend.tagger.get_tag_dict_for_resource(bucket.arn),
    }
    return BucketRow(
        bucket.name,
        bucket.account_id,
        bucket.region_name,
        _microseconds(bucket.creation_date),
        json.dumps(facts),
    )


def _object_row(store: Objects, backend: Any, key: FileKey) -> ObjectRow:
    facts = {name: getattr(key, name) for name in _PLAIN if getattr(key, name) is not None}
    facts |= {
        "metadata": dict(key.metadata),
        "tags": backend.tagger.get_tag_dict_for_resource(key.arn),
        "storage": key.storage_class,
        "version": key.version_id,
        "checksum_algorithm": key.checksum_algorithm,
        "redirect": key.website_redirect_location,
    }
    return ObjectRow(
        key.bucket_name,
        key.name,
        store.file(key.content.path),
        key.size,
        key.etag.strip('"'),
        _microseconds(key.last_modified.replace(tzinfo=UTC)),
        json.dumps(facts),
    )


def _tag(backend: Any, arn: str, tags: dict[str, str] | None) -> None:
    if tags:
        backend.tagger.tag_resource(arn, [{"Key": k, "Value": v} for k, v in tags.items()])


def _microseconds(instant: datetime) -> int:
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _instant(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def forget() -> None:
    """Let go of everything that moto holds, in all its services; files that are kept stay."""
    BackendDict.reset()
