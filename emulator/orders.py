"""An endpoint of a model on this machine, as a person orders it from a running server: checked,
placed, in service, and gone again. Prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator import artifacts, caller, contract
from emulator.archives import MAX_MEMBERS
from emulator.caller import Caller
from emulator.errors import SetupError

POLL_S = 0.05
GONE_S = 90.0  # longer than a call may take
MEMORY_MB, CONCURRENCY = 4096, 10
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """One endpoint with one variant. `source` is absolute; `hosted` is what `serverless` or
    `real_time` makes; `variables` are the container's."""

    name: str
    source: Path
    hosted: Mapping[str, Any]
    variables: Mapping[str, str]

    def body(self) -> Document:
        """What our own REST takes."""
        variant = {"model": str(self.source), "variables": dict(self.variables)}
        return {"variants": [{**self.hosted, **variant}]}


def serverless(memory_mb: int | None, concurrency: int | None, provisioned: int | None) -> Document:
    """A serverless variant; 4096 MB, 10 requests at a time and none provisioned for None."""
    return {
        "serverless": {
            "memory_mb": MEMORY_MB if memory_mb is None else memory_mb,
            "max_concurrency": CONCURRENCY if concurrency is None else concurrency,
            "provisioned_concurrency": 0 if provisioned is None else provisioned,
        }
    }


def real_time(instance: str, count: int | None) -> Document:
    """A variant on instances of that type; one for None."""
    return {
        "realtime": {"instance_type": instance, "instance_count": 1 if count is None else count}
    }


def place(server: Caller, order: Order) -> Document:
    """Have the endpoint made; it is Creating. Raises SetupError for what cannot be one, and for a
    name that is taken."""
    _check_model(order.source, order.variables)
    if _found(server, order.name, server.get("/_emulator/server")):
        raise SetupError(
            f"There is an endpoint {order.name} already: give this one another name with --name, "
            f"or delete that one with `lukewarm delete {order.name}`."
        )
    made: Document = server.put(caller.path(order.name), order.body())
    return made


def settled(server: Caller, made: Document, tell: Callable[[str], object] = str) -> Document:
    """The endpoint once it is InService or has Failed; `tell` hears what it is meanwhile."""
    while made["status"] == "Creating":
        tell(f"{made['name']} is {made['status']}")
        time.sleep(POLL_S)
        made = server.get(caller.path(made["name"]))
    return made


def gone(server: Caller, name: str) -> bool:
    """Wait until a deleted endpoint is gone; False if it is still there after 90 s."""
    about, until = server.get("/_emulator/server"), time.monotonic() + GONE_S
    while _found(server, name, about):
        if time.monotonic() > until:
            return False
        time.sleep(POLL_S)
    return True


def _check_model(source: Path, variables: Mapping[str, str]) -> None:
    """Raises SetupError for a directory that is none, before an endpoint is made that fails."""
    if not source.is_dir() or _is_vast(source) or contract.has_tensorflow(source):
        return
    if contract.script(source, dict(variables)).usable:
        return
    if kind := artifacts.unserved(source):
        raise SetupError(f"The model {source} holds {kind}.")
    raise SetupError(
        f"The directory {source} holds no model: neither a SavedModel, nor a .keras file, nor a "
        "script code/inference.py with model_fn."
    )


def _is_vast(directory: Path) -> bool:
    """Whether the server will refuse it for the number of its files; to look into it takes long."""
    return any(number >= MAX_MEMBERS for number, _ in enumerate(directory.rglob("*")))


def _found(server: Caller, name: str, about: Document) -> bool:
    """Whether the server's own region and account have an endpoint of that name."""
    home = name, about["region"], about["account"]
    listed = server.get("/_emulator/endpoints")["endpoints"]
    return home in [(one["name"], one["region"], one["account"]) for one in listed]
