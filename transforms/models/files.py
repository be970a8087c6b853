"""The files of a model folder: which are read, how JSON is, and a hash that names their content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from transforms.models.errors import ModelLoadError

#: The files that a model is read from: weights, configuration, vocabulary and templates.
READ = (".json", ".safetensors", ".txt", ".model", ".jinja")

#: Of each weights file, this many blocks of this size are hashed: 16 MiB, some 20 ms, whatever the model's size.
_BLOCKS, _BLOCK_BYTES = 256, 64 * 1024


def read_json(data: bytes, name: str) -> Any:
    """``data`` as JSON.

    Raises:
      ModelLoadError: it is not.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{name}: not JSON ({error}); the model folder is damaged, fetch it again") from None


def hash_folder(folder: Path) -> str:
    """A stable name for a local folder's content: ``sha256:`` and 40 hex digits.

    Small files are hashed whole. Of each weights file the size and 256 evenly spaced blocks are, which tells any two
    trainings apart in milliseconds where a full hash of a large model takes minutes; it is no proof against forgery.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.name.endswith(READ)):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _BLOCKS * _BLOCK_BYTES:
                digest.update(file.read())
                continue
            for block in range(_BLOCKS):
                file.seek(block * (size - _BLOCK_BYTES) // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return f"sha256:{digest.hexdigest()[:40]}"
