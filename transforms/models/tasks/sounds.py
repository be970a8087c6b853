"""Recordings as models hear them: mono, at the model's own rate, and only what was really decoded."""

from __future__ import annotations

import io
import re

import numpy as np

from transforms.errors import quoted
from transforms.models.errors import InvalidInput, cut

#: Most samples of a recording, as it is and at the model's rate: half an hour at 48 kHz.
MAX_SAMPLES = 1800 * 48_000

#: Codings of which libsndfile decodes what is there. Of the others it decodes the last block whole, if cut off or not,
#: and so the memory that was to hold it.
_STREAMS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "VORBIS", "OPUS", "MPEG_")

#: What is followed by what, where a recording comes after another: of OGG any page but a stream's first, and then a
#: first; of MP3 a count of frames, and another. libsndfile would read the first alone. Of FLAC and WAV it refuses two.
_COUNT = re.compile(rb"(?:Xing|Info)\0\0\0[\0-\x0f]")
_SEVERAL = ((re.compile(rb"OggS\0[\0\1\4\5]"), re.compile(rb"OggS\0[\2\6]")), (_COUNT, _COUNT))

#: Samples read at once, all channels together.
_BLOCK = 1 << 20


def decode_audio(data: bytes, rate: int) -> np.ndarray:
    """The sound in ``data`` as mono float32 at ``rate`` samples a second.

    A recording that was cut off is what is there of it: its header's count of samples is not believed.

    Raises:
      InvalidInput: it is no sound that libsndfile reads (WAV, FLAC, OGG, MP3), too long, or not of finite numbers.
    """
    try:
        samples, own_rate = _read(data)
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (libsndfile's own, and those of reading a damaged file)
        # The library's own message names the object in memory that was read.
        reason = quoted(cut(str(getattr(error, "error_string", error)) or type(error).__name__, 200))
        raise InvalidInput(f"inputs is not audio that can be read (WAV, FLAC, OGG, MP3): {reason}") from None
    if not np.isfinite(samples).all():
        raise InvalidInput("inputs is audio with NaN or infinity among its samples")
    if len(samples) and own_rate != rate:
        if len(samples) * rate > MAX_SAMPLES * own_rate:
            raise InvalidInput(
                f"inputs is audio of {len(samples):,} samples at {own_rate:,} Hz; at the model's {rate:,} Hz that is"
                f" over the {MAX_SAMPLES:,} samples that are taken"
            )
        import soxr

        samples = soxr.resample(samples, own_rate, rate)
    if not len(samples):
        raise InvalidInput("inputs is audio without a single sample")
    return np.ascontiguousarray(samples, np.float32)


def _read(data: bytes) -> tuple[np.ndarray, int]:
    """The samples, mixed to mono, and their rate."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if not file.subtype.startswith(_STREAMS) and not _is_whole_wav(data):
            raise InvalidInput(f"inputs is audio in {file.subtype} that was cut off, or is not in a WAV file")
        if file.format in ("OGG", "MPEG", "MP3") and _is_several(data):
            raise InvalidInput("inputs is several recordings in one file, one after the other; send each by itself")
        # soundfile seeks after each read, at which a FLAC fails that does not say its length: a pipe wrote it.
        file.seekable = lambda: False
        # In blocks, so that many channels are never in memory at once.
        room = np.empty((max(1, _BLOCK // file.channels), file.channels), np.float32)
        blocks: list[np.ndarray] = []
        count = 0
        while len(block := file.read(out=room)):  # what was read of it; the rest of the room is old memory
            count += len(block)
            if count > MAX_SAMPLES:
                raise InvalidInput(f"inputs is audio of more than {MAX_SAMPLES:,} samples; at most that many are taken")
            blocks.append(block.mean(axis=1))
        return np.concatenate(blocks) if blocks else np.empty(0, np.float32), file.samplerate


def _is_several(data: bytes) -> bool:
    """Whether ``data``, OGG or MP3, is recordings one after the other."""
    found = ((first.search(data), then) for first, then in _SEVERAL)
    return any(one is not None and then.search(data, one.end()) is not None for one, then in found)


def _is_whole_wav(data: bytes) -> bool:
    """Whether ``data`` is a WAV file with all the samples that its header says."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return False
    place = 12
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        if data[place : place + 4] == b"data":
            return 0 < size <= len(data) - place - 8
        place += 8 + size + size % 2
    return False
