"""image-text-to-text: an image and a text, or a chat with images in it, to text."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from transforms.models.batching import Size
from transforms.models.chats import rendered
from transforms.models.errors import ElementError, InvalidInput, ModelLoadError, NotYet
from transforms.models.inputs import Ask
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, Task, by_row
from transforms.models.tasks.generation import Decoding, check_generation, generate, tokens_written
from transforms.models.tasks.media import in_turn, read_all
from transforms.models.tasks.pictures import decode_image
from transforms.models.tasks.tokenizer import load_tokenizer
from transforms.models.tasks.tokenizing import Encoder

#: Tokens that an image is taken to cost; models differ, and only planning depends on it.
TOKENS_AN_IMAGE = 576

#: Images in one message.
MAX_IMAGES = 16


class ImageTextToText(Task):
    """``inputs``: ``{"image", "text"}``, or a chat. ``prediction``: ``[{"generated_text"}]``: the new text only.

    A chat's ``content`` is a text, or a list of ``{"type": "text", "text"}`` and ``{"type": "image", "image"}`` (or
    ``{"type": "image_url", "image_url": {"url"}}`` with a data URI or a ``gs://`` URI).
    """

    entry = TASKS["image-text-to-text"]
    auto = (("AutoModelForImageTextToText", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"),)
    chunk = 16

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        # Generation is many forwards with a cache between them: past the engine, on the model itself.
        self.generator = self.model.module
        self.processor = _processor(loading.folder)
        self.processor.image_processor.fetch_images = _given
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        # Counts tokens while another thread's forward uses the processor's own tokenizer, which keeps state.
        self.counter = Encoder(load_tokenizer(loading.folder), None)

    def check(self, inputs: Any) -> tuple[Any, list[bytes | str]]:
        """The prompt (a text, or a chat whose images are marked), and the images in order."""
        prompt, images = super().check(inputs)
        if isinstance(prompt, str):
            return prompt, images
        if len(images) > MAX_IMAGES:
            raise InvalidInput(f"inputs has {len(images)} images; at most {MAX_IMAGES} are taken")
        if self.processor.chat_template is None:
            raise InvalidInput('inputs is a chat, and this model has no chat template; send {"image": …, "text": …}')
        # The templates take a list of parts only.
        return [{**message, "content": _parts(message["content"])} for message in prompt], images

    def examples(self, picture: str, words: str) -> Iterator[Any]:
        """Inputs about ``picture``, in base64, that models take; some want it marked in the text."""
        if self.processor.chat_template is not None:
            parts = [{"type": "image", "image": picture}, {"type": "text", "text": words}]
            yield [{"role": "user", "content": parts}]
        yield {"image": picture, "text": words}
        for name in ("boi_token", "image_token"):
            if hasattr(self.processor, name):
                yield {"image": picture, "text": f"{getattr(self.processor, name)}{words}"}

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        check_generation(parameters)

    def prepare(self, asks: Sequence[Ask]) -> Sequence[Prepared | ElementError | NotYet]:
        return in_turn(len(asks), lambda i: self._one(asks[i]))

    def _one(self, ask: Ask) -> Prepared | ElementError:
        prompt, sources = ask.inputs
        images = read_all(sources, decode_image)
        wrong = next((image for image in images if isinstance(image, ElementError)), None)
        if wrong is not None:
            return wrong
        text, complete = prompt, False
        if not isinstance(prompt, str):
            text = rendered(prompt, self.processor)
            # A template that writes the first mark writes them all; else the processor does, as in transformers.
            complete = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        ids = self.counter.encode([text])[0].ids
        decoding = Decoding(ask.parameters, self.generator.generation_config)
        length = len(ids) + len(images) * TOKENS_AN_IMAGE + decoding.new_tokens
        # A processor takes either images for all texts of a batch, or for none.
        encodes = bool(self.config.is_encoder_decoder)
        group = (decoding.group(object(), encodes), len(images), complete)
        before = [] if encodes else ids  # that much of a prompt an answer goes on after
        return Prepared(ask, (text, images, complete, before), Size(length, decoding.rows, group), len(ids))

    def forward(self, batch: Sequence[Prepared]) -> list[list[Any]]:
        decoding = Decoding(batch[0].ask.parameters, self.generator.generation_config)
        return generate(self.generator, self.tokenizer, self._inputs(batch), decoding, self.loading.spec.time_limit_s)

    def raw(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """The logits of each element's first two new tokens, for measuring: the second is of what the first kept."""
        made = self.generator.generate(
            **self._inputs(batch),
            **{"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False, "num_beams": 1},
            return_dict_in_generate=True,
            output_logits=True,
            tokenizer=self.tokenizer,
        )
        return by_row(made.logits, len(batch))

    def _inputs(self, batch: Sequence[Prepared]) -> dict[str, torch.Tensor]:
        """The prompts and pictures of ``batch`` as tensors on the device: what the model is given."""
        pictures = [prepared.rows[1] for prepared in batch]
        # As the pipeline gives them: Idefics' reads a picture of its own before the text, and one of a list after it.
        bare = len(batch) == 1 and isinstance(batch[0].ask.inputs[0], str)
        inputs = self.processor(
            images=(pictures[0] if bare else pictures) if pictures[0] else None,
            text=[prepared.rows[0] for prepared in batch],
            padding=True,
            return_tensors="pt",
            **({"add_special_tokens": False} if batch[0].rows[2] else {}),
        )
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }

    def tokens_written(self, output: Any) -> int:
        return tokens_written(output)

    def finish(self, outputs: list[list[Any]], batch: Sequence[Prepared]) -> list[Any]:
        return [
            rows[0]
            if isinstance(rows[0], ElementError)
            else [{"generated_text": self._text(prepared.rows[3], row)} for row in rows]
            for prepared, rows in zip(batch, outputs, strict=True)
        ]

    def _text(self, before: list[int], row: torch.Tensor) -> str:
        """The text of ``row`` where it goes on after ``before``: a space, or the end of a word, is lost at a start.

        As in ``transformers.pipeline`` it is the text of both, without that of ``before`` alone.
        """
        head = self.tokenizer.decode(before, skip_special_tokens=True)
        return str(self.tokenizer.decode([*before, *row.tolist()], skip_special_tokens=True))[len(head) :]


def _given(images: Any) -> Any:
    """``images`` as they are, in place of what a processor would fetch: Idefics' opens a text that is a link."""
    if isinstance(images, str):
        raise InvalidInput("inputs holds a text that is a link, which this model's processor opens; nothing is fetched")
    return [_given(each) for each in images] if isinstance(images, (list, tuple)) else images


def _processor(folder: Path) -> Any:
    """The model's processor, which reads pictures with PIL where it can, as every worker has that.

    One that reads films too does so with torchvision alone, and is then not there for PIL.

    Raises:
      ModelLoadError: it needs torchvision, and there is none.
    """
    how: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        return transformers.AutoProcessor.from_pretrained(folder, backend="pil", **how)
    except ImportError as error:
        if importlib.util.find_spec("torchvision") is None:
            raise ModelLoadError(
                "its processor needs torchvision, which is not installed; install the build that goes with your"
                " torch: pip install torchvision"
            ) from error
        return transformers.AutoProcessor.from_pretrained(folder, **how)


def _parts(content: str | list[dict[str, str]] | None) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []
