"""Linux system calls that Python has no functions for. Each raises OSError where it fails."""

from __future__ import annotations

import ctypes
import os
import struct

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CAPABILITIES_V3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 for each set
DAC_OVERRIDE = 1 << 1

LIBC = ctypes.CDLL(None, use_errno=True)
Capabilities = ctypes.c_uint32 * 6  # effective, permitted and inheritable, twice


def checked(result: int) -> int:
    """The result of a call of LIBC. Raises OSError if it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number. Integers are taken as 64 bits wide."""
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return checked(LIBC.syscall(ctypes.c_long(number), *wide))


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    zero = ctypes.c_ulong(0)
    checked(LIBC.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def unshare(flags: int) -> None:
    """Leave the parent's namespaces for new ones."""
    checked(LIBC.unshare(flags))


def mount(source: bytes | None, target: bytes, flags: int, kind: bytes | None = None) -> None:
    """Bind a mount, change how it propagates, or make one of a `kind` such as tmpfs."""
    checked(LIBC.mount(source, target, kind, ctypes.c_ulong(flags), None))


def renounce() -> None:
    """Give up every capability but the one to pass by the permissions of files, which a server
    that is root has always had: what root owns is often readable for root only."""
    header = struct.pack("Ii", CAPABILITIES_V3, 0)
    held = Capabilities()
    checked(LIBC.capget(header, held))
    kept = Capabilities(held[0] & DAC_OVERRIDE, held[1] & DAC_OVERRIDE)
    checked(LIBC.capset(header, kept))
