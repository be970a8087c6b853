"""Images and audio from messages: what is read, what is refused, and that nothing else is ever opened."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
import tiny_models as tiny
from failing_messages import message
from PIL import Image

from transforms.models import objects
from transforms.models.errors import ElementError, InvalidInput
from transforms.models.tasks import media, pictures, sounds


def written(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_common_image_formats_are_read(kind: str) -> None:
    """Each becomes RGB of its own size."""
    image = pictures.decode_image(written(tiny.picture(20, 10), kind))
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_photos_are_turned_upright() -> None:
    """A camera's orientation mark is obeyed, as transformers does."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pictures.decode_image(written(tiny.picture(20, 10), "JPEG", exif=exif)).size == (10, 20)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA"])
def test_formats_that_other_programs_read_are_refused(kind: str) -> None:
    """PostScript never reaches Ghostscript."""
    with pytest.raises(InvalidInput, match="not an image that can be read"):
        pictures.decode_image(written(tiny.picture(), kind))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    """A few kilobytes that would fill a quarter of a gigabyte are an element's failure."""
    bomb = written(Image.new("1", (9_000, 9_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(InvalidInput, match="9000×9000 pixels"):
        pictures.decode_image(bomb)


@pytest.mark.parametrize(
    "inputs",
    [
        "http://169.254.169.254/",
        "https://example.com/a.png",
        "file:///etc/passwd",
        "s3://bucket/key",
        "",
        b"",
        None,
        5,
        ["x"],
    ],
)
def test_nothing_but_base64_bytes_and_gs_uris_is_taken(inputs: object) -> None:
    """No other URI is fetched, and no path opened."""
    with pytest.raises(InvalidInput):
        media.check_media(inputs)


def test_a_path_is_not_opened(tmp_path: Path) -> None:
    """The name of a file that exists is bad base64, not that file."""
    path = tmp_path / "cat.png"
    path.write_bytes(tiny.png(tiny.picture()))
    assert isinstance(media.read_all([media.check_media(str(path))], pictures.decode_image)[0], ElementError)


def test_base64_may_be_a_data_uri() -> None:
    """``data:image/png;base64,…`` is what it holds."""
    data = tiny.png(tiny.picture())
    plain, uri = media.read_all([tiny.b64(data), "data:image/png;base64," + tiny.b64(data)], lambda raw: raw)
    assert plain == uri == data


def test_an_object_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's file systems read it; one over the limit, or one that is not there, is an element's failure."""
    path = tmp_path / "object"
    path.write_bytes(b"12345")
    assert objects.read_object(str(path)) == b"12345"
    with pytest.raises(InvalidInput, match="cannot be read"):
        objects.read_object(str(tmp_path / "none"))
    monkeypatch.setattr(objects, "MAX_BYTES", 4)
    with pytest.raises(InvalidInput, match="over 4 bytes"):
        objects.read_object(str(path))


def test_audio_is_mixed_to_mono_and_resampled() -> None:
    """Stereo at 44.1 kHz becomes mono at 16 kHz: the same tone, of the same length."""
    tone = tiny.tone(0.5, 440, 44_100)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes((np.stack([tone, tone], axis=1) * 32767).astype("<i2").tobytes())
    sound = sounds.decode_audio(buffer.getvalue(), 16_000)
    assert sound.dtype == np.float32 and abs(len(sound) - 8000) <= 1
    assert np.argmax(np.abs(np.fft.rfft(sound))) == pytest.approx(220, abs=1)


@pytest.mark.parametrize("data", [b"RIFF", b"not audio", tiny.wav(np.empty(0, np.float32))])
def test_what_is_no_audio_is_refused(data: bytes) -> None:
    """Bytes that libsndfile cannot read, or that hold no sample."""
    with pytest.raises(InvalidInput, match="inputs is"):
        sounds.decode_audio(data, 16_000)


@pytest.mark.parametrize("decode", [pictures.decode_image, lambda data: sounds.decode_audio(data, 16_000)])
def test_the_reason_is_the_same_every_time(decode: Callable[[bytes], object]) -> None:
    """No address of an object in memory is in it, so that dead letters of one cause stand together."""
    with pytest.raises(InvalidInput) as caught:
        decode(b"neither")
    assert "object at" not in str(caught.value)


def test_audio_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is counted, whatever the header says."""
    monkeypatch.setattr(sounds, "MAX_SAMPLES", 100)
    with pytest.raises(InvalidInput, match="more than 100 samples"):
        sounds.decode_audio(tiny.wav(tiny.tone()), 16_000)


def test_sixteen_bits_of_grey_are_as_eight() -> None:
    """The picture of the report has its 69 levels, not two; a TIFF that counts from white is turned round."""
    levels = np.asarray(pictures.decode_image(message("grey-16-bit").data))
    assert len(np.unique(levels)) == 69
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    tiff = written(Image.fromarray(grey), "TIFF", tiffinfo={262: 0})
    assert (np.asarray(pictures.decode_image(tiff))[..., 0] == 255 - (grey >> 8)).all()


def test_thirty_two_bits_are_refused() -> None:
    """Nobody knows what white is in a picture of floats."""
    with pytest.raises(InvalidInput, match="32 bits a pixel"):
        pictures.decode_image(written(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0garbage", b"Exif\0\0", b"\xff" * 200])
def test_odd_exif_refuses_no_picture(exif: bytes) -> None:
    """What cannot be read of a camera's notes says nothing."""
    assert pictures.decode_image(written(tiny.picture(20, 10), "JPEG", exif=exif)).size == (20, 10)


@pytest.mark.parametrize("kind", pictures.FORMATS)
def test_a_picture_that_was_cut_off_is_refused_or_whole(kind: str) -> None:
    """Wherever it was cut, no picture with made-up pixels comes out."""
    data = written(tiny.picture(40, 30), kind)
    whole = np.asarray(pictures.decode_image(data))
    for end in range(0, len(data), max(1, len(data) // 40)):
        try:
            assert (np.asarray(pictures.decode_image(data[:end])) == whole).all()
        except InvalidInput:
            continue


def test_base64_in_every_dress() -> None:
    """With line breaks (the case of the report), without padding, for URLs, and as a data URI of any capitals."""
    wrapped = orjson.loads(message("base64-wrapped").data)["inputs"]
    raw = bytes(range(256)) * 3 + b"x"
    plain = tiny.b64(raw)
    urls = plain.replace("+", "-").replace("/", "_").rstrip("=")
    forms = ["\r\n".join([plain[:76], plain[76:]]), plain.rstrip("="), urls, "DATA:x/y;BASE64," + urls]
    forms += [
        "data:image/png; base64,\n" + plain,
        "data:;name=x;base64," + plain.replace("+", "%2B").replace("=", "%3D"),
    ]
    assert [media.read_one(form) for form in forms] == [raw] * len(forms)
    assert pictures.decode_image(media.read_one(wrapped)).size == (40, 30)
    for bad in ("data:text/plain,hi", "a", "ab!c", "é" * 8):
        with pytest.raises(InvalidInput):
            media.read_one(bad)


def test_a_cut_off_mp3_has_only_what_was_decoded() -> None:
    """The recording of the report ends where its bytes do, and not in another recording's samples."""
    assert len(sounds.decode_audio(message("truncated-mp3").data, 16_000)) == 2_927


@pytest.mark.parametrize(
    ("kind", "coding"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", None),
    ],
)
def test_a_recording_that_was_cut_off_is_refused_or_its_beginning(kind: str, coding: str | None) -> None:
    """Every sample of a cut file is one of the whole file, in every format."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, tiny.tone(0.5), 16_000, format=kind, subtype=coding)
    data = buffer.getvalue()
    whole = sounds.decode_audio(data, 16_000)
    for end in range(0, len(data), len(data) // 40):
        try:
            part = sounds.decode_audio(data[:end], 16_000)
        except InvalidInput:
            continue
        assert np.array_equal(part, whole[: len(part)])


@pytest.mark.parametrize("said", [0, 8001, 1 << 33])
def test_a_flac_of_no_known_length_is_read(said: int) -> None:
    """As one that was written into a pipe, which says none, or one that says more than there is."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, tiny.tone(0.5), 16_000, format="FLAC")
    data = bytearray(buffer.getvalue())
    whole = sounds.decode_audio(bytes(data), 16_000)
    data[21] = data[21] & 0xF0 | said >> 32  # STREAMINFO's 36 bits of samples
    data[22:26] = (said & 0xFFFFFFFF).to_bytes(4, "big")
    assert len(whole) == 8_000 and np.array_equal(sounds.decode_audio(bytes(data), 16_000), whole)


def test_a_slow_recording_is_bounded_after_resampling() -> None:
    """Twenty kilobytes at one sample a second would be 640 MB at the model's rate."""
    with pytest.raises(InvalidInput, match="10,000 samples at 1 Hz"):
        sounds.decode_audio(tiny.wav(np.zeros(10_000, np.float32), 1), 16_000)


def odd_pictures() -> dict[str, bytes]:
    """Pictures as cameras, browsers and scanners write them, by what is odd about them."""
    plain = tiny.picture(40, 24)
    few, see_through = plain.quantize(16), Image.merge("RGBA", [*plain.split(), Image.new("L", plain.size, 0)])
    more = {"save_all": True, "append_images": [plain.rotate(180)]}
    turned = {}
    for turn in range(10):
        exif = Image.Exif()
        exif[0x0112] = turn
        turned |= {f"{kind} turned {turn}": written(plain, kind, exif=exif) for kind in ("JPEG", "PNG", "TIFF")}
    return {
        "a palette with a transparent colour": written(few, "PNG", transparency=3),
        "a palette with many": written(few, "PNG", transparency=bytes(range(0, 256, 16))),
        "CMYK": written(plain.convert("CMYK"), "JPEG"),
        "CMYK as TIFF": written(plain.convert("CMYK"), "TIFF"),
        "moving GIF": written(few, "GIF", save_all=True, append_images=[few.rotate(90)]),
        "moving WebP": written(plain, "WEBP", lossless=True, **more),
        "moving PNG": written(plain, "PNG", **more),
        "moving PNG with a still": written(plain, "PNG", default_image=True, **more),
        "pages": written(plain, "TIFF", **more),
        "a telephone's two pictures": written(plain, "MPO", **more),
        "one pixel": written(plain.resize((1, 1)), "PNG"),
        "three rows": written(plain.resize((40, 3)), "PNG"),
        "grey and alpha": written(plain.convert("LA"), "PNG"),
        "all transparent": written(see_through, "PNG"),
        "one bit": written(plain.convert("1"), "PNG"),
        "a fax": written(plain.convert("1"), "TIFF", compression="group4"),
        "junk at the end": written(plain, "JPEG") + b"junk" * 100,
        "no end": written(plain, "PNG")[:-12],
        "a profile that is none": written(plain, "JPEG", icc_profile=b"x" * 200),
        **turned,
    }


def test_odd_pictures_are_what_transformers_would_read() -> None:
    """Every pixel is the one that transformers' own ``load_image`` sees: first frame, upright, no transparency."""
    from PIL import ImageOps

    for name, data in odd_pictures().items():
        theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        ours = pictures.decode_image(data)
        assert ours.size == theirs.size and np.array_equal(np.asarray(ours), np.asarray(theirs)), name


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x18ftypheic" + bytes(100),
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        written(tiny.picture(), "ICO"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>404 not found</html>",
        written(tiny.picture().resize((1, 20_000)), "PNG"),
        written(tiny.picture().convert("F"), "TIFF"),
    ],
    ids=["HEIC", "JPEG 2000", "ICO", "SVG", "a page", "a line", "32 bits"],
)
def test_pictures_that_nobody_promised_to_read(data: bytes) -> None:
    """They are the message's failure, and say so."""
    with pytest.raises(InvalidInput, match="inputs is (not )?an image"):
        pictures.decode_image(data)


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_a_recording_of_no_numbers_is_refused(worst: float) -> None:
    """One NaN among its samples would be in every number that the model makes of it."""
    import soundfile

    samples, buffer = tiny.tone(0.1), io.BytesIO()
    samples[100] = worst
    soundfile.write(buffer, samples, 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(InvalidInput, match="NaN or infinity among its samples"):
        sounds.decode_audio(buffer.getvalue(), 8_000)


_CODINGS = {
    "WAV": ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    "WAVEX": ("PCM_24",),
    "RF64": ("PCM_16",),
    "FLAC": ("PCM_S8", "PCM_24"),
}


@pytest.mark.parametrize(("kind", "coding"), [(kind, coding) for kind, own in _CODINGS.items() for coding in own])
def test_every_coding_is_the_same_sound(kind: str, coding: str) -> None:
    """Whatever the bits of a sample and the channels, what is heard is the tone that was written."""
    import soundfile

    tone, buffer = tiny.tone(0.2), io.BytesIO()
    soundfile.write(buffer, np.stack([tone] * 3, 1), 16_000, format=kind, subtype=coding)
    heard = sounds.decode_audio(buffer.getvalue(), 16_000)
    assert len(heard) == len(tone)
    np.testing.assert_allclose(heard, tone, atol=0.02)


@pytest.mark.parametrize("said", [0, 1, 1001, 10**6, 0xFFFFFFFF])
@pytest.mark.parametrize("before", [b"", b"LIST\5\0\0\0abcde\0"])
def test_a_wav_that_lies_about_its_length(said: int, before: bytes) -> None:
    """What is heard is there, whatever the header says: a stream's header was written before its end was known."""
    data = tiny.wav(tiny.tone(0.1))
    place = data.index(b"data")
    lying = data[:place] + before + b"data" + said.to_bytes(4, "little") + data[place + 8 :]
    whole = sounds.decode_audio(data, 16_000)
    try:
        part = sounds.decode_audio(lying, 16_000)
    except InvalidInput:
        return
    assert np.array_equal(part, whole[: len(part)])


@pytest.mark.parametrize(
    ("form", "kind"), [("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("WAV", None)]
)
def test_two_recordings_in_one_file_are_refused(form: str, kind: str | None) -> None:
    """Of some the library would read the first alone, and say nothing of the other."""
    import soundfile

    one, other = io.BytesIO(), io.BytesIO()
    soundfile.write(one, tiny.tone(1.0), 16_000, format=form, subtype=kind)
    soundfile.write(other, tiny.tone(0.5, 220.0), 16_000, format=form, subtype=kind)
    assert len(sounds.decode_audio(one.getvalue(), 16_000)) == 16_000
    with pytest.raises(InvalidInput, match="inputs is"):
        sounds.decode_audio(one.getvalue() + other.getvalue(), 16_000)
