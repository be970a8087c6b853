"""Images and audio from messages: raw bytes, base64, or a ``gs://`` URI. Nothing else is ever fetched or opened."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from apache_beam.io.filesystems import FileSystems
from PIL import Image, ImageOps, UnidentifiedImageError

from transforms.models.errors import ElementError, InvalidInput, brief

#: Most bytes read from a ``gs://`` URI; Pub/Sub itself carries 10 MB a message.
MAX_BYTES = 64 * 1024 * 1024

#: Most pixels of an image before it is decoded: a small file can hold an image that fills all memory.
MAX_PIXELS = 64_000_000

#: Image formats that are read. Pillow knows more, and hands some of them to other programs (EPS to Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

#: Most samples of a recording: half an hour at 48 kHz.
MAX_SAMPLES = 1800 * 48_000

#: Parallel reads from Cloud Storage.
_READERS = 16


def check_media(inputs: Any, what: str = "inputs") -> bytes | str:
    """``inputs`` as ``read_media`` takes it, before any of it is read.

    Raises:
      InvalidInput: it is neither bytes, nor base64, nor a ``gs://`` URI.
    """
    if isinstance(inputs, bytes) and inputs:
        return inputs
    if not isinstance(inputs, str) or not inputs:
        raise InvalidInput(
            f"{what}={brief(inputs)}: must be base64 or a gs:// URI (or raw bytes with a content-type of their own)"
        )
    if inputs.startswith("gs://"):
        return inputs
    if "://" in inputs[:20]:
        raise InvalidInput(f"{what}={brief(inputs)}: only gs:// URIs are read; send the content as base64 instead")
    return inputs


def read_all(sources: Sequence[bytes | str], decode: Callable[[bytes], Any]) -> list[Any]:
    """``decode`` of what each of ``sources`` holds, or its ``ElementError``; Cloud Storage is read in parallel."""

    def one(source: bytes | str) -> Any:
        try:
            return decode(_read(source))
        except ElementError as error:
            return error

    if any(isinstance(source, str) and source.startswith("gs://") for source in sources):
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(one, sources))
    return [one(source) for source in sources]


def _read(source: bytes | str) -> bytes:
    if isinstance(source, bytes):
        return source
    if source.startswith("gs://"):
        return _read_object(source)
    text = source.partition(",")[2] if source.startswith("data:") else source
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"inputs={brief(source)}: not base64 ({error})") from None


def _read_object(uri: str) -> bytes:
    try:
        with FileSystems.open(uri) as file:
            data = file.read(MAX_BYTES + 1)
    except Exception as error:  # noqa: BLE001 (each client library behind FileSystems has errors of its own)
        raise InvalidInput(f"inputs={brief(uri)}: cannot be read: {type(error).__name__}: {error}") from error
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"inputs={brief(uri)}: over {MAX_BYTES:,} bytes")
    return data


def decode_image(data: bytes) -> Image.Image:
    """The image in ``data``, upright and in RGB.

    Raises:
      InvalidInput: it is no image that Pillow reads, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InvalidInput(
                    f"inputs is an image of {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are taken"
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise InvalidInput(f"inputs is not an image that can be read ({', '.join(FORMATS)})") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"inputs is not an image that can be read: {error}") from None


def decode_audio(data: bytes, rate: int) -> np.ndarray:
    """The sound in ``data`` as mono float32 at ``rate`` samples a second.

    Raises:
      InvalidInput: it is no sound that libsndfile reads (WAV, FLAC, OGG, MP3), or too long.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.frames > MAX_SAMPLES:
                raise InvalidInput(f"inputs is audio of {file.frames:,} samples; at most {MAX_SAMPLES:,} are taken")
            own_rate = file.samplerate
            # In blocks, so that many channels are never in memory at once.
            blocks = [block.mean(axis=1) for block in file.blocks(1 << 20, dtype="float32", always_2d=True)]
            samples = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        # The library's own message names the object in memory that was read.
        reason = getattr(error, "error_string", error)
        raise InvalidInput(f"inputs is not audio that can be read (WAV, FLAC, OGG, MP3): {reason}") from None
    if not len(samples):
        raise InvalidInput("inputs is audio without a single sample")
    if own_rate != rate:
        import soxr

        samples = soxr.resample(samples, own_rate, rate)
    return np.ascontiguousarray(samples, np.float32)
