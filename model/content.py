"""What identifies a model: the hash of the files that its functions come from."""

from __future__ import annotations

import hashlib
from pathlib import Path

CODE = "code"  # handlers stand around the model's functions and do not change them


def digest(model_dir: Path) -> str:
    """SHA-256, in hexadecimal, of the names and contents of all files of an unpacked archive but
    those below `code/`. It reads them all, which takes seconds for gigabytes."""
    whole = hashlib.sha256()
    for path in sorted(model_dir.rglob("*")):
        relative = path.relative_to(model_dir)
        if relative.parts[0] == CODE or not path.is_file():
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        whole.update(f"{relative.as_posix()}\0{content.hexdigest()}\n".encode())
    return whole.hexdigest()
