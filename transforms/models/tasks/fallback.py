"""Tasks without an adapter of their own: ``transformers.pipeline``, under the same planning and isolation."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from transforms.models.batching import Size
from transforms.models.errors import ElementError, NotYet
from transforms.models.inputs import Ask
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, Task, Watch, non_finite
from transforms.models.tasks.media import read_each
from transforms.models.tasks.pictures import decode_image, to_png
from transforms.models.tasks.sounds import decode_audio
from transforms.models.tasks.tokenizer import load_tokenizer
from transforms.models.tasks.vision import PIXELS_A_TOKEN, load_image_processor


class Fallback(Task):
    """A task on ``transformers.pipeline``. Images in the prediction become base64 PNG, as on an endpoint.

    ``media`` is what ``inputs`` holds, decoded before the pipeline sees it: a pipeline would open any path or URL.
    """

    chunk = 16

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        # The pipeline runs the model itself, past the engine.
        self.watch = Watch(self.model.module)
        make: Any = transformers.pipeline
        self.pipeline = make(self.entry.name, model=self.model.module, device=self.device, **self.parts())

    def parts(self) -> dict[str, Any]:
        """What the pipeline needs beside the model."""
        return {"image_processor": load_image_processor(self.loading.folder)}

    def prepare(self, asks: Sequence[Ask]) -> Sequence[Prepared | ElementError | NotYet]:
        return read_each([ask.inputs for ask in asks], lambda i, data: self.one(asks[i], self.decode(data)))

    def decode(self, data: bytes) -> Any:
        """The image or sound that the pipeline reads."""
        return decode_image(data)

    def one(self, ask: Ask, decoded: Any) -> Prepared:
        """An element; pipelines do not batch mixed shapes, so each runs in a forward of its own."""
        length = max(1, decoded.width * decoded.height // PIXELS_A_TOKEN) if isinstance(decoded, Image.Image) else 1
        return Prepared(ask, decoded, Size(length, 1, object()))

    def forward(self, batch: Sequence[Prepared]) -> list[Any]:
        return [self._one(prepared) for prepared in batch]

    def _one(self, prepared: Prepared) -> Any:
        self.watch.seen = False
        with _chance(self.device):
            answer = self.pipeline(prepared.rows, **prepared.ask.parameters)
        return non_finite() if self.watch.seen else answer

    def finish(self, outputs: list[Any], batch: Sequence[Prepared]) -> list[Any]:
        return [output if isinstance(output, ElementError) else to_json(output) for output in outputs]


@contextmanager
def _chance(device: torch.device) -> Iterator[None]:
    """What is drawn by chance within (VITS' sound, the piece of a recording that CLAP hears) is the same every time."""
    before = np.random.get_state()  # noqa: NPY002 (transformers draws from it)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


def to_json(value: Any) -> Any:
    """``value`` with tensors as arrays and images as base64 PNG."""
    if isinstance(value, Mapping):
        return {str(name): to_json(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, torch.Tensor):
        return np.ascontiguousarray(value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy())
    if isinstance(value, Image.Image):
        return base64.b64encode(to_png(value)).decode("ascii")
    return value


class ImageSegmentation(Fallback):
    """``prediction``: ``[{"score", "label", "mask"}]``, each mask a black and white PNG."""

    entry = TASKS["image-segmentation"]
    auto = (
        ("AutoModelForImageSegmentation", "MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES"),
        ("AutoModelForSemanticSegmentation", "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES"),
        ("AutoModelForUniversalSegmentation", "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES"),
    )


class DepthEstimation(Fallback):
    """``prediction``: ``{"predicted_depth", "depth"}``: the depth of each pixel, and a grey PNG of it."""

    entry = TASKS["depth-estimation"]
    auto = (("AutoModelForDepthEstimation", "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES"),)


class ZeroShotObjectDetection(Fallback):
    """``prediction``: ``[{"score", "label", "box"}]`` for the message's ``candidate_labels``."""

    entry = TASKS["zero-shot-object-detection"]
    auto = (("AutoModelForZeroShotObjectDetection", "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES"),)

    def parts(self) -> dict[str, Any]:
        return {**super().parts(), "tokenizer": load_tokenizer(self.loading.folder)}


class ZeroShotAudioClassification(Fallback):
    """``prediction``: ``[{"score", "label"}]`` over the message's ``candidate_labels``."""

    entry = TASKS["zero-shot-audio-classification"]
    auto = (("AutoModel", "MODEL_MAPPING_NAMES"),)

    @classmethod
    def architectures(cls) -> set[str]:
        """Those that embed sounds and texts alike."""
        return {"ClapModel"}

    def parts(self) -> dict[str, Any]:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(
            self.loading.folder, trust_remote_code=False, local_files_only=True
        )
        self.decode = partial(decode_audio, rate=extractor.sampling_rate)  # type: ignore[method-assign]
        return {"feature_extractor": extractor, "tokenizer": load_tokenizer(self.loading.folder)}


class TextToAudio(Fallback):
    """``inputs``: a text. ``prediction``: ``{"audio", "sampling_rate"}``, the samples between -1 and 1."""

    entry = TASKS["text-to-audio"]
    auto = (
        ("AutoModelForTextToWaveform", "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES"),
        ("AutoModelForTextToSpectrogram", "MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES"),
    )

    def parts(self) -> dict[str, Any]:
        return {"tokenizer": load_tokenizer(self.loading.folder)}

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        return [Prepared(ask, ask.inputs, Size(len(ask.inputs), 1, object())) for ask in asks]


class DocumentQuestionAnswering(Fallback):
    """``inputs``: ``{"image", "question"}``. ``prediction``: ``[{"score", "answer", "start", "end"}]``."""

    entry = TASKS["document-question-answering"]
    auto = (("AutoModelForDocumentQuestionAnswering", "MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES"),)

    def parts(self) -> dict[str, Any]:
        return {**super().parts(), "tokenizer": load_tokenizer(self.loading.folder)}

    def prepare(self, asks: Sequence[Ask]) -> Sequence[Prepared | ElementError | NotYet]:
        return read_each(
            [ask.inputs["image"] for ask in asks],
            lambda i, data: self.one(asks[i], {**asks[i].inputs, "image": decode_image(data)}),
        )


FALLBACKS: tuple[type[Fallback], ...] = (
    ImageSegmentation,
    DepthEstimation,
    ZeroShotObjectDetection,
    ZeroShotAudioClassification,
    TextToAudio,
    DocumentQuestionAnswering,
)
