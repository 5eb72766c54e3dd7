"""A process that converts one model for LiteRT and ends, or ends with the server."""

from __future__ import annotations

import signal
import sys

from emulator.sandbox.worker import die_with, leave, settle


def main(arguments: list[str]) -> None:
    """`python -m emulator.sandbox.converter <pid of the server> <model's directory> <target>`"""
    die_with(int(arguments[0]), signal.SIGKILL)
    settle()
    from model import convert

    convert.main(arguments[1:])  # what came of it is in the target
    leave()


if __name__ == "__main__":
    main(sys.argv[1:])
