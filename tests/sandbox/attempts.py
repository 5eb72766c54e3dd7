"""What a hostile model might try, as source for a `code/inference.py` or for a bare process.

`attempt(where)` tries everything and tells how each try ended: None for success, else the name of
the error. `where` is made by `outside`, which also says whether anything has come through.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from emulator.sandbox import landlock
from emulator.sandbox.protocol import Isolation

# What this kernel offers.
VERSION = landlock.abi()
NAMESPACES = (
    subprocess.run(["unshare", "-rnm", "true"], capture_output=True, check=False).returncode == 0
)
OFFERED = Isolation(
    "none" if NAMESPACES or VERSION >= 4 else "open",
    "read-only" if VERSION >= 3 or (VERSION and NAMESPACES)
    else "read-only but for all scratch folders" if NAMESPACES
    else "read-only but for truncation" if VERSION else "open",
    "own" if VERSION >= 6 else "open",
)  # fmt: skip

SOURCE = """
import errno, json, os, socket

def attempt(where):
    outside, scratch = where["outside"], f"{os.getcwd()}/{len(os.listdir())}"
    os.mkdir(scratch)
    def connect(kind, address, family=socket.AF_INET):
        with socket.socket(family, kind) as one:
            one.settimeout(5)
            one.connect(address)
            one.send(b"let me out")
    def write(path, flags=os.O_WRONLY):
        descriptor = os.open(path, flags)
        os.write(descriptor, b"spoilt")
        os.close(descriptor)
    def through_a_link():
        os.symlink(outside + "/file", scratch + "/link")
        write(scratch + "/link")
    def through_a_hard_link():
        os.link(outside + "/file", scratch + "/hard")
        write(scratch + "/hard")
    def moved_in():
        os.rename(outside + "/movable", scratch + "/moved")
    tries = {
        "network": {
            "tcp": lambda: connect(socket.SOCK_STREAM, ("127.0.0.1", where["tcp"])),
            "udp": lambda: connect(socket.SOCK_DGRAM, ("127.0.0.1", where["udp"])),
            "unix": lambda: connect(socket.SOCK_STREAM, outside + "/socket", socket.AF_UNIX),
            "abstract": lambda: connect(
                socket.SOCK_STREAM, chr(0) + where["abstract"], socket.AF_UNIX),
        },
        "files": {
            "write": lambda: write(outside + "/file"),
            "create": lambda: write(outside + "/new", os.O_WRONLY | os.O_CREAT),
            "make a directory": lambda: os.mkdir(outside + "/folder"),
            "remove": lambda: os.unlink(outside + "/removable"),
            "replace": lambda: os.rename(outside + "/one", outside + "/two"),
            "move in": moved_in,
            "write through a link": through_a_link,
            "write through a hard link": through_a_hard_link,
        },
        "truncation": {
            "truncate": lambda: os.truncate(outside + "/long", 0),
            "open and truncate": lambda: os.close(
                os.open(outside + "/longer", os.O_RDONLY | os.O_TRUNC)),
        },
        "scratch of others": {"write": lambda: write(where["other"], os.O_WRONLY | os.O_CREAT)},
        "signals": {"kill": lambda: os.kill(where["pid"], 0)},
        "memory": {
            "environment": lambda: open(f"/proc/{where['pid']}/environ").close(),
            "memory": lambda: open(f"/proc/{where['pid']}/mem").close(),
            "descriptors": lambda: os.readlink(f"/proc/{where['pid']}/fd/0"),
        },
        "modes": {"chmod": lambda: os.chmod(outside + "/file", 0o777)},
        "own": {
            "write": lambda: write(scratch + "/mine", os.O_WRONLY | os.O_CREAT),
            "truncate": lambda: os.truncate(scratch + "/mine", 0),
            "make a directory": lambda: os.makedirs(scratch + "/a/b"),
            "move": lambda: os.rename(scratch + "/mine", scratch + "/a/b/mine"),
            "a pair": lambda: [one.close() for one in socket.socketpair()],
            "null": lambda: write("/dev/null"),
            "start a process": lambda: __import__("subprocess").check_call(["true"]),
            "signal itself": lambda: os.kill(os.getpid(), 0),
        },
    }
    def ended(one):
        try:
            one()
        except OSError as error:
            return errno.errorcode[error.errno]
    return {kind: {name: ended(one) for name, one in each.items()} for kind, each in tries.items()}
"""
HOSTILE = (
    SOURCE
    + """
def handler(data, context):
    return json.dumps(attempt(json.load(data))), "application/json"
"""
)


@contextmanager
def outside(folder: Path, pid: int, other: Path | None = None) -> Iterator[dict[str, Any]]:
    """Files, sockets and a process that no environment may touch."""
    folder.mkdir()
    for name in ("file", "removable", "one", "two", "movable", "long", "longer"):
        (folder / name).write_text(name)
        (folder / name).chmod(0o644)
    with ExitStack() as stack:

        def listening(family: int, kind: int, address: tuple[str, int] | str) -> socket.socket:
            one = stack.enter_context(socket.socket(family, kind))
            one.bind(address)
            if kind == socket.SOCK_STREAM:
                one.listen()
            return one

        tcp = listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        udp = listening(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        abstract = f"lukewarm-test-{os.getpid()}-{folder.parent.name}"
        listening(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{abstract}")
        here = Path.cwd()
        os.chdir(folder)  # for the path of a socket is short
        listening(socket.AF_UNIX, socket.SOCK_STREAM, "socket")
        os.chdir(here)
        yield {
            "outside": str(folder),
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": abstract,
            "pid": pid,
            "other": str(other or folder / "other"),
        }


def succeeded(tried: dict[str, dict[str, str | None]]) -> dict[str, set[str]]:
    """Which tries of each kind came through."""
    return {kind: {name for name, how in each.items() if not how} for kind, each in tried.items()}


def hold(
    report: Isolation,
    tried: dict[str, dict[str, str | None]],
    sealed: bool,
    moves_nothing: bool = VERSION == 1,
) -> None:
    """What is reported is what is in force, no less and no more."""
    through = succeeded(tried)
    everything = {kind: set(each) for kind, each in tried.items()}
    # The first version of Landlock lets nobody move a file to another directory.
    assert through["own"] | ({"move"} if moves_nothing else set()) == everything["own"]
    assert report.network in ("none", "open")
    assert through["network"] == (everything["network"] if report.network == "open" else set())
    changed = through["files"] | through["truncation"]
    match report.files:
        case "read-only":
            assert not changed | through["scratch of others"]
        case "read-only but for all scratch folders":
            assert not changed
            assert through["scratch of others"]
        case "read-only but for truncation":
            assert not through["files"] | through["scratch of others"]
            assert through["truncation"] == everything["truncation"]
        case other:
            assert other == "open"
            assert changed >= everything["files"] - {"move in"}  # which needs one file system
    assert report.signals in ("own", "open")
    assert through["signals"] == (set() if report.signals == "own" else {"kill"})
    if sealed:
        assert not through["modes"]
