"""Namespaces: a network of its own with nothing but a loopback, and mounts that are read-only.

Root makes them as it is; anybody else in a user namespace, where the system allows that. Some allow
to make one and then forbid its use, so a child tries everything first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from emulator.sandbox import kernel

NEW_MOUNTS, NEW_USER, NEW_NETWORK = 0x00020000, 0x10000000, 0x40000000
RECURSIVE, BIND, SLAVE = 1 << 14, 1 << 12, 1 << 19
MOUNT_SETATTR = 442  # the same on every architecture
RECURSIVELY, READ_ONLY = 0x8000, 1
SIOCSIFFLAGS, UP_AND_RUNNING = 0x8914, 0x1 | 0x40

NETWORK, MOUNTS = 1, 2
SHARED_MEMORY = Path("/dev/shm")


def enter(writable: Path, network: bool) -> int:
    """Enter what can be had of a user namespace and a network of its own (not if `network`), and
    say what there is: NETWORK if this process has a network of its own now, MOUNTS if `seal` will
    work. The process may have one thread only. `writable` is what `seal` will be asked for.
    """
    for user in (False, True):
        offered = _offered(user, writable, network)
        if offered:
            _enter(user, bool(offered & NETWORK))
            return offered
    return 0


def seal(writable: Path, mounts: Sequence[Path] = ()) -> None:
    """Make everything but what lies below `writable`, and on the `mounts` that `furnish` has made,
    read-only for this thread and what it starts. Raises OSError."""
    _separate()
    own = os.fsencode(writable)
    kernel.mount(own, own, BIND)
    _set_attributes(b"/", RECURSIVELY, READ_ONLY, 0)
    for place in (own, *map(os.fsencode, mounts)):
        _set_attributes(place, 0, 0, READ_ONLY)


def furnish(own: Path, place: Path) -> None:
    """Have what is in `own` stand in the directory `place` beside what is there already, and an
    empty place for shared memory, for this thread and what it starts. Raises OSError."""
    _separate()
    for entry in list(os.scandir(place)):
        stand_in = own / entry.name
        if stand_in.exists():
            continue
        if entry.is_symlink():
            stand_in.symlink_to(Path(entry.path).readlink())
            continue
        stand_in.mkdir() if entry.is_dir() else stand_in.touch()
        kernel.mount(os.fsencode(entry.path), os.fsencode(stand_in), BIND | RECURSIVE)
    kernel.mount(os.fsencode(own), os.fsencode(place), BIND | RECURSIVE)
    if SHARED_MEMORY.is_dir():
        kernel.mount(b"tmpfs", os.fsencode(SHARED_MEMORY), 0, b"tmpfs")


def _separate() -> None:
    kernel.unshare(NEW_MOUNTS)
    kernel.mount(None, b"/", RECURSIVE | SLAVE)  # what is unmounted outside goes here, too


def _offered(user: bool, writable: Path, network: bool) -> int:
    """What a child can have; it tries."""
    pid = os.fork()
    if pid == 0:
        offered = 0
        with contextlib.suppress(BaseException):
            _enter(user, not network)
            offered = 0 if network else NETWORK
            seal(writable)
            offered |= MOUNTS
        os._exit(offered)
    _, status = os.waitpid(pid, 0)
    return max(0, os.waitstatus_to_exitcode(status))


def _enter(user: bool, network: bool) -> None:
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare((NEW_USER if user else 0) | (NEW_NETWORK if network else 0))
    if user:  # everybody keeps the number that they had
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    if network:
        request = struct.pack("16sh22x", b"lo", UP_AND_RUNNING)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def _set_attributes(path: bytes, flags: int, on: int, off: int) -> None:
    attributes = struct.pack("QQQQ", on, off, 0, 0)
    here = -100  # AT_FDCWD; the path is absolute
    kernel.syscall(MOUNT_SETATTR, here, path, flags, attributes, len(attributes))
