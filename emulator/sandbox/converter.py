"""A process that converts one model for LiteRT and ends, or ends with the server.

It is kept from what an environment is kept from, for a model may do things while it is read.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from emulator.sandbox.isolation import Enclosure
from emulator.sandbox.worker import die_with, leave, settle


def main(arguments: list[str]) -> None:
    """`python -m emulator.sandbox.converter <pid of the server> <isolation> <model's directory>
    <target>`, where the target lies below the working directory"""
    die_with(int(arguments[0]), signal.SIGKILL)
    settle()
    enclosure, own = Enclosure(arguments[1]), Path.cwd()
    enclosure.enter(own)
    enclosure.seal(own)
    enclosure.confine(own, None)
    from model import convert

    convert.main(arguments[2:])  # what came of it is in the target
    leave()


if __name__ == "__main__":
    main(sys.argv[1:])
