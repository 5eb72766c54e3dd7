"""The interpreter that scripts run in, where it is not the server's own: whether it will do, and
the way from there to this package without the packages that the server has beside it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from emulator.errors import SetupError
from emulator.sandbox.surroundings import PACKAGES

LEAST = (3, 11)
PATIENCE_S = 30.0
PROBE = "import sys; print(*sys.version_info[:2]); import ctypes, resource, socket"


def usable(python: str) -> str:
    """The absolute path of the interpreter named, by a path or by a command; empty for empty.

    Raises SetupError with one sentence if it is missing, too old, or does not run.
    """
    if not python:
        return ""
    title = f"The interpreter {python} (EMULATOR_PYTHON)"
    found = shutil.which(python)
    if found is None:
        raise SetupError(f"{title} is not there or cannot be executed: give the path of a Python.")
    path = os.path.abspath(found)  # noqa: PTH100 - a venv is where its link is, not where it leads
    try:
        done = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SetupError(f"{title} does not run: {error}.") from None
    version = tuple(int(word) for word in done.stdout.split() if word.isdecimal())
    if len(version) == 2 and version < LEAST:
        raise SetupError(
            f"{title} is Python {version[0]}.{version[1]}; scripts need "
            f"{LEAST[0]}.{LEAST[1]} or newer."
        )
    if done.returncode or len(version) != 2:
        said = " ".join((done.stderr or done.stdout).split())[-200:] or "nothing"
        raise SetupError(f"{title} is no Python that scripts can run in: it says {said}.")
    return path


def links(folder: Path) -> Path:
    """A directory in `folder` through which nothing can be imported but this package. What lies
    beside that, the server's own libraries, may be of another version of Python."""
    place = folder / "packages"
    if not place.is_dir():
        place.mkdir(0o700)
        for name in PACKAGES:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            (found,) = list(spec.submodule_search_locations or ())[:1]
            (place / name).symlink_to(Path(found).resolve())
    return place


def apart(variables: Mapping[str, str], place: Path) -> dict[str, str]:
    """The variables of a process of that interpreter: none that belong to the server's."""
    own = {name: value for name, value in variables.items() if name != "VIRTUAL_ENV"}
    return own | {"PYTHONPATH": str(place)}
