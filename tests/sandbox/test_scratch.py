"""Scratch folders: an environment's own place to write to, and nothing that is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from emulator.sandbox.protocol import EnvironmentFailed, Sandbox, Spec
from emulator.sandbox.scratch import Scratch, remove
from tests.sandbox.conftest import Run, ask, told, until


def test_each_environment_has_its_own_and_takes_it_along(
    run: Run, processes: Sandbox, commands: Path
) -> None:
    async def life() -> None:
        specs = [Spec(f"e/v/{i}", commands) for i in range(2)]
        one, two = await asyncio.gather(*map(processes.start, specs))
        folders = []
        for environment in (one, two):
            home, temporary, working, by_default = await told(environment, "folders")
            assert home == temporary == working == by_default
            assert Path(home).stat().st_mode & 0o777 == 0o700
            await told(environment, f"write {home}/left/behind")
            folders.append(Path(home))
        assert folders[0] != folders[1]
        await one.stop()
        await until(lambda: not folders[0].exists())
        assert (folders[1] / "left").exists()
        with pytest.raises(EnvironmentFailed):
            await ask(two, "kill 9")
        await until(lambda: not folders[1].exists())

    run(life())


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from emulator.sandbox.scratch import Scratch
    folder = Scratch(Path(sys.argv[1])).folder()
    (folder / "left").mkdir()
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_server_left_is_swept_by_the_next(run: Run, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    root = tmp_path / "scratch"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(root)]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = Path(killed.stdout.strip())
    assert (left / "left").is_dir()
    (root / "link").symlink_to(tmp_path)

    async def next_one() -> None:
        scratch = Scratch(root)
        folder = scratch.folder()
        await until(lambda: not left.parent.exists() and not os.path.lexists(root / "link"))
        assert folder.is_dir()
        await scratch.close()
        await scratch.close()
        assert list(root.iterdir()) == []

    run(next_one())
    assert (tmp_path / "precious").exists()


def test_nothing_that_a_model_makes_of_it_withstands_removal(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    top = tmp_path / "top"
    top.mkdir()
    where = os.open(top, os.O_RDONLY)
    for _ in range(1200):  # deeper than a recursion may go, longer than a path may be
        os.mkdir("deep", dir_fd=where)
        inner = os.open("deep", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = inner
    os.mkdir("locked", dir_fd=where)
    os.symlink(outside, "link", dir_fd=where)
    os.mkfifo("fifo", dir_fd=where)
    os.chmod("locked", 0, dir_fd=where)
    os.close(where)
    (top / "link").symlink_to(outside)
    (top / "deep").chmod(0o500)
    remove(top)
    assert not top.exists()
    assert (outside / "precious").exists()
