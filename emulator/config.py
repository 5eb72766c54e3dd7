"""Settings: one table, read once at start, frozen. A variable beats the file, the file the default.

The file is `lukewarm.toml` in the working directory, or what EMULATOR_CONFIG names; its keys are
the names of the table without the prefix, in lower case. Nothing is read when this is imported.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from emulator.core import MIB, Runtime
from emulator.errors import SetupError

PREFIX = "EMULATOR_"
FILE = "lukewarm.toml"
MAX_PAYLOAD = 128 * MIB  # half of what a frame to an environment holds
N = TypeVar("N", int, float)


class NotUnderstood(ValueError):
    """A value that does not parse; the text says what was expected."""


def _text(raw: str) -> str:
    if not raw.strip():
        raise NotUnderstood("a text that is not empty")
    return raw.strip()


def _path(raw: str) -> Path:
    return Path(_text(raw)).expanduser()


def _switch(raw: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True}
    known |= {"0": False, "false": False, "no": False, "off": False}
    if raw.strip().lower() not in known:
        raise NotUnderstood("true or false")
    return known[raw.strip().lower()]


def _whole(least: int, most: int) -> Callable[[str], int]:
    return _between(int, least, most, f"a whole number from {least} to {most}")


def _number(least: float, most: float) -> Callable[[str], float]:
    return _between(float, least, most, f"a number from {least:g} to {most:g}")


def _between(kind: type[N], least: N, most: N, expected: str) -> Callable[[str], N]:
    def parse(raw: str) -> N:
        try:
            number = kind(raw.strip())
        except ValueError:
            raise NotUnderstood(expected) from None
        if not least <= number <= most:  # neither is a NaN
            raise NotUnderstood(expected)
        return number

    return parse


def _own(raw: str) -> str:
    """A program, or `own` for the server's, which is the empty text."""
    return "" if raw.strip() in ("", "own") else str(Path(raw.strip()).expanduser())


def _folder(raw: str) -> Path | None:
    """A folder, or `state` for that of the state directory, which is None."""
    return None if _text(raw) == "state" else _path(raw)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw.strip().lower() not in choices:
            raise NotUnderstood("one of " + ", ".join(choices))
        return raw.strip().lower()

    return parse


def _made(least: int, characters: str, what: str) -> Callable[[str], str]:
    """A text of one's own, or `generated`, which is the empty text until there is one."""

    def parse(raw: str) -> str:
        if raw.strip() == "generated":
            return ""
        if not re.fullmatch(f"[{characters}]{{{least},256}}", raw.strip()):
            raise NotUnderstood(f"`generated` or {what}")
        return raw.strip()

    return parse


def _companion(raw: str) -> str:
    if raw.strip() == "builtin":
        return ""
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", raw.strip()):
        raise NotUnderstood("`builtin` or an address such as http://127.0.0.1:4566")
    return raw.strip()


def _names(raw: str) -> frozenset[str]:
    names = frozenset(name.strip().lower() for name in raw.split(",")) - {""}
    if not names or not all(re.fullmatch(r"[a-z0-9_.*-]+", name) for name in names):
        raise NotUnderstood("host names without ports, separated by commas")
    return names


def _account(raw: str) -> str:
    if not (raw.strip().isdigit() and len(raw.strip()) == 12):
        raise NotUnderstood("an account number of 12 digits")
    return raw.strip()


def _keep_warm(raw: str) -> tuple[float, float]:
    parts = raw.strip().split("-")
    expected = "seconds (600) or a range of seconds to draw from (300-900)"
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise NotUnderstood(expected) from None
    if len(numbers) not in (1, 2) or not 0 <= numbers[0] <= numbers[-1] <= 86_400 * 366:
        raise NotUnderstood(expected)
    return numbers[0], numbers[-1]


def _cold_start(raw: str) -> str:
    word = raw.strip().lower()
    if word in ("profile", "none", "aws"):
        return word
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise NotUnderstood("profile, none, aws, or a number of seconds from 0 to 3600")
    return word


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `default` is text, as a person would write it in the environment."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    secret: bool = False  # its value is in no message

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


TABLE: tuple[Setting, ...] = (
    Setting("region", "eu-west-3", _text, "Region of every resource; selects the price table."),
    Setting("account", "123456789012", _account, "Account number in ARNs and messages."),
    Setting("state_dir", ".lukewarm", _path, "Where endpoints, models and the ledger are kept."),
    Setting(
        "prices",
        "state",
        _folder,
        "Folder of price tables that go before those that come along: `state` is `prices` in the"
        " state directory, where `lukewarm prices import` writes them.",
    ),
    Setting("clock", "wall", _one_of("wall", "virtual"), "`virtual` moves only when advanced."),
    Setting(
        "sandbox",
        "auto",
        _one_of("auto", "fork", "spawn", "inline"),
        "How execution environments start. `auto` is `fork` on Linux, else `spawn`.",
    ),
    Setting(
        "runtime",
        "tensorflow",
        _one_of(Runtime.TENSORFLOW, Runtime.LITERT),
        "What runs models: `tensorflow`, or `litert` for those that can be converted.",
    ),
    Setting(
        "python",
        "own",
        _own,
        "The interpreter that scripts (`model_fn` and the others) run in: the server's own, or"
        " another Python of 3.11 or newer with the packages that they import.",
    ),
    Setting(
        "isolation",
        "full",
        _one_of("full", "files", "off"),
        "What environments are kept from, as far as the kernel allows: `full` is the network and"
        " writing outside of their scratch folder, `files` leaves the network open.",
    ),
    Setting(
        "keep_warm_s",
        "600",
        _keep_warm,
        "How long an idle serverless environment stays warm; a range (300-900) is drawn from.",
    ),
    Setting(
        "cold_start",
        "profile",
        _cold_start,
        "Provisioning delay modelled on top of a real cold start: `profile` (as the latency profile"
        " has it, if it does), `aws` (drawn from a fit to published measurements), `none` or"
        " seconds.",
    ),
    Setting(
        "profile",
        "none",
        _text,
        "Latency profile: network and service overhead that AWS has and this machine has not."
        " `aws`, `paris-2022`, or the path of a TOML file.",
    ),
    Setting("seed", "0", _whole(0, 2**31 - 2), "Seed of every draw: keep-warm, delays, routing."),
    Setting(
        "bill_startup",
        "false",
        _switch,
        "Whether the start-up time of a cold start is billed. AWS does not say; see fidelity.",
    ),
    Setting(
        "cpu_share",
        "true",
        _switch,
        "Hold a serverless answer back as its share of a vCPU (memory / 1769 MB) would.",
    ),
    Setting(
        "batch",
        "32",
        _whole(1, 1024),
        "Most requests that a real-time instance answers in one call of the model; 1: one by one.",
    ),
    Setting(
        "compile",
        "true",
        _switch,
        "Whether a real-time instance compiles the model (XLA) where that makes it faster.",
    ),
    Setting(
        "serverless_payload_bytes",
        str(4 * MIB),
        _whole(1, MAX_PAYLOAD),
        "Largest serverless request and response body.",
    ),
    Setting(
        "realtime_payload_bytes",
        str(25 * MIB),
        _whole(1, MAX_PAYLOAD),
        "Largest real-time request and response body; 6291456 is the older limit.",
    ),
    Setting("answer_limit_s", "60", _number(0.01, 3600), "Longest time for one answer."),
    Setting(
        "stream_limit_s",
        "480",
        _number(0.01, 3600),
        "Longest time for an answer that a real-time instance streams; its first part has"
        " EMULATOR_ANSWER_LIMIT_S.",
    ),
    Setting("serverless_start_s", "180", _number(0.01, 3600), "Longest serverless cold start."),
    Setting("realtime_start_s", "240", _number(0.01, 3600), "Longest start of an instance."),
    Setting(
        "serverless_concurrency_quota",
        "500",
        _whole(1, 100_000),
        "Sum of MaxConcurrency over the serverless endpoints of the region.",
    ),
    Setting(
        "serverless_memory_quota_mb",
        "6144",
        _whole(1024, 6144),
        "Largest MemorySizeInMB an endpoint may have; new AWS accounts have 3072.",
    ),
    Setting("serverless_endpoints_quota", "50", _whole(0, 10_000), "Serverless endpoints."),
    Setting(
        "instances_quota",
        "20",
        _whole(0, 100_000),
        "Instances of one type for the real-time endpoints of the region, and as many for its"
        " training jobs; new AWS accounts have fewer, of many types none.",
    ),
    Setting(
        "model_bytes",
        str(10 * 1024 * MIB),
        _whole(1, 1 << 50),
        "Largest unpacked size of a model archive.",
    ),
    Setting(
        "ledger_days",
        "0",
        _whole(0, 36_500),
        "Days after which the rows of invocations are dropped; 0 keeps them.",
    ),
    Setting(
        "settle_s",
        "5",
        _number(0, 60),
        "How long CreateEndpoint, UpdateEndpoint and DeleteEndpoint hold their answer for the"
        " endpoint to be there, changed or gone: clients that wait look every 30 s only.",
    ),
    Setting(
        "training_stop_s",
        "120",
        _number(0, 3600),
        "How long a training script that is asked to stop has before it is killed.",
    ),
    Setting(
        "training_requirements",
        "false",
        _switch,
        "Whether a training job may install its requirements.txt; it has a network then.",
    ),
    Setting(
        "companion_url",
        "builtin",
        _companion,
        "What answers for other AWS services: moto in this process, or an emulator elsewhere.",
    ),
    Setting(
        "auth",
        "auto",
        _one_of("auto", "off", "sigv4"),
        "Who may call. `sigv4`: who signs with the keys or has the token. `auto` is `off` while"
        " only this machine can reach the server, else `sigv4`.",
    ),
    Setting(
        "access_key_id",
        "generated",
        _made(4, "A-Za-z0-9_", "4 to 256 letters, digits and underscores"),
        "The access key that requests are signed with; `generated` prints one at the start.",
    ),
    Setting(
        "secret_access_key",
        "generated",
        _made(16, "!-~", "16 to 256 characters of ASCII without spaces"),
        "The secret of that access key.",
        secret=True,
    ),
    Setting(
        "token",
        "generated",
        _made(16, "A-Za-z0-9_.~+/-", "16 to 256 letters, digits or any of _ . ~ + / -"),
        "What opens `/billing`, `/_emulator` and the other pages without a signature.",
        secret=True,
    ),
    Setting(
        "hosts",
        "localhost",
        _names,
        "Host names, separated by commas, that our own REST answers to without authentication."
        " Addresses always work; `*` is any name.",
    ),
    Setting(
        "grace_s",
        "30",
        _number(0, 3600),
        "How long a stop waits for answers, unless uvicorn has --timeout-graceful-shutdown.",
    ),
    Setting(
        "connections",
        "16384",
        _whole(1, 1_000_000),
        "Most connections at a time; at most three quarters of the descriptors a process may have.",
    ),
    Setting("head_bytes", "65536", _whole(8192, 16 * MIB), "Largest head of a request."),
    Setting("head_fields", "256", _whole(16, 65_536), "Most headers of a request."),
    Setting("head_s", "30", _number(0.1, 3600), "Longest time for a client to send a head."),
    Setting("body_s", "120", _number(0.1, 3600), "Longest time for a client to send a body."),
    Setting(
        "bodies_bytes",
        str(1024 * MIB),
        _whole(MIB, 1 << 50),
        "Most bytes of bodies on their way to the server; above it the oldest are refused.",
    ),
    Setting("delivery_s", "120", _number(0.1, 3600), "Longest time for it to take an answer."),
    Setting("access_log", "false", _switch, "Whether uvicorn logs a line per request."),
    Setting("log_level", "info", _one_of("debug", "info", "warning", "error"), "Log level."),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The settings in force, parsed. One field a row of TABLE, of the same name."""

    region: str
    account: str
    state_dir: Path
    prices: Path | None  # None: in the state directory
    clock: str
    sandbox: str
    runtime: str
    python: str  # empty: the server's own
    isolation: str
    keep_warm_s: tuple[float, float]
    cold_start: str
    profile: str
    seed: int
    bill_startup: bool
    cpu_share: bool
    batch: int
    compile: bool
    serverless_payload_bytes: int
    realtime_payload_bytes: int
    answer_limit_s: float
    stream_limit_s: float
    serverless_start_s: float
    realtime_start_s: float
    serverless_concurrency_quota: int
    serverless_memory_quota_mb: int
    serverless_endpoints_quota: int
    instances_quota: int
    model_bytes: int
    ledger_days: int
    settle_s: float
    training_stop_s: float
    training_requirements: bool
    companion_url: str  # empty: the one in this process
    auth: str
    access_key_id: str  # empty: to be generated, as are the next two
    secret_access_key: str = field(repr=False)
    token: str = field(repr=False)
    hosts: frozenset[str]
    grace_s: float
    connections: int
    head_bytes: int
    head_fields: int
    head_s: float
    body_s: float
    bodies_bytes: int
    delivery_s: float
    access_log: bool
    log_level: str

    @property
    def price_folder(self) -> Path:
        """Where price tables of one's own are."""
        return self.prices or self.state_dir / "prices"


def read(environ: Mapping[str, str], directory: Path | None = None) -> Config:
    """The settings that `environ` and the settings file in `directory` make.

    Raises SetupError naming the first setting that is unknown or does not parse, its value, and
    what was expected.
    """
    written = _from_file(environ, directory or Path.cwd())
    for variable, raw in environ.items():
        if variable.startswith(PREFIX) and variable != PREFIX + "CONFIG":
            written[variable.removeprefix(PREFIX).lower()] = (raw, f"the variable {variable}")
    known = {setting.name: setting for setting in TABLE}
    for name, (_, place) in written.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f" did you mean {PREFIX}{close[0].upper()}?" if close else ""
            raise SetupError(
                f"There is no setting {name!r} (from {place});{meant} docs/settings.md lists them "
                "all."
            )
    return Config(**{name: _parse(setting, written) for name, setting in known.items()})


def _parse(setting: Setting, written: Mapping[str, tuple[str, str]]) -> Any:
    raw, place = written.get(setting.name, (setting.default, "the defaults"))
    try:
        return setting.parse(raw)
    except NotUnderstood as expected:
        given = "not understood" if setting.secret else repr(raw)
        raise SetupError(
            f"The setting {setting.variable} is {given} (from {place}); expected {expected}."
        ) from None


def _from_file(environ: Mapping[str, str], directory: Path) -> dict[str, tuple[str, str]]:
    named = environ.get(PREFIX + "CONFIG")
    path = Path(named) if named else directory / FILE
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if named:
            raise SetupError(f"The settings file {path} (EMULATOR_CONFIG) is not there.") from None
        return {}
    except (OSError, ValueError) as error:
        raise SetupError(f"The settings file {path} cannot be read: {error}.") from None
    return {name: (_as_text(value), f"the file {path}") for name, value in content.items()}


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
