"""The user's own code in `code/`: imported as a container does it, with `code/lib` and `code` on
`sys.path`. Nothing is installed, so packages that the interpreter lacks belong in `code/lib`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from model.messages import ModelLoadError


def imported(file: Path, name: str) -> ModuleType:
    """The file as the module `name`. Raises ModelLoadError with what its code has raised."""
    code = file.parent
    for directory in (code, code / "lib"):
        if directory.is_dir() and str(directory) not in sys.path:
            sys.path.insert(0, str(directory))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        raise ModelLoadError(
            f"code/{file.name} cannot be imported: {type(fault).__name__}: {fault}"
            f"{hint(file, fault)}"
        ) from fault
    return module


def hint(file: Path, fault: Exception) -> str:
    if isinstance(fault, ModuleNotFoundError) and (file.parent / "requirements.txt").is_file():
        return "; code/requirements.txt is not installed here, so put the package in code/lib."
    return "."
