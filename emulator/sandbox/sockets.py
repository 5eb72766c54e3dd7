"""A filter on system calls (seccomp) after which a process makes no sockets but those of TCP.

Landlock can say where TCP connects to, and an empty network namespace leads nowhere; neither covers
sockets that are files, such as those of a container engine or of the desktop's bus, and Landlock
no UDP. A pair of connected sockets can still be had.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
import sys

from emulator.sandbox import kernel

# Per architecture: its number in the kernel's audit code, and of the calls seccomp and socket.
ARCHITECTURES = {
    "x86_64": (0xC000003E, 317, 41),
    "aarch64": (0xC00000B7, 277, 198),
    "riscv64": (0xC00000F3, 277, 198),
}
IO_URING_SETUP = 425  # a ring can make sockets without a system call
X32 = 0x40000000  # numbers from here on are another way to make the same calls on x86_64
SET_FILTER = 1
# Without the first, a filter turns on defences against Spectre that cost more than the filter.
SPECULATE, ALL_THREADS = 1 << 2, 1 << 0
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
TYPES = 0xF  # of a socket's type; the rest are flags


class Program(ctypes.Structure):
    """A filter as the kernel takes it."""

    _fields_ = (("lines", ctypes.c_ushort), ("program", ctypes.c_char_p))


def only_tcp() -> None:
    """Put the filter in force, for good. Raises OSError where it cannot be."""
    if platform.machine() not in ARCHITECTURES or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOSYS, f"no filter is known for {platform.machine()}")
    architecture, seccomp, make_socket = ARCHITECTURES[platform.machine()]
    program = b"".join(_program(architecture, make_socket))
    described = Program(len(program) // 8, program)
    kernel.syscall(seccomp, SET_FILTER, SPECULATE | ALL_THREADS, ctypes.byref(described))


def _program(architecture: int, make_socket: int) -> list[bytes]:
    """The filter. Each line: its name, if it is jumped to; what to do, with which value; and where
    to go on if that is so or not, the next line if nothing is said."""
    lines: list[tuple[str, int, int, str, str]] = [
        ("", LOAD, ARCHITECTURE_AT, "", ""),
        ("", EQUAL, architecture, "", "refuse"),
        ("", LOAD, NUMBER_AT, "", ""),
        ("", AT_LEAST, X32, "refuse", ""),
        ("", EQUAL, IO_URING_SETUP, "refuse", ""),
        ("", EQUAL, make_socket, "", "allow"),
        ("", LOAD, ARGUMENTS_AT, "", ""),
        ("", EQUAL, int(socket.AF_INET), "type", ""),
        ("", EQUAL, int(socket.AF_INET6), "", "refuse"),
        ("type", LOAD, ARGUMENTS_AT + 8, "", ""),
        ("", AND, TYPES, "", ""),
        ("", EQUAL, int(socket.SOCK_STREAM), "", "refuse"),
        ("", LOAD, ARGUMENTS_AT + 16, "", ""),
        ("", EQUAL, 0, "allow", ""),
        ("", EQUAL, int(socket.IPPROTO_TCP), "allow", "refuse"),
        ("allow", RETURN, ALLOW, "", ""),
        ("refuse", RETURN, REFUSE, "", ""),
    ]
    places = {name: number for number, (name, *_) in enumerate(lines)}
    return [
        struct.pack(
            "HBBI",
            code,
            places[yes] - number - 1 if yes else 0,
            places[no] - number - 1 if no else 0,
            value,
        )
        for number, (_, code, value, yes, no) in enumerate(lines)
    ]
