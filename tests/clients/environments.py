"""An environment for each client, with what its requirements pin: built once, and kept.

They are in `.venv-clients` of the repository, named after the interpreter and the requirements, so
that a change of either makes another one. What is there is complete: it is built elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from tests.servers import ROOT

REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
NAMES = sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))
KEPT = ROOT / ".venv-clients"
TAG = sys.implementation.cache_tag
BUILD_S = 600.0


class NotBuilt(Exception):
    """An environment that cannot be built, and why."""


def obtain(name: str, kept: Path = KEPT) -> Path:
    """The interpreter of the client's environment, which is built if there is none.

    Raises NotBuilt. Safe to call from several processes at once, and after a build was cut short.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()[:16]
    place = kept / name / f"{TAG}-{digest}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with _turn(place.parent):
            if not place.exists():
                _build(name, requirements, place)
    return place / "bin" / "python"


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One build in this folder at a time."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _build(name: str, requirements: Path, place: Path) -> None:
    for old in place.parent.glob(f"{TAG}-*"):  # others, and what builds left that were cut short
        shutil.rmtree(old)
    building = Path(tempfile.mkdtemp(prefix=f"{TAG}-", suffix=".partial", dir=place.parent))
    python = str(building / "bin" / "python")
    pinned = ("--quiet", "--no-deps", "--requirement", str(requirements))
    uv = find_uv_bin()
    # Some have told only pip where their packages are.
    steps = (
        [[uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(building)]],
        [
            [uv, "pip", "install", "--python", python, "--compile-bytecode", *pinned],
            [sys.executable, "-m", "pip", "--python", python, "install", *pinned],
        ],
    )
    try:
        for ways in steps:
            _do(name, ways)
        building.rename(place)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _do(name: str, ways: Sequence[Sequence[str]]) -> None:
    """One step, in the first of the ways that works."""
    failures = []
    for command in ways:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
        if done.returncode == 0:
            return
        failures.append(done.stderr.strip())
    raise NotBuilt(
        f"The environment of {name} cannot be built; it is installed from a package index, which "
        f"has to be in reach: {failures[0]}"
    )


def main() -> None:
    """Build what is missing: `python -m tests.clients.environments`. Exits with 1 if it cannot."""
    failed = 0
    for name in NAMES:
        try:
            print(obtain(name).parent.parent, flush=True)
        except NotBuilt as error:
            failed = 1
            print(error, file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
