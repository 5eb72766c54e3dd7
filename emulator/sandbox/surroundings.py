"""What a new process of ours gets from the server's surroundings: a scrubbed environment and the
means to import this package. Nothing secret, nothing of the server's own settings."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

KEPT = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})
KEPT_PREFIXES = ("LC_", "TF_", "OMP_", "MKL_", "OPENBLAS_", "KERAS_", "XLA_", "CUDA_", "NVIDIA_")
PACKAGES = ("emulator", "model")


def scrubbed(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """The part of `environ` that a process may see. HOME becomes `home`, so that no SDK finds the
    developer's credentials."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in KEPT or name.startswith(KEPT_PREFIXES)
    }
    added = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    roots = _roots() + [str(Path(entry).absolute()) for entry in added]
    own = {
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(roots)),
        "PYTHONUTF8": "1",
    }
    return kept | own


def _roots() -> list[str]:
    """The directories from which the packages are imported, found without importing them."""
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    places = [place for spec in specs if spec for place in spec.submodule_search_locations or ()]
    return [str(Path(place).resolve().parent) for place in places]
