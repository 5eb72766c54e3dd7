"""Models as people have them (a .keras file, a directory, an archive), made ready to load.

Nothing of a model is executed here. What cannot be served is told apart by names and first bytes,
so that the answer says what to do instead. What a script loads is the script's own business.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from emulator import contract
from emulator.archives import MAX_DEPTH, MAX_MEMBERS, check_zip, unpack
from emulator.errors import SetupError

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
ARCHIVES = (".tar.gz", ".tgz", ".tar")
WAY_OUT = "save it as a .keras file or a SavedModel"
SCRIPT = "a script that loads it, code/inference.py with model_fn"
PICKLE = f"a pickle, which runs code when it is read: {WAY_OUT}, or pack it with {SCRIPT}"
PYTORCH = f"a model of PyTorch: pack it with {SCRIPT}, or give a .keras file or a SavedModel"
KERAS_2 = "Keras's older format: load it with Keras and save it as a .keras file"
ARCHIVE = "another kind of archive: pack it with `tar -czf model.tar.gz`"

# What is served by nobody here, by the end of its name and by how it begins.
BY_SUFFIX = {
    ".h5": KERAS_2, ".hdf5": KERAS_2,
    ".pkl": PICKLE, ".pickle": PICKLE, ".joblib": PICKLE, ".dill": PICKLE,
    ".pt": PYTORCH, ".pth": PYTORCH, ".safetensors": PYTORCH,
    ".onnx": f"a model of ONNX: pack it with {SCRIPT}, or save it as a SavedModel",
    ".tflite": "converted already: give the model that it was made from, and set "
               "EMULATOR_RUNTIME=litert to have it run by LiteRT",
    ".pb": "a part of a SavedModel: give the directory that has <version>/saved_model.pb in it",
    ".zip": ARCHIVE, ".bz2": ARCHIVE, ".xz": ARCHIVE, ".zst": ARCHIVE, ".7z": ARCHIVE,
}  # fmt: skip
NO_KERAS = f"no .keras file, whatever its name: {WAY_OUT}"
KERAS_MAGIC = b"PK\x03\x04"
BY_MAGIC = {
    b"\x89HDF": KERAS_2,
    **{b"\x80" + bytes([version]): PICKLE for version in range(2, 6)},
    b"\x1f\x8b": "an archive: give it a name that ends in .tar.gz",
}


def prepare(
    source: Path, target: Path, limit_bytes: int, variables: Mapping[str, str] = NO_VARIABLES
) -> None:
    """Make `target` a directory that holds the model at `source`. `variables` is the container's
    environment, which may name the archive's script.

    A `.tar.gz` (or `.tgz`, `.tar`) archive is unpacked; a `.keras` file or a directory is copied.
    Raises SetupError with one sentence, and leaves no `target` behind, if the source is missing,
    of another kind, damaged, unsafe, or larger than `limit_bytes` unpacked.
    """
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _fill(source, part, limit_bytes)
        _refuse_unserved(source, part, limit_bytes, variables)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except OSError as error:
        words = f"The model at {source} cannot be copied into {target.parent}: {error}."
        raise SetupError(words) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(source: Path, target: Path, limit_bytes: int) -> None:
    if not source.exists():
        raise SetupError(f"There is no model at {source}.")
    if source.is_dir():
        if target.resolve().is_relative_to(source.resolve()):  # a copy of what is being copied
            raise SetupError(
                f"The model directory {source} holds the server's own files (EMULATOR_STATE_DIR): "
                "give the model a directory of its own."
            )
        # What `tf.saved_model.save` has written is the version that a server looks for.
        bare = (source / "saved_model.pb").is_file()
        _copy_directory(source, target / "1" if bare else target, limit_bytes)
    elif not source.is_file():
        raise SetupError(f"The model {source} is neither a file nor a directory.")
    elif source.name.endswith(ARCHIVES):
        unpack(source, target, limit_bytes)
    elif source.suffix == ".keras":
        _copy_file(source, target, limit_bytes)
    elif kind := BY_SUFFIX.get(source.suffix.lower()):
        raise SetupError(f"The model {source} is {kind}.")
    else:
        raise SetupError(
            f"The model {source} is none of a .keras file, a directory, and a .tar.gz archive."
        )


def _copy_file(source: Path, target: Path, limit_bytes: int) -> None:
    if source.stat().st_size > limit_bytes:
        raise SetupError(f"The model {source} has more than {limit_bytes} bytes.")
    shutil.copyfile(source, target / source.name)


def _copy_directory(source: Path, target: Path, limit_bytes: int) -> None:
    size = 0
    for number, path in enumerate(_files(source)):
        if number >= MAX_MEMBERS:
            raise SetupError(f"The model directory {source} has more than {MAX_MEMBERS} files.")
        size += path.stat().st_size
        if size > limit_bytes:
            raise SetupError(f"The model directory {source} has more than {limit_bytes} bytes.")
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _files(directory: Path) -> Iterator[Path]:
    """The files below it. Raises SetupError at a link, a device, or too deep a directory."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(directory, onerror=fail):
        here = Path(folder)
        if len(here.relative_to(directory).parts) > MAX_DEPTH:
            raise SetupError(f"The model directory {directory} is deeper than {MAX_DEPTH} levels.")
        for path in (here / name for name in (*folders, *files)):
            if path.is_symlink():
                raise SetupError(
                    f"The model directory {directory} holds a link, {path.name}; copy it in."
                )
        for path in (here / name for name in files):
            if not path.is_file():
                raise SetupError(
                    f"The model directory {directory} holds {path.name}, which is no plain file."
                )
            yield path


def _refuse_unserved(
    source: Path, prepared: Path, limit_bytes: int, variables: Mapping[str, str]
) -> None:
    """Raises SetupError if there is a model in a form that is not served, and none that is, nor a
    script that loads it."""
    if any(prepared.rglob("saved_model.pb")):
        return
    models = sorted(prepared.glob("*.keras"))
    for model in models:
        inside = model.name != source.name
        title = f"{model.name} in the model {source}" if inside else f"The model {source}"
        _refuse_no_keras(model, title)
        check_zip(model, title, limit_bytes)
    if models or contract.script(prepared, variables).usable:
        return
    if kind := unserved(prepared):
        raise SetupError(f"The model {source} holds {kind}.")


def unserved(directory: Path) -> str:
    """A file that is a model in a form that is not served, and why; empty if there is none."""
    for file in sorted(directory.rglob("*")):
        where = file.relative_to(directory)
        kind = BY_SUFFIX.get(file.suffix.lower())
        if kind and "code" not in where.parts:
            return f"{where}, which is {kind}"
    return ""


def _refuse_no_keras(file: Path, title: str) -> None:
    if not file.is_file():
        raise SetupError(f"{title} is a directory; {WAY_OUT}.")
    with file.open("rb") as content:
        begin = content.read(len(KERAS_MAGIC))
    if begin != KERAS_MAGIC:
        kinds = (kind for magic, kind in BY_MAGIC.items() if begin.startswith(magic))
        raise SetupError(f"{title} is {next(kinds, NO_KERAS)}.")
