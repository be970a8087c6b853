"""Pictures as models see them: upright, in RGB, eight bits a channel, and no larger than memory allows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from transforms.errors import quoted
from transforms.models.errors import InvalidInput, cut

#: Most pixels of an image before it is decoded: a small file can hold an image that fills all memory.
MAX_PIXELS = 64_000_000

#: How many times longer than the other a side may be: processors make the shorter one as long as the model wants it.
MAX_RATIO = 200

#: Image formats that are read. Pillow knows more, and hands some of them to other programs (EPS to Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

#: What turns a picture upright, by EXIF's orientation.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: TIFF's tags: bits a sample, whether zero is white, and the size of a tile, which libtiff takes memory for unseen.
_BITS, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323


def to_png(image: Image.Image) -> bytes:
    """``image`` as a PNG file."""
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def decode_image(data: bytes) -> Image.Image:
    """The image in ``data``, upright and in RGB; of 16 bits a channel, the upper eight.

    Raises:
      InvalidInput: it is no image that Pillow reads whole, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image)
            image.load()
            turn = _turn(image)
            upright = _to_rgb(image)
            return upright if turn is None else upright.transpose(turn)
    except (InvalidInput, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InvalidInput(f"inputs is not an image that can be read ({', '.join(FORMATS)})") from None
    except Exception as error:  # noqa: BLE001 (its plugins raise whatever a damaged file makes them)
        reason = quoted(cut(str(error) or type(error).__name__, 200))
        raise InvalidInput(f"inputs is not an image that can be read: {reason}") from None


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InvalidInput(
            f"inputs is an image of {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are taken"
        )
    if max(image.size) > MAX_RATIO * min(image.size):
        raise InvalidInput(
            f"inputs is an image of {image.width}×{image.height} pixels; a side may be {MAX_RATIO} times the other"
        )
    width, length = (_tag(image, tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if width * length > MAX_PIXELS:
        raise InvalidInput(f"inputs is an image in tiles of {width}×{length} pixels; at most {MAX_PIXELS:,} are taken")


def _tag(image: Image.Image, tag: int, otherwise: int) -> int:
    """A whole number that a TIFF says of itself."""
    value: Any = getattr(image, "tag_v2", {}).get(tag, otherwise)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else otherwise


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn ``image``; EXIF that cannot be read says nothing, and is no reason to refuse a picture."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 (as many kinds as there are cameras)
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would cut every value above 255 to white.
        grey = np.asarray(image) >> (_tag(image, _BITS, 16) - 8)
        image = Image.fromarray(255 - grey.astype(np.uint8) if _zero_is_white(image) else grey.astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InvalidInput(
            "inputs is an image of 32 bits a pixel, which does not say what white is; send 8 or 16 bits a channel"
        )
    return image.convert("RGB")


def _zero_is_white(image: Image.Image) -> bool:
    """Whether a TIFF counts from white to black; Pillow turns that round where there are eight bits, not sixteen."""
    return image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1) == 0
