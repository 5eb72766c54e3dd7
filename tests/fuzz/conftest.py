"""One server for all that is thrown at it, how much that is, and how it has to look afterwards.

`LUKEWARM_EXAMPLES` is the number of inputs in all; `make fuzz` sets it to 100,000.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.raw import REALTIME
from tests.servers import Server, serving, until

SHORT = 800
EXAMPLES = int(os.environ.get("LUKEWARM_EXAMPLES", str(SHORT)))
SENT: Counter[str] = Counter()


def examples(number: int) -> settings:
    """So many inputs; the same ones each time in the short run, others in each long one."""
    return settings(
        max_examples=max(1, number),
        derandomize=EXAMPLES <= SHORT,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server; models are small here, or a fuzzer would come to copy the disk."""
    small = {"EMULATOR_MODEL_BYTES": "20000000", "EMULATOR_CLOCK": "virtual"}
    with serving(tmp_path_factory.mktemp("fuzz"), **small) as running:
        yield running


@pytest.fixture(autouse=True)
def _unharmed(target: Server) -> Iterator[None]:
    """No process died, nothing was logged as an error, and requests are answered."""
    pid, logged = target.process.pid, len(target.log.read_text(errors="replace"))
    yield
    assert target.process.poll() is None
    assert target.process.pid == pid
    until(lambda: target.client.get("/ping").status_code == 200, "every endpoint can answer")
    assert target.invoke(REALTIME).status_code == 200
    new = target.log.read_text(errors="replace")[logged:]
    assert "Traceback" not in new
    assert "ERROR" not in new


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SENT:
        parts = ", ".join(f"{name} {count:,}" for name, count in sorted(SENT.items()))
        terminalreporter.write_line(f"Fuzzing: {sum(SENT.values()):,} inputs ({parts}).")
