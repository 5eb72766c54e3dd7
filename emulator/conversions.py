"""Models converted for LiteRT: the one that comes along, and those kept in the state directory.

Conversion is TensorFlow's and takes seconds and half a gigabyte, so it happens once for a content,
in a process of its own. What this version of the converter refuses is kept as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from emulator.core import Runtime
from emulator.sandbox.logs import LogPipe
from emulator.sandbox.processes import Child, ending
from emulator.sandbox.scratch import remove
from emulator.sandbox.surroundings import scrubbed

log = logging.getLogger("lukewarm.conversions")

SHIPPED = Path(__file__).resolve().parent.parent / "model" / "artifacts" / "fashion-mnist-litert"
DESCRIPTION = "conversion.json"
MISSING = "LiteRT is not installed here: install the package ai-edge-litert"
LIMIT_S = 600.0  # for one conversion
KEPT_S = 30 * 86_400.0  # since it was used last
EXIT_PATIENCE_S = 5.0
DESCRIPTION_BYTES = 1 << 16
DONE = ending(0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model can run on: LiteRT from `directory`, the script `program` of its archive, or
    TensorFlow where there is neither. `note` says how it was converted, or why not, in one
    sentence."""

    directory: Path | None = None
    note: str = ""
    program: str = ""

    @property
    def runtime(self) -> Runtime:
        if self.program:
            return Runtime.SCRIPT
        return Runtime.LITERT if self.directory else Runtime.TENSORFLOW


class Conversions:
    """The conversions of one server, in `directory`, which nobody else may use meanwhile.

    `isolation` is what a converter is kept from, as environments are: to read a model is to run it.
    """

    def __init__(self, directory: Path, isolation: str) -> None:
        self._directory, self._isolation = directory, isolation
        # Hashing gigabytes must not hold up what other threads are for.
        self._reader = ThreadPoolExecutor(1, "lukewarm-conversions")
        self._turn = asyncio.Lock()  # one converter at a time
        self._running: Child | None = None

    async def open(self) -> None:
        """Drop what was cut short, and what has not been used for a month."""
        await self._in_thread(self._tidy)

    async def of(self, model_dir: Path) -> Outcome:
        """What the unpacked model can run on; converts it if that has not been done yet."""
        if importlib.util.find_spec("ai_edge_litert") is None:
            return Outcome(None, f"{MISSING}.")
        try:
            content = await self._in_thread(_digest, model_dir)
        except OSError as error:
            return Outcome(None, f"The model cannot be read: {error}.")
        described = _described(SHIPPED)
        if described and described["content"] == content:
            return Outcome(SHIPPED, described["note"])
        target = self._directory / _key(content)
        async with self._turn:
            try:
                note = "" if _described(target) else await self._convert(model_dir, target)
            except OSError as error:
                note = f"The model could not be converted for LiteRT: {error}."
        described = _described(target)
        if described is None:
            return Outcome(None, note)
        with suppress(OSError):
            os.utime(target / DESCRIPTION)  # it is in use
        return Outcome(target if described["converted"] else None, described["note"])

    async def close(self) -> None:
        """End a conversion that runs."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        if self._running is not None:
            self._running.kill()
            await asyncio.wait((self._running.gone,), timeout=EXIT_PATIENCE_S)

    async def _convert(self, model_dir: Path, target: Path) -> str:
        """Have `target` written; how the converter failed if it is not."""
        log.info("A model is being converted for LiteRT, which takes some seconds.")
        home = target.with_name(target.name + ".scratch")  # what is left of it, `_tidy` removes
        home.mkdir(parents=True, exist_ok=True)
        output, written = os.pipe()
        said = LogPipe(output, None)
        try:
            made = home / "made"
            ended = await self._run([str(model_dir), str(made)], written, home)
            # A model that is read may write there, too, but not end the converter in order.
            if ended == DONE and _described(made):
                await asyncio.to_thread(remove, target)
                made.rename(target)
        finally:
            os.close(written)
            said.close()
            await asyncio.to_thread(remove, home)  # a model may have left a lot in it
        tail = " ".join(list(said.tail)[-1:])
        return f"The converter ended {ended}{': ' + tail if tail else ''}."

    async def _run(self, arguments: list[str], output: int, home: Path) -> str:
        variables = scrubbed(os.environ, home) | {"TMPDIR": str(home)}
        module = "emulator.sandbox.converter"
        first = [str(os.getpid()), self._isolation]
        child = Child(module, [*first, *arguments], [], output, variables, home)
        self._running = child
        try:
            await asyncio.wait((child.gone,), timeout=LIMIT_S)
            if child.gone.done():
                return child.gone.result()
            return f"by force after {LIMIT_S:g} s"
        finally:
            child.kill()
            self._running = None

    def _tidy(self) -> None:
        if not self._directory.is_dir():
            return
        oldest = time.time() - KEPT_S
        for entry in self._directory.iterdir():
            used = entry / DESCRIPTION
            if not (used.is_file() and used.stat().st_mtime >= oldest):
                remove(entry)

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reader, work, *arguments)


def _digest(model_dir: Path) -> str:
    from model.content import digest

    return digest(model_dir)


def _key(content: str) -> str:
    """Another version of the converter may convert what this one refuses."""
    made_by = [f"{name} {version(name)}" for name in ("tensorflow", "ai-edge-litert")]
    return hashlib.sha256("\n".join([content, *made_by]).encode()).hexdigest()


def _described(directory: Path) -> dict[str, Any] | None:
    """What is said of the conversion there; None if there is none that can be read."""
    try:
        with (directory / DESCRIPTION).open("rb") as file:
            described = orjson.loads(file.read(DESCRIPTION_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(described, dict):
        return None
    kinds = {"content": str, "converted": bool, "note": str}
    right = all(isinstance(described.get(name), kind) for name, kind in kinds.items())
    return described if right else None
