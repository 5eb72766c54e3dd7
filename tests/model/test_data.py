"""Where the data set is looked for, and what is said when it is absent or damaged."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from model import data

NAMES = tuple(data.CHECKSUMS)


def directory(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(gzip.compress(b"not the data set"))
    return path


def no_network() -> None:
    raise Exception("URL fetch failure on\n  an address: None -- unreachable")


def test_the_chosen_directory_comes_first_then_keras_then_the_system(tmp_path: Path) -> None:
    chosen = directory(tmp_path / "chosen")
    cache = directory(tmp_path / "keras" / "datasets" / "fashion-mnist")
    system = directory(tmp_path / "system")
    keras = {"KERAS_HOME": str(tmp_path / "keras")}

    assert data.find({"FASHION_MNIST_DIR": str(chosen), **keras}, system) == chosen
    assert data.find(keras, system) == cache
    assert data.find({"KERAS_HOME": str(tmp_path / "none")}, system) == system
    assert data.find({"KERAS_HOME": str(tmp_path / "none")}, tmp_path / "none") is None


def test_an_incomplete_directory_is_passed_over(tmp_path: Path) -> None:
    directory(tmp_path / "keras" / "datasets" / "fashion-mnist", NAMES[:3])
    system = directory(tmp_path / "system")
    assert data.find({"KERAS_HOME": str(tmp_path / "keras")}, system) == system


def test_a_chosen_directory_without_the_files_is_an_error(tmp_path: Path) -> None:
    directory(tmp_path / "chosen", NAMES[:3])
    with pytest.raises(data.DataError, match=rf"FASHION_MNIST_DIR .*has no {NAMES[3]}"):
        data.find({"FASHION_MNIST_DIR": str(tmp_path / "chosen")}, tmp_path)


def test_nowhere_and_offline_names_every_place_and_the_package(tmp_path: Path) -> None:
    with pytest.raises(data.DataError) as raised:
        data.load({"KERAS_HOME": str(tmp_path / "keras")}, tmp_path / "system", no_network)
    text = str(raised.value)
    for part in ("FASHION_MNIST_DIR", "keras", "system", "unreachable", "dataset-fashion-mnist"):
        assert part in text
    assert "\n" not in text


def test_a_download_is_read_from_kerass_cache(tmp_path: Path) -> None:
    cache = tmp_path / "keras" / "datasets" / "fashion-mnist"

    def download() -> None:
        directory(cache)

    with pytest.raises(data.DataError, match="SHA-256 differs") as raised:
        data.load({"KERAS_HOME": str(tmp_path / "keras")}, tmp_path / "system", download)
    assert str(cache / "train-images-idx3-ubyte.gz") in str(raised.value)


@pytest.mark.parametrize(
    "damage", [b"", b"\x1f\x8b\x08", gzip.compress(b"cut short", mtime=0)[:-9]]
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    chosen = directory(tmp_path / "chosen")
    (chosen / "train-images-idx3-ubyte.gz").write_bytes(damage)
    with pytest.raises(data.DataError, match=r"train-images-idx3-ubyte\.gz"):
        data.load({"FASHION_MNIST_DIR": str(chosen)})


def test_the_package_is_light_and_stands_alone() -> None:
    code = (
        "import sys, model.data, model.train, model.inference\n"
        "heavy = [m for m in ('tensorflow', 'keras', 'emulator') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
