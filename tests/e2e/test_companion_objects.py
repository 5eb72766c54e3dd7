"""Objects of the embedded S3: they outlive a killed server, take no memory, and load models."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from emulator.address import Addressing, Home
from emulator.companion import Companion, place
from emulator.config import read
from emulator.errors import SetupError
from emulator.figures import Figures
from emulator.ledger import Ledger
from emulator.logbook import Logbook
from tests.aws import ACCOUNT, REGION, client, scope_of
from tests.servers import LIGHT, Server, serving, until

MB = 1 << 20
LARGE_MB = 200
GROWTH_MB = 100  # what the server may take for 200 MB; it is some 30, and 60 for ten parts at once
HOME = Home(ACCOUNT, REGION)
BUCKET = "models"


@contextmanager
def growth(server: Server) -> Iterator[Callable[[], float]]:
    """How many MB the server's memory has grown, at most, since the beginning."""
    process, done, most = psutil.Process(server.process.pid), threading.Event(), [0]
    base = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lambda: (most[0] - base) / MB
    finally:
        done.set()
        watching.join()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("objects"), **LIGHT) as running:
        s3 = client(running, "s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield running


def contents(server: Server) -> list[Path]:
    return list((server.state / "objects" / "contents").glob("*/*"))


def test_large_objects_take_no_memory(own: Server) -> None:
    s3 = client(own, "s3")
    large = os.urandom(MB) * LARGE_MB
    with growth(own) as grown:
        s3.put_object(Bucket=BUCKET, Key="large", Body=large)
        s3.put_object(Bucket=BUCKET, Key="chunked", Body=io.BytesIO(large))
        s3.upload_fileobj(io.BytesIO(large), BUCKET, "parts")
        s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/large")
        for key in ("large", "chunked", "parts", "copy"):
            assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == large
        assert grown() < GROWTH_MB
    keys = [{"Key": key} for key in ("large", "chunked", "parts", "copy")]
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    assert contents(own) == []


def test_an_upload_that_is_cut_short_leaves_nothing(own: Server) -> None:
    signed = scope_of("s3")["authorization"]
    head = f"PUT /{BUCKET}/cut HTTP/1.1\r\nHost: localhost\r\nAuthorization: {signed}\r\n"
    with socket.create_connection(("127.0.0.1", own.port)) as connection:
        connection.sendall(f"{head}Content-Length: {9 * MB}\r\n\r\n".encode() + bytes(3 * MB))
        until(lambda: contents(own) != [], "it is on its way")
    until(lambda: contents(own) == [], "no file is left of it")
    with pytest.raises(ClientError):
        client(own, "s3").put_object(Bucket="missing", Key="k", Body=bytes(9 * MB))
    assert contents(own) == []


def test_what_is_replaced_or_deleted_leaves_no_file(own: Server) -> None:
    s3 = client(own, "s3")
    for body in (b"one", b"two", b"three"):
        s3.put_object(Bucket=BUCKET, Key="replaced", Body=body)
    assert [path.read_bytes() for path in contents(own)] == [b"three"]
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="replaced")["UploadId"]
    where = {"Bucket": BUCKET, "Key": "replaced", "UploadId": upload}
    for body in (b"four", b"five"):
        s3.upload_part(**where, PartNumber=1, Body=body)
    assert {path.read_bytes() for path in contents(own)} == {b"three", b"five"}
    s3.abort_multipart_upload(**where)
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/replaced")
    s3.delete_object(Bucket=BUCKET, Key="replaced")
    assert s3.get_object(Bucket=BUCKET, Key="copy")["Body"].read() == b"three"
    s3.delete_object(Bucket=BUCKET, Key="copy")
    assert contents(own) == []


def test_objects_are_back_after_a_kill(own: Server) -> None:
    s3 = client(own, "s3")
    s3.put_object(
        Bucket=BUCKET,
        Key="kept/ä b",
        Body=b"first",
        ContentType="application/gzip",
        ContentEncoding="gzip",
        Metadata={"origin": "here", "with_underscore": "1"},
        Tagging="stage=test",
    )
    s3.put_object(Bucket=BUCKET, Key="gone", Body=b"x")
    s3.put_object(Bucket=BUCKET, Key="kept/changed", Body=b"before")
    s3.put_object(Bucket=BUCKET, Key="kept/changed", Body=b"after")
    s3.upload_fileobj(io.BytesIO(bytes(9 * MB)), BUCKET, "kept/parts")
    s3.delete_object(Bucket=BUCKET, Key="gone")
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    before = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    s3.create_multipart_upload(Bucket=BUCKET, Key="never finished")
    (own.state / "objects" / "contents" / "00").mkdir(exist_ok=True)
    (own.state / "objects" / "contents" / "00" / "never-answered").write_bytes(b"x")

    own.stop(signal.SIGKILL)
    own.start()
    s3 = client(own, "s3")
    assert s3.list_objects_v2(Bucket=BUCKET)["Contents"] == before
    got = s3.get_object(Bucket=BUCKET, Key="kept/ä b")
    assert got["Body"].read() == b"first"
    assert (got["ContentType"], got["ContentEncoding"]) == ("application/gzip", "gzip")
    assert got["Metadata"] == {"origin": "here", "with_underscore": "1"}
    tags = s3.get_object_tagging(Bucket=BUCKET, Key="kept/ä b")["TagSet"]
    assert tags == [{"Key": "stage", "Value": "test"}]
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert s3.get_object(Bucket=BUCKET, Key="kept/changed")["Body"].read() == b"after"
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] == REGION
    assert len(contents(own)) == len(before)
    assert client(own, "s3", "999988887777").list_buckets()["Buckets"] == []


def test_a_damaged_index_is_named(own: Server, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "objects").mkdir(parents=True)
    (folder / "objects" / "index.sqlite").write_bytes(b"no database, but long enough" * 100)
    with serving(tmp_path, **LIGHT) as damaged:
        with pytest.raises(ClientError, match=r"index.sqlite cannot be used .* move the folder"):
            client(damaged, "s3").list_buckets()
        assert client(damaged, "sts").get_caller_identity()["Account"] == ACCOUNT


def run(state: Path, url: str, work: Callable[[Companion], Awaitable[Any]]) -> Any:
    """Do something with a companion in this process."""
    settings = {"EMULATOR_STATE_DIR": str(state)}
    if url:
        settings["EMULATOR_COMPANION_URL"] = url
    config = read(settings, Path("/"))

    async def main() -> Any:
        ledger = Ledger.open(state / "ledger.sqlite")
        figures = Figures(ledger, lambda: 0, 0, lambda *_: None)
        home = Home(config.account, config.region)
        companion = Companion(config, Addressing(home), figures, Logbook(state / "logs"))
        try:
            return await work(companion)
        finally:
            await companion.close()
            ledger.close()

    return asyncio.run(main())


@pytest.fixture(params=["mounted", "forwarded"])
def loader(
    request: pytest.FixtureRequest, own: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Companion], Awaitable[Any]]], Any]:
    """Runs work with a companion that has some objects of a model."""
    s3 = client(own, "s3")
    s3.put_object(Bucket=BUCKET, Key="m/model.tar.gz", Body=b"archive" * MB)
    for name in ("m/tree/", "m/tree/1/saved_model.pb", "m/tree/1/variables/index"):
        s3.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
    if request.param == "forwarded":
        return lambda work: run(tmp_path / "empty", own.url, work)
    # moto changes the environment of its process; here that is the tests'.
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(variable, os.devnull)
    own.stop()
    shutil.copytree(own.state / "objects", tmp_path / "state" / "objects")
    own.start()
    return lambda work: run(tmp_path / "state", "", work)


def test_models_are_fetched(
    loader: Callable[[Callable[[Companion], Awaitable[Any]]], Any], tmp_path: Path
) -> None:
    url, target = f"s3://{BUCKET}/m/model.tar.gz", tmp_path / "model.tar.gz"

    async def work(companion: Companion) -> list[str]:
        await companion.fetch(url, HOME, target, 100 * MB)
        await companion.fetch_prefix(f"s3://{BUCKET}/m/tree/", HOME, tmp_path / "tree", MB)
        stamps = [await companion.stamp(url, HOME)]
        changed = tmp_path / "changed"
        changed.write_bytes(b"changed")
        await companion.put(url, HOME, changed)
        return [*stamps, await companion.stamp(url, HOME)]

    before, after = loader(work)
    assert target.read_bytes() == b"archive" * MB
    assert (tmp_path / "tree/1/variables/index").read_bytes() == b"m/tree/1/variables/index"
    assert len([path for path in (tmp_path / "tree").rglob("*") if path.is_file()]) == 2
    assert before.endswith(f"-{7 * MB}")
    assert after.endswith("-7")


def test_what_cannot_be_fetched_is_named(
    loader: Callable[[Callable[[Companion], Awaitable[Any]]], Any], tmp_path: Path
) -> None:
    there = f"s3://{BUCKET}/m/model.tar.gz"
    cases = {
        f"s3://{BUCKET}/none": r'URL: "s3://models/none" \(there is no object .*\). Please',
        "s3://missing/key": r"there is no bucket missing in account",
        there: r'at URL: "s3://models/m/model.tar.gz" has 7340032 bytes, .*EMULATOR_MODEL_BYTES',
        "ftp://models/key": r'"ftp://models/key" is no address of S3',
        "s3://[models/key": r'"s3://\[models/key" is no address of S3',
    }

    async def work(companion: Companion) -> list[str]:
        said = []
        for number, url in enumerate(cases):
            with pytest.raises(SetupError) as caught:
                await companion.fetch(url, HOME, tmp_path / str(number), MB)
            said.append(str(caught.value))
        with pytest.raises(SetupError, match="no object below this prefix"):
            await companion.fetch_prefix(f"s3://{BUCKET}/none/", HOME, tmp_path / "tree", MB)
        return said

    for text, expected in zip(loader(work), cases.values(), strict=True):
        assert re.search(expected, text), text
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize(
    "keys",
    [("c/a", "c/a/b"), ("c/" + "n" * 300,), ("c/a\0b",)],
    ids=["folder", "long", "null"],
)
def test_names_that_cannot_be_files_are_told(
    loader: Callable[[Callable[[Companion], Awaitable[Any]]], Any],
    tmp_path: Path,
    keys: tuple[str, ...],
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")

    async def work(companion: Companion) -> None:
        for key in keys:
            await companion.put(f"s3://{BUCKET}/{key}", HOME, source)
        with pytest.raises(SetupError, match=r'"s3://models/c/.*" (can|has)') as caught:
            await companion.fetch_prefix(f"s3://{BUCKET}/c/", HOME, tmp_path / "tree", MB)
        assert str(tmp_path) not in str(caught.value)

    loader(work)


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://b/a/c.tar.gz", "b", "a/c.tar.gz"),
        ("s3://b/a?c#d", "b", "a?c#d"),
        ("https://b.s3.eu-west-1.amazonaws.com/a/c%20d", "b", "a/c d"),
        ("https://s3.eu-west-1.amazonaws.com/b/a", "b", "a"),
        ("https://s3.amazonaws.com/b/a", "b", "a"),
    ],
)
def test_addresses_of_s3(url: str, bucket: str, key: str) -> None:
    assert place(url) == (bucket, key)


def test_what_was_answered_is_there_after_a_kill_under_load(own: Server) -> None:
    answered: dict[str, bytes] = {}
    deleted: set[str] = set()
    stop = threading.Event()

    def put(worker: int) -> None:
        s3 = client(own, "s3")
        for number in itertools.count():
            key, body = f"load/{worker}/{number}", os.urandom(2000)
            try:
                s3.put_object(Bucket=BUCKET, Key=key, Body=body)
                answered[key] = body
                s3.put_object(Bucket=BUCKET, Key=f"load/{worker}/same", Body=body)
                if number % 5 == 4:
                    s3.delete_object(Bucket=BUCKET, Key=key)
                    deleted.add(key)
            except (ClientError, BotoCoreError):
                return
            if stop.is_set():
                return

    workers = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    until(lambda: len(answered) > 60, "enough is answered")
    own.stop(signal.SIGKILL)
    stop.set()
    for worker in workers:
        worker.join()
    own.start()
    s3 = client(own, "s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="load/")
    there = {one["Key"] for page in pages for one in page.get("Contents", ())}
    assert not deleted & there
    # A delete that was under way at the kill may have been done.
    under_way = {key for key in answered.keys() - deleted if int(key.split("/")[2]) % 5 == 4}
    assert answered.keys() - deleted - under_way <= there
    for key in there & answered.keys():
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == answered[key]
    assert len(contents(own)) == len(s3.list_objects_v2(Bucket=BUCKET)["Contents"])


def test_versions_stay_as_long_as_they_are_not_deleted(server: Server) -> None:
    s3 = client(server, "s3")
    bucket = "versions-of-objects"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = [
        s3.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"] for body in (b"1", b"2", b"3")
    ]
    s3.delete_object(Bucket=bucket, Key="k")  # a mark, and no version is gone
    for version, body in zip(made, (b"1", b"2", b"3"), strict=True):
        got = s3.get_object(Bucket=bucket, Key="k", VersionId=version)
        assert got["Body"].read() == body
    s3.delete_object(Bucket=bucket, Key="k", VersionId=made[0])
    with pytest.raises(ClientError):
        s3.get_object(Bucket=bucket, Key="k", VersionId=made[0])
    got = s3.get_object(Bucket=bucket, Key="k", VersionId=made[1])
    assert got["Body"].read() == b"2"


def test_the_file_of_a_version_goes_with_it(server: Server) -> None:
    s3 = client(server, "s3")
    bucket = "files-of-versions"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    before = set(contents(server))
    s3.put_object(Bucket=bucket, Key="k", Body=b"0")  # before there are versions
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = ["null"]
    made += [s3.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"] for body in (b"1", b"2")]
    assert len(set(contents(server)) - before) == 3
    s3.delete_object(Bucket=bucket, Key="k", VersionId=made[2])  # the newest
    assert len(set(contents(server)) - before) == 2
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=made[0])  # an older one
    assert len(set(contents(server)) - before) == 1
    mark = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    assert len(set(contents(server)) - before) == 1
    gone = [{"Key": "k", "VersionId": version} for version in (made[1], mark)]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": gone})
    assert not set(contents(server)) - before
    s3.delete_bucket(Bucket=bucket)
