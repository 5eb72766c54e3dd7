"""Environments are built once, whole or not at all, and old ones do not stay."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from tests.clients import environments
from tests.clients.environments import NAMES, REQUIREMENTS, TAG, NotBuilt, obtain


@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_pinned_and_name_no_host(name: str) -> None:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert not [line for line in pins if not re.match(r"[a-z0-9-]+==[\w.]+( ; .*)?$", line)]
    assert "://" not in "\n".join(lines)


def test_one_is_built_by_one_of_many_and_old_ones_go(tmp_path: Path) -> None:
    old = [tmp_path / "boto3" / f"{TAG}-{end}" for end in ("0123456789abcdef", "x.partial")]
    other = tmp_path / "boto3" / "cpython-27-0123456789abcdef"
    for folder in (*old, other):
        (folder / "bin").mkdir(parents=True)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(obtain("boto3", tmp_path))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (python,) = set(found)
    assert python.exists()
    assert {path.name for path in (tmp_path / "boto3").iterdir()} == {
        python.parent.parent.name,
        other.name,
    }


def test_one_that_cannot_be_built_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "boto3.txt").write_text("boto3==0.0.0.dev1\n")
    with pytest.raises(NotBuilt, match=r"boto3 cannot be built; .* package index"):
        obtain("boto3", tmp_path / "kept")
    assert list((tmp_path / "kept" / "boto3").iterdir()) == []
