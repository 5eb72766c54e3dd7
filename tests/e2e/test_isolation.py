"""What is said of isolation, and what a model can do to the server that runs it."""

from __future__ import annotations

from pathlib import Path

from tests.sandbox.attempts import (
    HOSTILE,
    NAMESPACES,
    OFFERED,
    VERSION,
    hold,
    outside,
    succeeded,
)
from tests.servers import Server, archive, serverless, until


def test_a_model_gets_nowhere_near_the_server_and_that_is_shown(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, HOSTILE)))
    (shown,) = server.environments(name)
    said = {key: getattr(OFFERED, key) for key in ("network", "files", "signals")}
    assert shown["isolation"] == said
    ledger = server.state / "ledger.sqlite"
    with outside(server.state / name, server.process.pid, ledger) as where:
        where["tcp"] = server.port
        answer = server.client.post(f"/endpoints/{name}/invocations", json=where)
    assert answer.status_code == 200, answer.text
    tried = answer.json()
    hold(OFFERED, tried, NAMESPACES)
    assert not (VERSION and succeeded(tried)["memory"])

    def left() -> list[Path]:
        return list((server.state / "scratch").glob("*/*/0/a/b/mine"))

    assert len(left()) == 1
    server.evict(name)
    until(lambda: not left(), "its scratch folder is gone")
