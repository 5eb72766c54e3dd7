"""Landlock: a process gives up rights for itself and for all that it starts, without privileges.

What can be given up depends on the kernel's version of Landlock (its ABI), which `abi` asks for.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from emulator.sandbox import kernel

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
ASK_FOR_VERSION = 1
BENEATH_PATH, NETWORK_PORT = 1, 2

WRITE_FILE, MAKE_CHAR, MAKE_BLOCK = 1 << 1, 1 << 6, 1 << 11
REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1

TRUNCATION, NETWORK, SCOPES = 3, 4, 6  # the versions that these came with
DEVICES = (Path("/dev/null"), Path("/dev/zero"))


def abi() -> int:
    """The kernel's version of Landlock; 0 if it has none or it is turned off."""
    try:
        return kernel.syscall(CREATE_RULESET, None, 0, ASK_FOR_VERSION)
    except OSError:
        return 0


def restrict(
    version: int, writable: Path, port: int | None, network: bool, also: Sequence[Path] = ()
) -> None:
    """From now on this thread and what it starts write below `writable` and `also` only; where
    `version` has it, send no signal to and see no memory of a process outside of them; and unless
    `network`, connect by TCP to `port` at most.

    Raises OSError; some of it may be in force then.
    """
    files = _files(version)
    tcp = 0 if network or version < NETWORK else BIND_TCP | CONNECT_TCP
    scopes = 0 if version < SCOPES else SIGNALS if network else SIGNALS | ABSTRACT_SOCKETS
    attributes = struct.pack("QQQ", files, tcp, scopes)
    size = 8 if version < NETWORK else 16 if version < SCOPES else 24
    ruleset = kernel.syscall(CREATE_RULESET, attributes, size, 0)
    try:
        for place in (writable, *also):
            _allow_beneath(ruleset, place, files & ~(MAKE_CHAR | MAKE_BLOCK))
        for device in DEVICES:
            with contextlib.suppress(FileNotFoundError):
                _allow_beneath(ruleset, device, files & (WRITE_FILE | TRUNCATE | IOCTL_DEVICE))
        if tcp and port is not None:
            rule = struct.pack("QQ", CONNECT_TCP, port)
            kernel.syscall(ADD_RULE, ruleset, NETWORK_PORT, rule, 0)
        kernel.syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _files(version: int) -> int:
    """The rights to change files that this version knows."""
    rights = WRITE_FILE | REMOVE_AND_MAKE
    if version >= 2:
        rights |= REFER
    if version >= TRUNCATION:
        rights |= TRUNCATE
    if version >= 5:
        rights |= IOCTL_DEVICE
    return rights


def _allow_beneath(ruleset: int, path: Path, rights: int) -> None:
    directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, directory)
        kernel.syscall(ADD_RULE, ruleset, BENEATH_PATH, rule, 0)
    finally:
        os.close(directory)
