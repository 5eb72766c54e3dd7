"""Models as people have them: what is made ready, and what is refused with a way out."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator import archives
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


def keras(path: Path, content: bytes = b"{}") -> Path:
    """A zip file, as far as a .keras file is looked into."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("config.json", content)
    return path


def test_an_archive_a_directory_and_a_keras_file_are_made_ready(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        file("./1/saved_model.pb", b"graph")(tar)
        file("code/inference.py", b"pass")(tar)

    prepare(archive(tmp_path / "model.tar.gz", fill), tmp_path / "a", LIMIT)
    assert (tmp_path / "a/1/saved_model.pb").read_bytes() == b"graph"
    prepare(tmp_path / "a", tmp_path / "b", LIMIT)
    assert (tmp_path / "b/code/inference.py").read_text() == "pass"
    keras(tmp_path / "m.keras")
    prepare(tmp_path / "m.keras", tmp_path / "c", LIMIT)
    assert (tmp_path / "c/m.keras").read_bytes() == (tmp_path / "m.keras").read_bytes()


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
    (tmp_path / "model.csv").write_bytes(b"1,2")
    with pytest.raises(SetupError, match=r"model\.csv is none of a \.keras file"):
        prepare(tmp_path / "model.csv", tmp_path / "out", LIMIT)


FOREIGN = {
    "model.h5": ("Keras's older format", "save it as a .keras file"),
    "model.pkl": ("a pickle, which runs code when it is read", "save it as a .keras file"),
    "model.joblib": ("a pickle", "SavedModel"),
    "model.pt": ("PyTorch", "a SavedModel"),
    "model.onnx": ("ONNX", "a SavedModel"),
    "model.tflite": ("converted already", "EMULATOR_RUNTIME=litert"),
    "saved_model.pb": ("a part of a SavedModel", "give the directory"),
    "model.zip": ("another kind of archive", "tar -czf"),
}


@pytest.mark.parametrize(("name", "said"), FOREIGN.items(), ids=list(FOREIGN))
def test_models_that_are_not_served_say_what_to_do(
    name: str, said: tuple[str, str], tmp_path: Path
) -> None:
    """Given by themselves, in a directory, or in an archive."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(b"never looked into")
    (folder / "code").mkdir()
    (folder / "code" / "tokens.pkl").write_bytes(b"a script may read what it likes")
    packed = archive(tmp_path / "model.tar.gz", lambda tar: tar.add(folder, "."))
    sources = [folder / name] if name == "saved_model.pb" else [folder / name, folder, packed]
    for source in sources:
        with pytest.raises(SetupError) as caught:
            prepare(source, tmp_path / "out", LIMIT)
        assert str(source) in str(caught.value)
        assert all(words in str(caught.value) for words in said)
        assert not (tmp_path / "out").exists()


def test_what_lies_beside_a_model_does_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "saved_model.pb").write_bytes(b"graph")
    (folder / "labels.pkl").write_bytes(b"never read")
    prepare(folder, tmp_path / "out", LIMIT)
    assert (tmp_path / "out" / "labels.pkl").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89HDF\r\n\x1a\n", "Keras's older format"),
        (pickle.dumps({"a": 1}), "a pickle, which runs code"),
        (b"\x1f\x8b\x08\0", r"a name that ends in \.tar\.gz"),
        (b"#!/bin/sh", r"no \.keras file, whatever its name"),
        (b"", r"no \.keras file, whatever its name"),
    ],
)
def test_what_is_named_keras_and_is_not(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(content)
    refused_everywhere(tmp_path / "model.keras", said)


def test_a_keras_file_that_unpacks_to_too_much(tmp_path: Path) -> None:
    refused_everywhere(keras(tmp_path / "m.keras", bytes(LIMIT + 1)), f"more than {LIMIT} bytes")


def test_a_keras_file_that_is_cut_off(tmp_path: Path) -> None:
    whole = keras(tmp_path / "m.keras").read_bytes()
    (tmp_path / "m.keras").write_bytes(whole[:-10])
    refused_everywhere(tmp_path / "m.keras", "is damaged: .*save it again")


def test_a_directory_named_keras(tmp_path: Path) -> None:
    (tmp_path / "x" / "m.keras").mkdir(parents=True)
    keras(tmp_path / "x" / "m.keras" / "inside.keras")
    with pytest.raises(SetupError, match=r"m\.keras in the model .* is a directory"):
        prepare(tmp_path / "x", tmp_path / "out", LIMIT)


def refused_everywhere(model: Path, said: str) -> None:
    """By itself, in a directory, and in an archive; and nothing is left of it."""
    folder, out = model.parent / "folder", model.parent / "out"
    folder.mkdir()
    shutil.copy(model, folder)
    packed = archive(model.parent / "model.tar.gz", lambda tar: tar.add(folder, "."))
    before = sorted(model.parent.rglob("*"))
    for source in (model, folder, packed):
        with pytest.raises(SetupError, match=said) as caught:
            prepare(source, out, LIMIT)
        assert str(source) in str(caught.value)
        assert model.name in str(caught.value)
        assert sorted(model.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["model.tar.gz", "model.keras", "model"])
def test_a_pipe_in_place_of_a_model_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SetupError, match="neither a file nor a directory"):
        prepare(tmp_path / name, tmp_path / "out", LIMIT)


def test_a_directory_is_copied_within_the_same_bounds(tmp_path: Path) -> None:
    def refused(fill: Callable[[Path], object], said: str) -> None:
        source = Path(tempfile.mkdtemp(dir=tmp_path))
        fill(source)
        with pytest.raises(SetupError, match=said):
            prepare(source, tmp_path / "out", LIMIT)
        assert not (tmp_path / "out").exists()

    deep = Path(*["d"] * (archives.MAX_DEPTH + 1))
    refused(lambda at: os.mkfifo(at / "pipe"), "holds pipe, which is no plain file")
    refused(lambda at: (at / "x").symlink_to("/etc"), "holds a link, x")
    refused(lambda at: (at / deep).mkdir(parents=True), "deeper than 64 levels")
    refused(lambda at: os.truncate(touched(at / "x"), LIMIT + 1), f"more than {LIMIT} bytes")
    refused(lambda at: [touched(at / str(n)) for n in range(20_001)], "more than 20000 files")


def touched(path: Path) -> Path:
    path.touch()
    return path


def test_a_directory_with_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "secret").symlink_to("/etc/passwd")
    with pytest.raises(SetupError, match="holds a link, secret"):
        prepare(tmp_path / "model", tmp_path / "out", LIMIT)
