"""Runs a command in a folder, from where it can connect to one port by TCP and write into this
folder, as far as the kernel has it: `python -m tests.clients.confined PORT FOLDER COMMAND...`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from emulator.sandbox import kernel, landlock


def main(port: str, folder: str, *command: str) -> None:
    if (version := landlock.abi()) >= landlock.NETWORK:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        landlock.restrict(version, Path(folder), int(port), network=False)
    os.chdir(folder)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
