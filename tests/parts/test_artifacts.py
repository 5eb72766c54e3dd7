"""Archives are somebody else's: what comes out of one, and what is refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.artifacts import prepare
from emulator.errors import SetupError

LIMIT = 1 << 20


def archive(path: Path, fill: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        fill(tar)
    return path


def file(name: str, content: bytes = b"x") -> Callable[[tarfile.TarFile], None]:
    def fill(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))

    return fill


def special(kind: bytes, target: str = "/etc/passwd") -> Callable[[tarfile.TarFile], None]:
    def fill(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("1/saved_model.pb")
        member.type, member.linkname = kind, target
        tar.addfile(member)

    return fill


def test_an_archive_a_directory_and_a_keras_file_are_made_ready(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        file("./1/saved_model.pb", b"graph")(tar)
        file("code/inference.py", b"pass")(tar)

    prepare(archive(tmp_path / "model.tar.gz", fill), tmp_path / "a", LIMIT)
    assert (tmp_path / "a/1/saved_model.pb").read_bytes() == b"graph"
    prepare(tmp_path / "a", tmp_path / "b", LIMIT)
    assert (tmp_path / "b/code/inference.py").read_text() == "pass"
    (tmp_path / "m.keras").write_bytes(b"weights")
    prepare(tmp_path / "m.keras", tmp_path / "c", LIMIT)
    assert (tmp_path / "c/m.keras").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (file("../outside"), "points out of it"),
        (file("1/../../outside"), "points out of it"),
        (file("/tmp/outside"), "points out of it"),
        (special(tarfile.SYMTYPE), "a link or a device"),
        (special(tarfile.LNKTYPE), "a link or a device"),
        (special(tarfile.FIFOTYPE), "a link or a device"),
        (special(tarfile.CHRTYPE), "a link or a device"),
        (file("big", b"\0" * (LIMIT + 1)), f"more than {LIMIT} bytes"),
    ],
)
def test_unsafe_archives_are_refused_and_leave_nothing(
    fill: Callable[[tarfile.TarFile], None], said: str, tmp_path: Path
) -> None:
    source = archive(tmp_path / "model.tar.gz", fill)
    with pytest.raises(SetupError, match=said) as caught:
        prepare(source, tmp_path / "store" / "model", LIMIT)
    assert "model.tar.gz" in str(caught.value)
    assert list((tmp_path / "store").iterdir()) == []
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive at all", b"\x1f\x8b\x08\x00 broken gzip"],
    ids=["empty", "text", "gzip"],
)
def test_corrupt_archives_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(content)
    with pytest.raises(SetupError, match=r"model\.tar\.gz"):
        prepare(tmp_path / "model.tar.gz", tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    noise = bytes(range(256)) * 1000
    whole = archive(tmp_path / "whole.tar.gz", file("1/saved_model.pb", noise)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SetupError, match=r"cut\.tar\.gz"):
        prepare(tmp_path / "cut.tar.gz", tmp_path / "out", LIMIT)


def test_missing_and_unknown_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"There is no model at .*gone"):
        prepare(tmp_path / "gone", tmp_path / "out", LIMIT)
    (tmp_path / "model.h5").write_bytes(b"old")
    with pytest.raises(SetupError, match=r"model\.h5 is none of a \.keras file"):
        prepare(tmp_path / "model.h5", tmp_path / "out", LIMIT)


def test_a_directory_with_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "secret").symlink_to("/etc/passwd")
    with pytest.raises(SetupError, match="holds a link, secret"):
        prepare(tmp_path / "model", tmp_path / "out", LIMIT)
