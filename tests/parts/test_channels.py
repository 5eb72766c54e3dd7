"""What is brought into training jobs, without a job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path

from emulator.address import Home
from emulator.channels import Channels

HOME = Home("000000000000", "eu-west-3")
FILES = 20_000


class Nowhere:
    """A store that has nothing."""

    async def keys(self, url: str, home: Home) -> list[str]:
        return []

    async def fetch(self, url: str, home: Home, target: Path, limit_bytes: int) -> None:
        raise AssertionError(url)

    async def fetch_each(
        self, base: str, names: Iterable[str], home: Home, target: Path, limit_bytes: int
    ) -> None:
        raise AssertionError(base)

    async def put(self, url: str, home: Home, source: Path, content_type: str = "") -> None:
        raise AssertionError(url)


def test_data_that_nobody_waits_for_is_not_copied_on(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for number in range(FILES):
        (source / str(number)).touch()
    both = threading.Barrier(2)

    async def cancel() -> None:
        channels = Channels(Nowhere())
        bringing = asyncio.create_task(channels.bring(source.as_uri(), HOME, target))
        async with asyncio.timeout(60):
            while not (target.is_dir() and any(target.iterdir())):
                await asyncio.sleep(0)
        bringing.cancel()
        await asyncio.wait({bringing})
        assert bringing.cancelled()
        # There are two threads: when they can meet, the one that copied has ended that.
        await asyncio.gather(*(channels.apart(both.wait, 60) for _ in range(2)))
        channels.close()

    asyncio.run(cancel())
    assert 0 < sum(1 for _ in target.iterdir()) < FILES
