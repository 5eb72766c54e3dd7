"""The table of backends. A new one is a file with a `Sandbox` in it and a row here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from emulator.sandbox.fork import ForkSandbox
from emulator.sandbox.inline import InlineSandbox
from emulator.sandbox.protocol import Sandbox
from emulator.sandbox.scratch import Scratch
from emulator.sandbox.spawn import SpawnSandbox

BACKENDS: dict[str, Callable[[Scratch, str, str], Sandbox]] = {
    "fork": ForkSandbox,
    "spawn": SpawnSandbox,
    "inline": InlineSandbox,
}


def default_backend() -> str:
    """`fork` on Linux; `spawn` elsewhere, where forking an imported TensorFlow is not safe."""
    return "fork" if sys.platform == "linux" else "spawn"


def create(
    name: str, scratch: Path | None = None, isolation: str = "full", python: str = ""
) -> Sandbox:
    """A backend that has not been opened yet. `scratch` is the directory, for it alone, of its
    environments' scratch folders; None for one among the system's temporary files. `isolation` is
    the setting of that name, and `python` the path of the interpreter for scripts, empty for the
    server's own.

    Raises ValueError for a backend that does not exist or cannot work here.
    """
    if name not in BACKENDS:
        raise ValueError(f"There is no sandbox {name!r}: choose one of {', '.join(BACKENDS)}.")
    if name == "fork" and sys.platform != "linux":
        raise ValueError("The sandbox 'fork' needs Linux: choose 'spawn'.")
    return BACKENDS[name](Scratch(scratch), isolation, python)
