"""How long until the server can be talked to."""

from __future__ import annotations

from benchmarks.measure import Figure, python, server, typical


def figures() -> list[Figure]:
    """The import, which must stay clear of TensorFlow, and the way to the first answers."""
    bare = typical(lambda: python("pass"), 5)
    imported = typical(lambda: python("import emulator.app"), 5)
    first, ping = zip(*(_start() for _ in range(3)), strict=True)
    return [
        Figure("import emulator.app, in a fresh interpreter", imported - bare, "s", 1.5),
        Figure("start to first answer from /_emulator/clock", sorted(first)[1], "s", 2.0),
        Figure("start to both endpoints answering (/ping)", sorted(ping)[1], "s"),
    ]


def _start() -> tuple[float, float]:
    with server() as running:
        return running.wait("/_emulator/clock"), running.wait("/ping")
