"""Safetensors files looked at without being read: that each holds all that its header says, and that none is missing.

A download that broke off, or a disk that was full, leaves a file that begins as it should.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath

from transforms.models.errors import ModelLoadError

#: The longest header that the format allows (https://github.com/huggingface/safetensors#format).
_LONGEST_HEADER = 100_000_000
#: Number formats that say what they hold.
_NUMBERS = frozenset({"F64", "F32", "F16", "BF16"})
_POINTER = b"version https://git-lfs"


def check_weights(folder: Path, model: str, task: str) -> None:
    """Looks at the weights in ``folder``.

    Raises:
      ModelLoadError: a file was cut off, is none, holds numbers of an unknown scale, or is named by the index and not
        there, or not in the folder.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            said = json.loads(index.read_bytes())
            named = set(said["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelLoadError(
                f"`model={model}`: cannot be loaded for {task}: {index.name} is no index of weights; fetch it again"
            ) from None
        foreign = next((str(name) for name in sorted(map(str, named)) if not _may_be_read(name)), None)
        if foreign is not None:
            raise ModelLoadError(
                f"`model={model}`: cannot be loaded for {task}: {index.name} names {foreign[:100]!r}, which is no"
                " safetensors file in the model's own folder; fetch the model again"
            )
        lacking = sorted(str(name) for name in named if not (folder / str(name)).is_file())
        if lacking:
            raise ModelLoadError(
                f"`model={model}`: cannot be loaded for {task}: {index.name} names {lacking[0]!r}, which is not there"
                f"{f' ({len(lacking)} files are lacking)' if len(lacking) > 1 else ''}; fetch the model again"
            )
        if not isinstance(said.get("metadata"), dict):  # transformers reads it
            raise ModelLoadError(
                f"`model={model}`: cannot be loaded for {task}: {index.name} has no metadata; fetch it again"
            )
    scaled = _scaled(folder)
    for file in sorted(folder.glob("*.safetensors")):
        why = _fault(file, scaled)
        if why:
            raise ModelLoadError(f"`model={model}`: cannot be loaded for {task}: {file.name} {why}")


def size(folder: Path, half: bool) -> int:
    """Bytes that the weights in ``folder`` take in memory; ``half`` where float32 is halved as it is loaded."""
    total = 0
    for file in folder.rglob("*.safetensors"):
        with file.open("rb") as opened:
            header = int.from_bytes(opened.read(8), "little")
            halved = half and b'"dtype":"F32"' in opened.read(min(header, 10_000))
        total += (file.stat().st_size - 8 - header) // (2 if halved else 1)
    return total


def _may_be_read(name: str) -> bool:
    """Whether transformers, which opens what an index names, would open safetensors of this very folder."""
    path = PurePath(name)
    return path.suffix == ".safetensors" and not path.is_absolute() and ".." not in path.parts


def _scaled(folder: Path) -> bool:
    """Whether the model's configuration says how its numbers are scaled, in a way that transformers knows."""
    from transformers.quantizers import AutoHfQuantizer

    try:
        said = json.loads((folder / "config.json").read_bytes()).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return False
    return bool(said) and isinstance(said, dict) and bool(AutoHfQuantizer.supports_quant_method(dict(said)))


def _fault(file: Path, scaled: bool) -> str:
    """What is wrong with ``file``, with the way out; nothing if it is whole."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if (start + opened.read(len(_POINTER) - 8)) == _POINTER:
            return "is a pointer of Git LFS and no weights; run: git lfs pull"
        length = int.from_bytes(start, "little")
        opened.seek(8)
        if len(start) < 8 or length > min(_LONGEST_HEADER, size - 8):
            return f"was cut off in its header, at {size:,} bytes, or is no safetensors file; fetch it again"
        try:
            header = json.loads(opened.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            needs = 8 + length + max(ends, default=0)
            whole = [(name, entry["dtype"]) for name, entry in header.items() if name.endswith(".weight")]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "has a header that cannot be read; fetch it again"
    if size < needs:
        return f"was cut off: it has {size:,} of its {needs:,} bytes; fetch it again"
    strange = next(((name, dtype) for name, dtype in whole if dtype not in _NUMBERS and not scaled), None)
    if strange:
        return (
            f"holds {strange[0]} as {strange[1]}, and config.json does not say how that is scaled"
            " (quantization_config); use the weights before they were quantised"
        )
    return ""
