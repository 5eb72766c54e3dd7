"""What an environment is kept from. A kernel may offer less than another; so these tests ask what
it offers, expect all of it, and hold what is reported to what a hostile model really can do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from emulator.sandbox import landlock
from emulator.sandbox.protocol import (
    Environment,
    EnvironmentFailed,
    Invocation,
    Isolation,
    Sandbox,
    Spec,
)
from tests.sandbox.attempts import (
    HOSTILE,
    NAMESPACES,
    OFFERED,
    SOURCE,
    VERSION,
    hold,
    outside,
    succeeded,
)
from tests.sandbox.conftest import Run, Script, ask, told, until

BARE = (
    SOURCE
    + """
import sys
from pathlib import Path
from emulator.sandbox import isolation

wanted, version, enters, root, where = json.loads(sys.stdin.read())
if version is not None:
    isolation.landlock.abi = lambda: version  # as on an older kernel
enclosure = isolation.Enclosure(wanted)
if enters:
    enclosure.enter(Path(root))
    enclosure.seal(Path(root))
os.chdir(root + "/own")
report = enclosure.confine(Path(root, "own"), None)
print(json.dumps([report, attempt(where)]))
"""
)


@pytest.mark.parametrize("enters", [True, False], ids=["namespaces", "none"])
@pytest.mark.parametrize("version", range(VERSION + 1))
def test_each_layer_by_itself_is_reported_as_it_is(
    version: int, enters: bool, tmp_path: Path
) -> None:
    report, tried = bare("full", version, enters, tmp_path)
    sealed = enters and NAMESPACES
    assert report.network == ("none" if version >= 4 or sealed else "open")
    assert (report.files == "open") == (not version and not sealed)
    hold(report, tried, sealed, version == 1)


@pytest.mark.parametrize("wanted", ["full", "files", "off"])
def test_no_more_is_kept_from_it_than_is_wanted(wanted: str, tmp_path: Path) -> None:
    report, tried = bare(wanted, None, True, tmp_path)
    network = OFFERED.network if wanted == "full" else "open"
    assert report == (
        Isolation() if wanted == "off" else Isolation(network, OFFERED.files, OFFERED.signals)
    )
    hold(report, tried, wanted != "off" and NAMESPACES)


def bare(
    wanted: str, version: int | None, enters: bool, tmp_path: Path
) -> tuple[Isolation, dict[str, Any]]:
    """What a process without a runtime reports and can do; quick, and every kernel has it."""
    root = tmp_path / "root"
    (root / "own").mkdir(parents=True)
    (root / "other").mkdir()
    with outside(tmp_path / "outside", os.getpid(), root / "other" / "file") as where:
        done = subprocess.run(
            [sys.executable, "-c", BARE],
            input=orjson.dumps([wanted, version, enters, str(root), where]),
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
    report, tried = orjson.loads(done.stdout)
    return Isolation(**report), tried


def test_a_hostile_model_gets_nowhere(
    run: Run, processes: Sandbox, script: Script, commands: Path, tmp_path: Path
) -> None:
    """Not to the server, its state, its zygote or a sibling, nor to its own model."""

    async def look() -> None:
        sibling = await processes.start(Spec("e/v/1", commands))
        home = (await told(sibling, "folders"))[0]
        environment = await processes.start(Spec("e/v/2", script(HOSTILE)))
        assert environment.isolation == OFFERED
        for pid in {os.getpid(), sibling.pid, parent(environment.pid)}:
            with outside(tmp_path / f"outside-{pid}", pid, Path(home, "file")) as where:
                tried = await asked(environment, where)
            hold(environment.isolation, tried, NAMESPACES)
            if VERSION:
                assert not succeeded(tried)["memory"]
        for place in (str(Path.home()), "/tmp", "/dev/shm", str(tmp_path / "code")):
            with outside(tmp_path / f"outside{place.replace('/', '-')}", os.getpid()) as where:
                tried = await asked(environment, where | {"other": f"{place}/of-a-model"})
            hold(environment.isolation, tried, NAMESPACES)
        await asyncio.gather(environment.stop(), sibling.stop())

    run(look())


async def asked(environment: Environment, where: dict[str, Any]) -> dict[str, Any]:
    (reply,) = await environment.invoke([Invocation(orjson.dumps(where), "", "")])
    assert reply.status == 200, reply.body
    tried: dict[str, Any] = orjson.loads(reply.body)
    return tried


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


REST = """
    import json, urllib.error, urllib.request

    def handler(data, context):
        uri = data.read().decode() or context.rest_uri
        body = b'{"instances": %s}' % json.dumps([[[0.5] * 28] * 28]).encode()
        if uri == "where":
            return context.rest_uri, "text/plain"
        try:
            with urllib.request.urlopen(uri, body, timeout=20) as answer:
                return answer.read(), "application/json"
        except urllib.error.URLError as error:
            return str(error.reason.errno), "text/plain"
"""


def test_a_handler_reaches_its_own_rest_port_and_no_siblings(
    run: Run, processes: Sandbox, script: Script
) -> None:
    model = script(REST)

    async def look() -> None:
        one, two = await asyncio.gather(*(processes.start(Spec(f"e/v/{i}", model)) for i in (1, 2)))
        own = await ask(one, "")
        assert len(orjson.loads(own.body)["predictions"][0]) == 10
        uri = await ask(two, "where")
        other = await ask(one, uri.body.decode())
        if VERSION >= landlock.NETWORK or processes.name == "spawn":
            assert other.body.isdigit(), other.body
        await asyncio.gather(one.stop(), two.stop())

    run(look())


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("open('/etc/of-a-model', 'w')", "It can write only below its working directory"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), 5)", "It has no network"),
        ("import socket; socket.getaddrinfo('example.com', 80)", "It has no network"),
        ("import socket; socket.socket(socket.AF_UNIX)", "It has no network"),
    ],
)
def test_a_model_that_needs_more_is_told_why_it_fails(
    run: Run, fork: Sandbox, script: Script, statement: str, said: str
) -> None:
    expected = {"It has": OFFERED.network, "It can": OFFERED.files}[said[:6]] != "open"

    async def load() -> None:
        with pytest.raises(EnvironmentFailed, match=r"inference\.py cannot be imported") as failed:
            await fork.start(Spec("e/v/1", script(statement)))
        assert (said in failed.value.message) == expected
        assert ("EMULATOR_ISOLATION=" in failed.value.message) == expected

    async def serve() -> None:
        lines: list[str] = []
        handler = f"def handler(data, context):\n    {statement}"
        environment = await fork.start(Spec("e/v/1", script(handler), log=lines.append))
        reply = await ask(environment, "")
        assert reply.status == 500
        if expected:
            await until(lambda: any(line.startswith(said) for line in lines))
        await environment.stop()

    run(load())
    run(serve())
