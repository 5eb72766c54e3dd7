"""What passes between a policy and its host: actions, causes, requests' facts, usage. Data only.

A *policy* is told what happened and when, and answers with actions. It reads no clock and does
no I/O, so the live host and the simulator run the very same decisions. Every instant (`now`,
`deadline`) and duration (`_ns`) is an integer number of nanoseconds; sizes are integer bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
GIB = 1 << 30
MIB = 1 << 20
NEVER = (1 << 63) - 1  # fits the int64 arrays of the compiled simulator


class Persona(StrEnum):
    """How a variant is hosted: one row here, one file each (`realtime.py`, `serverless.py`)."""

    REALTIME = "realtime"
    SERVERLESS = "serverless"


class Runtime(StrEnum):
    """What runs a model in its environments."""

    TENSORFLOW = "tensorflow"
    LITERT = "litert"
    SCRIPT = "script"  # the user's own code loads the model, by whatever library it imports


class Cause(StrEnum):
    """Why a request got no answer from a model, or why an environment ended."""

    THROTTLED = "throttled"
    TIMED_OUT = "timed-out"
    START_TIMED_OUT = "start-timed-out"
    LOAD_FAILED = "load-failed"
    DIED = "died"
    OUT_OF_MEMORY = "out-of-memory"
    EXPIRED = "expired"
    EVICTED = "evicted"
    SURPLUS = "surplus"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a variant has to serve with, which may change while it is in service.

    `most` is the number of instances of a real-time variant, and MaxConcurrency of a serverless
    one; at least 1. `provisioned` is ProvisionedConcurrency, up to `most`.
    """

    most: int
    provisioned: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """Start an execution environment; answer with `ready` or `broken`."""

    environment: int
    provisioned: bool = False


@dataclass(frozen=True, slots=True)
class Provision:
    """The environment belongs to the provisioned floor from now on, or no longer does. What it
    works on goes on as it was assigned."""

    environment: int
    provisioned: bool


@dataclass(frozen=True, slots=True)
class Assign:
    """Give the request to the environment; answer with `done` or `broken`.

    Those to one environment in one list of actions are a batch, given together and `done` once.
    `cold` is true when this request waited for this environment's own start.
    """

    request: int
    environment: int
    cold: bool = False
    provisioned: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """End the environment's process; no answer is expected."""

    environment: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer the request with an error instead of a prediction."""

    request: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Hold:
    """From now on `units` of a resource billed by time are held (0 ends the meter)."""

    resource: Resource
    units: int


class Resource(StrEnum):
    """What is billed by the time it is held, used or not."""

    INSTANCES = "instances"
    PROVISIONED = "provisioned-concurrency"


Action = Start | Provision | Assign | Stop | Reject | Hold


class Policy(Protocol):
    """The decisions of one variant. Requests and environments are integers chosen by either side:
    the host numbers requests, the policy numbers environments, and no number is used twice.

    Each method first settles every deadline at or before `now`, so a late timer changes nothing.
    """

    def launch(self, now: int, warm: bool) -> list[Action]:
        """The variant goes into service. `warm` asks for the test start that a creation makes."""

    def arrive(self, now: int, *requests: int) -> list[Action]:
        """Requests reached the endpoint together, in this order."""

    def ready(self, now: int, environment: int, together: int = 1) -> list[Action]:
        """The environment has loaded its model, and can answer that many requests in one call."""

    def done(self, now: int, environment: int) -> list[Action]:
        """The environment answered all it was given, whatever the status of the answers."""

    def streams(self, now: int, environment: int) -> list[Action]:
        """The environment has begun to stream its answer, which may take longer than others."""

    def broken(self, now: int, environment: int, cause: Cause) -> list[Action]:
        """The environment is gone, or never came up."""

    def tick(self, now: int) -> list[Action]:
        """Time passed."""

    def evict(self, now: int) -> list[Action]:
        """Unload what is idle, as if its keep-warm time were over."""

    def resize(self, now: int, capacity: Capacity) -> list[Action]:
        """The variant has this capacity from now on. Nothing that it works on is given up: what is
        too much takes no new requests, and ends when it has done its work."""

    def close(self, now: int) -> list[Action]:
        """The variant leaves service: everything waiting is rejected, everything alive stopped."""

    def next_deadline(self) -> int:
        """The earliest instant at which `tick` may have something to do, or NEVER."""
