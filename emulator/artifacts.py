"""Models as people have them (a .keras file, a directory, an archive), made ready to load.

Archives are somebody else's: only plain files and directories come out of one, only below the
place given, and only as much as allowed. Nothing of a model is executed or parsed here.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from emulator.errors import SetupError

MAX_MEMBERS = 20_000
_CHUNK = 1 << 20


def prepare(source: Path, target: Path, limit_bytes: int) -> None:
    """Make `target` a directory that holds the model at `source`.

    A `.tar.gz` (or `.tgz`, `.tar`) archive is unpacked; a `.keras` file or a directory is copied.
    Raises SetupError with one sentence, and leaves no `target` behind, if the source is missing,
    of another kind, damaged, unsafe, or larger than `limit_bytes` unpacked.
    """
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _fill(source, part, limit_bytes)
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
        _copy_directory(source, target, limit_bytes)
    elif source.name.endswith((".tar.gz", ".tgz", ".tar")):
        _unpack(source, target, limit_bytes)
    elif source.suffix == ".keras":
        if source.stat().st_size > limit_bytes:
            raise SetupError(f"The model {source} has more than {limit_bytes} bytes.")
        shutil.copyfile(source, target / source.name)
    else:
        raise SetupError(
            f"The model {source} is none of a .keras file, a directory, and a .tar.gz archive."
        )


def _copy_directory(source: Path, target: Path, limit_bytes: int) -> None:
    size = 0
    for path in sorted(source.rglob("*")):
        if path.is_symlink():
            raise SetupError(f"The model directory {source} holds a link, {path.name}; copy it in.")
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        size += path.stat().st_size
        if size > limit_bytes:
            raise SetupError(f"The model directory {source} has more than {limit_bytes} bytes.")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _unpack(source: Path, target: Path, limit_bytes: int) -> None:
    left = limit_bytes
    try:
        with tarfile.open(source) as archive:
            for number, member in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise SetupError(f"The archive {source} has more than {MAX_MEMBERS} members.")
                left -= member.size
                if left < 0:
                    raise SetupError(
                        f"The archive {source} unpacks to more than {limit_bytes} bytes."
                    )
                _unpack_member(archive, member, source, target)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise SetupError(f"The archive {source} is not a readable .tar.gz: {error}.") from error
    except OSError as error:
        if isinstance(error, tarfile.ReadError) or "gzip" in str(error) or "CRC" in str(error):
            raise SetupError(f"The archive {source} is damaged: {error}.") from error
        raise


def _unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, source: Path, target: Path
) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise SetupError(f"The archive {source} is refused: {member.name!r} points out of it.")
    if not (member.isfile() or member.isdir()):
        raise SetupError(
            f"The archive {source} is refused: {member.name!r} is a link or a device, not a file."
        )
    place = target.joinpath(*name.parts)
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None  # it is a file
    with content, place.open("wb") as out:
        shutil.copyfileobj(content, out, _CHUNK)
