"""The zoo's tasks that hold labels or a question beside a picture or a recording, and that make sound of a text."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny_models as tiny
import transformers as t
from PIL import Image, ImageDraw
from tokenizers.processors import TemplateProcessing

from transforms.models.tasks.pictures import decode_image
from transforms.models.tasks.sounds import decode_audio
from zoo import media
from zoo.shrink import shrink
from zoo.tokenizer import byte_tokenizer

IMAGES = ("zero-shot-image-classification", "zero-shot-object-detection", "document-question-answering")
TASKS = (*IMAGES, "zero-shot-audio-classification", "text-to-audio")

#: Of which the texts are words between marks.
_WORDY = ("align", "blip", "blip-2", "chinese_clip", "grounding-dino", "layoutlm", "layoutlmv2", "mm-grounding-dino")

_LABELS = ["help", "a late order", "an invoice that was wrong"]


def save(folder: Path, task: str, kind: Any, model_of: Callable[[Any, Any], Any]) -> None:
    """Writes a tiny model of ``kind``, made by ``model_of`` of its class and configuration, and what reads for it.

    Raises:
      ImportError: what reads for it needs a package that is not here.
    """
    own = kind.config_class.model_type
    text = _tokenizer(own)
    ids = {f"{name}_token_id": getattr(text, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    words = media.words(kind.config_class) if task in IMAGES else {}
    model = model_of(kind, shrink(kind.config_class, len(text) + 40, **ids | words | _CONFIG.get(own, {})))
    model.save_pretrained(folder)
    text.save_pretrained(folder)
    if task in IMAGES:
        media.picture_processor(model.config).save_pretrained(folder)
    elif task == "zero-shot-audio-classification":
        size = model.config.audio_config.num_mel_bins
        t.ClapFeatureExtractor(feature_size=size, truncation="rand_trunc").save_pretrained(folder)


#: By model type, what no rule knows.
_CONFIG: dict[str, dict[str, Any]] = {
    "align": {"hidden_dim": 640},
    "owlvit": {"max_position_embeddings": 64},
    "owlv2": {"max_position_embeddings": 64},
    "vits": {"upsample_initial_channel": 32},
    "blip-2": {"use_qformer_text_input": True},
}


def _tokenizer(own: str) -> Any:
    if own in _WORDY:
        words = tiny.word_tokenizer(max_length=100)
        words.bos_token, words.eos_token = "[CLS]", "[SEP]"
        return words
    made = byte_tokenizer()
    made.unk_token = "<pad>"
    made.model_max_length = 64
    marks = [("<s>", made.bos_token_id), ("</s>", made.eos_token_id)]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=marks
    )
    return made


def _page(words: str, seed: int) -> str:
    """A page with ``words`` on it, in base64."""
    page = Image.new("RGB", (120 + 40 * seed, 80), "white")
    ImageDraw.Draw(page).text((5, 5), words, fill="black")
    written = io.BytesIO()
    page.save(written, "PNG")
    return tiny.b64(written.getvalue())


def _sounds() -> list[bytes]:
    """Of several lengths, one longer than a model hears at once."""
    return [*media.INPUTS["audio-classification"][0][:3], tiny.wav(tiny.tone(11.0, 330.0))]


def _given(task: str, each: Any, pipe: Any) -> Any:
    if task == "document-question-answering":
        return {**each, "image": decode_image(base64.b64decode(each["image"]))}
    if task == "text-to-audio":
        return each
    return decode_image(each) if task in IMAGES else decode_audio(each, pipe.feature_extractor.sampling_rate)


_PICTURES = media.INPUTS["image-classification"][0]
_QUESTIONS = [{"image": _page(words, i), "question": words} for i, words in enumerate(_LABELS)]

INPUTS: dict[str, tuple[Sequence[Any], Mapping[str, Any]]] = {
    "zero-shot-image-classification": (_PICTURES, {"candidate_labels": _LABELS}),
    "zero-shot-object-detection": (_PICTURES, {"candidate_labels": _LABELS, "threshold": 0.0}),
    "document-question-answering": (_QUESTIONS, {}),
    "zero-shot-audio-classification": (_sounds(), {"candidate_labels": _LABELS}),
    "text-to-audio": (["my order", "help", "a bill"], {}),
}
REFERENCES: dict[str, media.Reference] = {task: media.piped(task, _given, task in IMAGES) for task in TASKS}
