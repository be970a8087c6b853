"""image-classification, image-feature-extraction, zero-shot-image-classification and object-detection."""

from __future__ import annotations

import inspect
import os
from collections.abc import Hashable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from transforms.errors import quoted
from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidInput, InvalidParameter, ModelLoadError, NotYet, cut
from transforms.models.inputs import Ask
from transforms.models.parameters import fill
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import (
    Loading,
    Prepared,
    Scores,
    Task,
    by_row,
    finite_rows,
    label_function,
    non_finite,
    sigmoid,
    softmax,
    to_numpy,
    top,
)
from transforms.models.tasks.media import read_each
from transforms.models.tasks.pictures import decode_image
from transforms.models.tasks.tokenizer import load_tokenizer

#: Pixels of a processed image that cost as much as one token: a 16 by 16 patch.
PIXELS_A_TOKEN = 256


def load_image_processor(folder: str | os.PathLike[str]) -> Any:
    """The folder's image processor, on Pillow: torchvision need not be there, and both give the same pixels."""
    return transformers.AutoImageProcessor.from_pretrained(
        folder, backend="pil", trust_remote_code=False, local_files_only=True
    )


class ImageTask(Task):
    """``inputs``: one image. Only images of equal processed size share a forward, so none is padded."""

    chunk = 64

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        self.processor = load_image_processor(loading.folder)
        # What goes along with pixels of any shape (SigLIP 2's patches); a mask says nothing where nothing is padded.
        forward = getattr(self.model.module, "forward", self.model.forward)
        self.beside = {"pixel_values", *inspect.signature(forward).parameters} - {"pixel_mask"}

    def prepare(self, asks: Sequence[Ask]) -> Sequence[Prepared | ElementError | NotYet]:
        # Processed as soon as decoded: what the model sees of a picture is far smaller than the picture.
        return read_each([ask.inputs for ask in asks], lambda i, data: self.one(asks[i], decode_image(data)))

    def one(self, ask: Ask, image: Image.Image) -> Prepared:
        """An element of one processed image."""
        try:
            made = self.processor(images=[image], return_tensors="pt")
        except ValueError as error:
            raise InvalidInput(
                f"inputs is an image that the model's processor refuses: {quoted(cut(str(error), 200))}"
            ) from error
        if "pixel_values" not in made:
            raise ModelLoadError(
                f"{type(self.processor).__name__} makes {', '.join(made)} of a picture, and {self.entry.name} reads"
                " pixel_values; use a model that sees pixels"
            )
        pixels = made["pixel_values"]
        parts = {name: each for name, each in made.items() if name in self.beside and isinstance(each, torch.Tensor)}
        length = max(1, pixels.shape[-1] * pixels.shape[-2] // PIXELS_A_TOKEN)
        # Who cuts a picture into several has as many as it has places for.
        alike = (tuple(tuple(each.shape[1:]) for each in parts.values()), self.group(ask))
        group: Hashable = alike if len(pixels) == 1 else object()
        return Prepared(ask, (parts, (image.height, image.width)), Size(length, len(pixels), group))

    def group(self, ask: Ask) -> Hashable:
        """What must be equal, beside the size, for two messages to share a forward."""
        return None

    def raw(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """What the model makes of each of ``batch``, for measuring."""
        return by_row(self.forward(batch), len(batch))

    def pixels(self, batch: Sequence[Prepared]) -> dict[str, torch.Tensor]:
        """The images of ``batch`` as tensors on the device: what the model is given."""
        joined = {name: torch.cat([prepared.rows[0][name] for prepared in batch]) for name in batch[0].rows[0]}
        return {
            name: each.to(self.device, self.dtype if each.is_floating_point() else None)
            for name, each in joined.items()
        }


class ImageClassification(ImageTask):
    """``prediction``: ``[{"label", "score"}]``, best first, five unless ``top_k`` says otherwise."""

    entry = TASKS["image-classification"]
    auto = (("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),)

    def forward(self, batch: Sequence[Prepared]) -> np.ndarray:
        return to_numpy(self.model.forward(**self.pixels(batch)).logits)

    def finish(self, outputs: np.ndarray, batch: Sequence[Prepared]) -> list[Any]:
        return classify(outputs, batch, label_function(self.config), self.config.id2label)


def classify(logits: np.ndarray, batch: Sequence[Prepared], usual: str, labels: Mapping[int, str]) -> list[Any]:
    """The best of ``labels`` for each row by the function ``usual``, five unless its ``top_k`` says otherwise."""
    scores, finite = Scores(logits), finite_rows(logits)
    answers: list[Any] = []
    for i, prepared in enumerate(batch):
        if finite is not None and not finite[i]:
            answers.append(non_finite())
            continue
        given = prepared.ask.parameters
        row = scores.by(given.get("function_to_apply", usual))[i]
        answers.append(top(row, given.get("top_k", 5), labels))
    return answers


class ImageFeatureExtraction(ImageTask):
    """``prediction``: the last hidden state ``[1, patches, width]``; with ``pool`` the pooled one, ``[1, width]``."""

    entry = TASKS["image-feature-extraction"]
    auto = (("AutoModel", "MODEL_MAPPING_NAMES"),)

    @classmethod
    def architectures(cls) -> set[str]:
        """Empty: any architecture has a body that embeds."""
        return set()

    def may_miss(self, key: str) -> bool:
        return "pooler" in key

    def forward(self, batch: Sequence[Prepared]) -> tuple[np.ndarray, np.ndarray | None]:
        outputs = self.model.forward(**self.pixels(batch))
        pooled = getattr(outputs, "pooler_output", None)
        return to_numpy(outputs[0]), None if pooled is None else to_numpy(pooled)

    def finish(self, outputs: tuple[np.ndarray, np.ndarray | None], batch: Sequence[Prepared]) -> list[Any]:
        hidden, pooled = outputs
        answers: list[Any] = []
        for i, prepared in enumerate(batch):
            pool = prepared.ask.parameters.get("pool", False)
            if pool and pooled is None:
                answers.append(InvalidParameter("parameters.pool=True: this model has no pooled output; leave it out"))
                continue
            found: np.ndarray = pooled if pool and pooled is not None else hidden
            features = found if len(batch) == 1 else found[i : i + 1]
            answers.append(features if np.isfinite(features).all() else non_finite())
        return answers


class ZeroShotImageClassification(ImageTask):
    """``prediction``: ``[{"label", "score"}]`` over the message's ``candidate_labels``, best first."""

    entry = TASKS["zero-shot-image-classification"]
    auto = (("AutoModelForZeroShotImageClassification", "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES"),)

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        self.tokenizer = load_tokenizer(loading.folder)
        self.siglip = "siglip" in self.config.model_type

    def group(self, ask: Ask) -> Hashable:
        form = ask.parameters.get("hypothesis_template", "This is a photo of {}.")
        return tuple(fill(form, label) for label in ask.parameters["candidate_labels"])

    def forward(self, batch: Sequence[Prepared]) -> np.ndarray:
        texts = list(self.group(batch[0].ask))  # type: ignore[call-overload]
        # SigLIP was trained on texts padded to 64 tokens, and scores others wrongly.
        fixed = {"padding": "max_length", "max_length": 64} if self.siglip else {"padding": True}
        words = self.tokenizer(texts, return_tensors="pt", truncation=True, **fixed).to(self.device)
        return to_numpy(self.model.forward(**words, **self.pixels(batch)).logits_per_image)

    def finish(self, outputs: np.ndarray, batch: Sequence[Prepared]) -> list[Any]:
        finite = finite_rows(outputs)
        scores = sigmoid(outputs) if self.siglip else softmax(outputs)
        return [
            top(scores[i], None, dict(enumerate(prepared.ask.parameters["candidate_labels"])))
            if finite is None or finite[i]
            else non_finite()
            for i, prepared in enumerate(batch)
        ]


class ObjectDetection(ImageTask):
    """``prediction``: ``[{"score", "label", "box": {"xmin", "ymin", "xmax", "ymax"}}]`` over ``threshold`` (0.5)."""

    entry = TASKS["object-detection"]
    auto = (("AutoModelForObjectDetection", "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES"),)
    chunk = 16

    def forward(self, batch: Sequence[Prepared]) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model.forward(**self.pixels(batch))
        return outputs.logits.float().cpu(), outputs.pred_boxes.float().cpu()

    def raw(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        # The order of the regions is no part of an answer, and turns on the last digit where two score alike.
        logits, boxes = self.forward(batch)
        return by_row((logits.sort(1).values, boxes.sort(1).values), len(batch))

    def finish(self, outputs: tuple[torch.Tensor, torch.Tensor], batch: Sequence[Prepared]) -> list[Any]:
        logits, boxes = outputs
        answers: list[Any] = []
        for i, prepared in enumerate(batch):
            if not (logits[i].isfinite().all() and boxes[i].isfinite().all()):
                answers.append(non_finite())
                continue
            found = self.processor.post_process_object_detection(
                SimpleNamespace(logits=logits[i : i + 1], pred_boxes=boxes[i : i + 1]),
                prepared.ask.parameters.get("threshold", 0.5),
                torch.tensor([prepared.rows[1]]),
            )[0]
            corners = [dict(zip(_CORNERS, box.int().tolist(), strict=True)) for box in found["boxes"]]
            labels = [self.config.id2label[label] for label in found["labels"].tolist()]
            answers.append(
                [
                    {"score": score, "label": label, "box": box}
                    for score, label, box in zip(found["scores"].tolist(), labels, corners, strict=True)
                ]
            )
        return answers


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
