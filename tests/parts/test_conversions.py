"""What is taken for a conversion, and what happens where none can be kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from emulator.conversions import DESCRIPTION, DESCRIPTION_BYTES, Conversions, _described

GOOD = b'{"content": "1f", "converted": true, "note": "Converted."}'


def test_a_folder_that_cannot_be_used_leaves_a_model_to_tensorflow(tmp_path: Path) -> None:
    async def outcome() -> str:
        (tmp_path / "file").touch()
        (tmp_path / "model").mkdir()
        conversions = Conversions(tmp_path / "file" / "conversions", "off")
        try:
            found = await conversions.of(tmp_path / "model")
        finally:
            await conversions.close()
        assert found.directory is None
        return found.note

    pytest.importorskip("ai_edge_litert")
    assert asyncio.run(outcome()).startswith("The model could not be converted for LiteRT: ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"x": 1}',
        b'{"content": "1f", "converted": "yes", "note": ""}',
        b'{"content": "1f", "converted": true, "note": null}',
        b" " * DESCRIPTION_BYTES + GOOD,
    ],
)
def test_what_is_no_description_makes_no_conversion(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DESCRIPTION).write_bytes(content)
    assert _described(tmp_path) is None


def test_a_description(tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_bytes(GOOD)
    described = _described(tmp_path)
    assert described is not None
    assert described["converted"]
