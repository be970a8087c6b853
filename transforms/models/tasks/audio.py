"""audio-classification and automatic-speech-recognition."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import transformers

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidParameter, ModelLoadError, NotYet
from transforms.models.inputs import Ask
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, Task, Watch, by_row, label_function, non_finite, to_numpy
from transforms.models.tasks.media import read_each
from transforms.models.tasks.sounds import decode_audio
from transforms.models.tasks.tokenizer import load_tokenizer
from transforms.models.tasks.vision import classify

#: Samples of audio that cost as much as one token: 20 ms at 16 kHz, one frame of the usual encoders.
SAMPLES_A_TOKEN = 320


#: Pieces that one recording may be read in.
MAX_PIECES = 2_000

#: Parameters of models that generate their text, which CTC models do not.
_GENERATE = frozenset({"max_new_tokens", "num_beams", "language", "task"})


class AudioTask(Task):
    """``inputs``: one recording, of any rate and number of channels."""

    chunk = 64

    def __init__(self, loading: Loading) -> None:
        for package in ("soundfile", "soxr"):
            if importlib.util.find_spec(package) is None:
                raise ModelLoadError(
                    f"{self.entry.name} needs {package}; install it: pip install 'beam-hf-inference[audio]'"
                )
        super().__init__(loading)
        self.extractor = transformers.AutoFeatureExtractor.from_pretrained(
            loading.folder, trust_remote_code=False, local_files_only=True
        )
        rate = getattr(self.extractor, "sampling_rate", None)
        if not isinstance(rate, int) or rate < 1:
            raise ModelLoadError(f"sampling_rate in preprocessor_config.json is {rate!r}; it must be samples a second")

    def prepare(self, asks: Sequence[Ask]) -> Sequence[Prepared | ElementError | NotYet]:
        rate = self.extractor.sampling_rate
        return read_each([ask.inputs for ask in asks], lambda i, data: self.one(asks[i], decode_audio(data, rate)))

    def one(self, ask: Ask, sound: np.ndarray) -> Prepared | ElementError:
        """An element of one recording, or what is wrong with it."""
        raise NotImplementedError

    def raw(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """What the model makes of each of ``batch``, for measuring."""
        return by_row(self.forward(batch), len(batch))


class AudioClassification(AudioTask):
    """``prediction``: ``[{"label", "score"}]``, best first, five unless ``top_k`` says otherwise."""

    entry = TASKS["audio-classification"]
    auto = (("AutoModelForAudioClassification", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES"),)

    def one(self, ask: Ask, sound: np.ndarray) -> Prepared:
        features = self.extractor(sound, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        # Only equal shapes share a forward: many of these models average over padding as if it were sound.
        group = tuple(tuple(value.shape) for value in features.values())
        return Prepared(ask, features, Size(max(1, len(sound) // SAMPLES_A_TOKEN), 1, group))

    def forward(self, batch: Sequence[Prepared]) -> np.ndarray:
        names = list(batch[0].rows)
        inputs = {name: torch.cat([prepared.rows[name] for prepared in batch]).to(self.device) for name in names}
        floats = {name: v.to(self.dtype) if v.is_floating_point() else v for name, v in inputs.items()}
        return to_numpy(self.model.forward(**floats).logits)

    def finish(self, outputs: np.ndarray, batch: Sequence[Prepared]) -> list[Any]:
        # transformers scores audio with softmax even where there is a single label.
        usual = "softmax" if self.config.problem_type is None else label_function(self.config)
        return classify(outputs, batch, usual, self.config.id2label)


class SpeechRecognition(AudioTask):
    """``prediction``: ``{"text"}``, with ``chunks`` of ``{"text", "timestamp"}`` where ``return_timestamps`` asks.

    Decoding (CTC, Whisper's segments and words, long recordings) is transformers' own.
    """

    entry = TASKS["automatic-speech-recognition"]
    auto = (
        ("AutoModelForCTC", "MODEL_FOR_CTC_MAPPING_NAMES"),
        ("AutoModelForSpeechSeq2Seq", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"),
    )
    chunk = 32

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        # Whisper and its kin generate, in transformers' own pipeline: past the engine, on the model itself.
        module, make = self.model.module, cast(Any, transformers.pipeline)
        self.pipeline = make(
            self.entry.name,
            model=module,
            feature_extractor=self.extractor,
            tokenizer=load_tokenizer(loading.folder),
            device=self.device,
        )
        self.watch = Watch(module)
        self.generates = self.model.generates
        # Frames of each recording in a padded batch; transformers' pipeline would decode the padding too.
        self.frames: Any = None if self.generates else getattr(module, "_get_feat_extract_output_lengths", None)
        # Group normalisation averages over padding, and other inputs than waves are not padded here.
        self.pads = self.frames is not None and getattr(self.config, "feat_extract_norm", "") == "layer"
        # Whisper makes 30 seconds of every recording that is not longer.
        self.fixed = self.extractor.n_samples if self.config.model_type == "whisper" else 0

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        if not self.generates:
            wrong = _GENERATE & parameters.keys()
            if wrong:
                raise InvalidParameter(f"parameters.{min(wrong)}: this model does not generate; leave it out")
            if parameters.get("return_timestamps") is True:
                raise InvalidParameter('parameters.return_timestamps=True: this model takes "word" or "char"')
        elif parameters.get("return_timestamps") == "char":
            raise InvalidParameter('parameters.return_timestamps="char": this model takes true or "word"')

    def one(self, ask: Ask, sound: np.ndarray) -> Prepared | ElementError:
        wrong = self._too_many_pieces(ask.parameters, len(sound) / self.extractor.sampling_rate)
        if wrong:
            return wrong
        chunked = "chunk_length_s" in ask.parameters
        together = not chunked and (self.pads or len(sound) <= self.fixed)
        group = (tuple(sorted(ask.parameters.items())), None if together else len(sound))
        return Prepared(ask, sound, Size(max(1, len(sound) // SAMPLES_A_TOKEN), 1, group))

    def _too_many_pieces(self, given: Mapping[str, Any], seconds: float) -> InvalidParameter | None:
        chunk = given.get("chunk_length_s")
        if chunk is None:
            return None
        stride = given.get("stride_length_s", chunk / 6)  # transformers' own default, on either side
        step = chunk - 2 * stride
        if step > 0 and seconds <= MAX_PIECES * step:
            return None
        return InvalidParameter(
            f"parameters.chunk_length_s={chunk:g}: less stride_length_s={stride:g} on either side that is over"
            f" {MAX_PIECES:,} pieces of {seconds:.1f} s; make them longer"
        )

    def forward(self, batch: Sequence[Prepared]) -> list[Any]:
        if self.pads and "chunk_length_s" not in batch[0].ask.parameters:
            return self._decode_frames(batch)
        return self._run_pipeline(batch)

    def raw(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """The frames of each recording, for measuring; only of models that ``pads``."""
        rate = self.extractor.sampling_rate
        inputs = self.extractor(
            [prepared.rows for prepared in batch],
            sampling_rate=rate,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        logits = self.model.forward(
            input_values=inputs["input_values"].to(self.dtype), attention_mask=inputs["attention_mask"]
        ).logits
        counts = self.frames(inputs["attention_mask"].sum(-1)).tolist()
        return [own[:count] for own, count in zip(logits, counts, strict=True)]

    def _decode_frames(self, batch: Sequence[Prepared]) -> list[Any]:
        """CTC: the likeliest token of each frame, padding left out, then transformers' own decoding."""
        answers: list[Any] = []
        for frames, prepared in zip(self.raw(batch), batch, strict=True):
            if not frames.isfinite().all():
                answers.append(non_finite())
                continue
            stamps = prepared.ask.parameters.get("return_timestamps") or None
            tokens = frames[None].argmax(-1).cpu()
            answers.append(self.pipeline.postprocess([{"tokens": tokens}], return_timestamps=stamps))
        return answers

    def _run_pipeline(self, batch: Sequence[Prepared]) -> list[Any]:
        """Whisper and other generating models, and long recordings in chunks: transformers' pipeline as it is."""
        given = {name: value for name, value in batch[0].ask.parameters.items() if value is not False}
        generate = {name: given.pop(name) for name in _GENERATE if name in given}
        if generate:
            given["generate_kwargs"] = generate
        rate = self.extractor.sampling_rate
        sounds = [{"raw": prepared.rows, "sampling_rate": rate} for prepared in batch]
        self.watch.seen = False
        answers: list[Any] = self.pipeline(sounds, batch_size=len(sounds), **given)
        if self.watch.seen:
            raise non_finite()  # beside others: the batch is halved until the culprit stands alone
        # What else comes along is of the model's inside (Cohere's has the number of a piece).
        return [{name: answer[name] for name in ("text", "chunks") if name in answer} for answer in answers]

    def finish(self, outputs: list[Any], batch: Sequence[Prepared]) -> list[Any]:
        return outputs
