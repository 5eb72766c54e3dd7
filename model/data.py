"""The 70,000 labelled images of Fashion-MNIST, found on this machine or downloaded by Keras.

It never imports TensorFlow unless it has to download. What is read is checked: the SHA-256 of
each file's uncompressed content, since distributions recompress the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGE_HEADER, LABEL_HEADER = 16, 8  # bytes of the IDX format before the first value

CHECKSUMS = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}

Bytes = npt.NDArray[np.uint8]


class DataError(Exception):
    """The data cannot be had, or is not what it should be: one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images as uint8 (n, 28, 28), 0 black to 255 white; labels as uint8 (n,), into CLASS_NAMES."""

    x_train: Bytes
    y_train: Bytes
    x_test: Bytes
    y_test: Bytes


def load(
    environ: Mapping[str, str] = os.environ,
    system: Path = DEBIAN,
    download: Callable[[], None] | None = None,
) -> Dataset:
    """The data set, from the first place that has all four files.

    Looked at in order: the directory named by `FASHION_MNIST_DIR` (if set, it alone counts),
    Keras's cache, `system` (Debian's package). Else `download` fills Keras's cache; by default
    Keras's own download function does, and shows its progress bar. Raises DataError.
    """
    return read(find(environ, system) or downloaded(environ, system, download or keras_download))


def find(environ: Mapping[str, str] = os.environ, system: Path = DEBIAN) -> Path | None:
    """The directory that has the four files, or None. Raises DataError when FASHION_MNIST_DIR is
    set to a directory without them."""
    chosen = environ.get("FASHION_MNIST_DIR")
    if chosen:
        missing = [name for name in CHECKSUMS if not (Path(chosen) / name).is_file()]
        if missing:
            raise DataError(
                f"FASHION_MNIST_DIR is {chosen!r}, but that directory has no {missing[0]}; "
                "put the four .gz files there or unset it."
            )
        return Path(chosen)
    places = (keras_cache(environ), system)
    return next((p for p in places if all((p / name).is_file() for name in CHECKSUMS)), None)


def keras_cache(environ: Mapping[str, str]) -> Path:
    """Where `keras.datasets` keeps what it downloaded."""
    home = environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "datasets" / "fashion-mnist"


def keras_download() -> None:
    """Fill Keras's cache. Raises whatever Keras does when it cannot."""
    from keras.datasets import fashion_mnist

    fashion_mnist.load_data()


def downloaded(environ: Mapping[str, str], system: Path, download: Callable[[], None]) -> Path:
    try:
        download()
    except Exception as error:
        raise DataError(
            f"Fashion-MNIST is neither in the directory FASHION_MNIST_DIR (not set), nor in "
            f"{keras_cache(environ)}, nor in {system}, and it cannot be downloaded "
            f"({' '.join(str(error).split())}); on Debian or Ubuntu install it with "
            "`apt-get install dataset-fashion-mnist`."
        ) from error
    return keras_cache(environ)


def read(directory: Path) -> Dataset:
    """Read and check the four files of `directory`. Raises DataError naming a damaged file."""
    return Dataset(
        x_train=images(directory / "train-images-idx3-ubyte.gz"),
        y_train=labels(directory / "train-labels-idx1-ubyte.gz"),
        x_test=images(directory / "t10k-images-idx3-ubyte.gz"),
        y_test=labels(directory / "t10k-labels-idx1-ubyte.gz"),
    )


def images(path: Path) -> Bytes:
    return np.frombuffer(content(path), np.uint8, offset=IMAGE_HEADER).reshape(-1, 28, 28)


def labels(path: Path) -> Bytes:
    return np.frombuffer(content(path), np.uint8, offset=LABEL_HEADER)


def content(path: Path) -> bytes:
    try:
        plain = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); delete it and fetch it again."
        ) from error
    if hashlib.sha256(plain).hexdigest() != CHECKSUMS[path.name]:
        raise DataError(
            f"{path} is not Fashion-MNIST's {path.name}: its content's SHA-256 differs; "
            "delete it and fetch it again."
        )
    return plain
