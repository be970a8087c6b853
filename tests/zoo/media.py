"""The zoo's pictures and recordings: tiny models of their tasks, what they are asked, and transformers' own answers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models as tiny
import torch
import transformers as t
from PIL import Image
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from transforms.models.tasks.fallback import to_json
from transforms.models.tasks.pictures import decode_image
from transforms.models.tasks.sounds import decode_audio
from transforms.models.tasks.vision import load_image_processor
from zoo.shrink import WIDTH, shrink
from zoo.tokenizer import byte_tokenizer

IMAGES = (
    "image-classification",
    "image-feature-extraction",
    "object-detection",
    "image-segmentation",
    "depth-estimation",
)
SOUNDS = ("audio-classification", "automatic-speech-recognition")
TASKS = (*IMAGES, *SOUNDS)

#: Parameters that a model may still have: four stages of doubling width are no fewer.
MOST = 120_000_000

#: Tokens that a recogniser writes at the most.
WRITTEN = 8

#: Sizes of configurations that only models of pictures and sounds have; lists go by the number of their stages.
_SMALL: Mapping[str, Any] = {
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "codevector_dim": 32,
    "xvector_output_dim": 32,
    "num_labels": 3,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "fusion_hidden_size": 32,
    "num_queries": 20,
    "num_groups": 4,
}
#: Lists that say how wide or how deep each stage is.
_STAGES = (
    *("depths", "hidden_sizes", "embed_dims", "embed_dim", "num_heads", "neck_hidden_sizes", "layer_depths"),
    *("decoder_hidden_sizes", "encoder_hidden_size", "num_attention_heads"),
)

#: Channels of the stages that a backbone hands on, and what a detector makes of them.
_BACKBONE = [16, 16, 32, 32]
_JOINED = {"encoder_in_channels": _BACKBONE[1:], "decoder_in_channels": [WIDTH] * 3}


def configs(architecture: Any, task: str) -> list[Callable[[], t.PreTrainedConfig]]:
    """Configurations for ``architecture``, the smallest first: each leaves more as its class has it.

    Raises:
      ImportError: its processor needs a package that is not here.
    """
    kind = architecture.config_class
    _processor(task, kind())
    vocabulary = len(_writer(architecture)) if task == "automatic-speech-recognition" else 64
    given = words(kind)
    own = {name: value for name, value in given.items() if name != "backbone_config"}
    default = {name: value for name, value in given.items() if "depth" in name or name == "num_labels"}
    return [
        lambda: shrink(kind, vocabulary, **given),
        lambda: shrink(kind, vocabulary, **own),
        lambda: kind(**default),
        lambda: kind(num_labels=3),
    ]


def run(folder: Path, task: str, model: Any) -> None:
    """One forward of the raw ``model``, on what the folder's own processor makes of a picture or a tone."""
    with torch.inference_mode():
        if task in IMAGES:
            model(**load_image_processor(folder)(images=[tiny.picture(64, 48)], return_tensors="pt"))
            return
        extractor = t.AutoFeatureExtractor.from_pretrained(folder)
        made = extractor(tiny.tone(1.0), sampling_rate=extractor.sampling_rate, return_tensors="pt")
        if model.can_generate():
            model.generate(**made, max_new_tokens=2)
        else:
            model(**made)


def words(kind: type[t.PreTrainedConfig]) -> dict[str, Any]:
    """What a configuration of ``kind`` is given beside what ``shrink`` makes of its sizes."""
    default = kind()
    found: dict[str, Any] = {name: value for name, value in _SMALL.items() if hasattr(default, name)}
    if "num_labels" in found:
        found |= {"id2label": {i: f"LABEL_{i}" for i in range(3)}, "label2id": {f"LABEL_{i}": i for i in range(3)}}
    for name, value in vars(default).items():
        if name in ("conv_dim", "tdnn_dim") and isinstance(value, (list, tuple)):
            found[name] = [32] * len(value)
        elif (
            name in ("out_indices", "backbone_out_indices")
            and isinstance(value, (list, tuple))
            and "num_hidden_layers" in vars(default)
        ):
            found |= {name: list(range(len(value))), "num_hidden_layers": max(2, len(value))}
        elif name in _STAGES and isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
            found[name] = _narrow(name, value)
    if getattr(default, "backbone_config", None) is not None:
        found["backbone_config"] = _backbone(default.backbone_config)
        found |= {name: value for name, value in _JOINED.items() if hasattr(default, name)}
    return found


def _backbone(own: Any) -> t.PreTrainedConfig:
    """A small one of ``own``'s kind where that is a row of equal layers, and else of convolutions."""
    if hasattr(own, "num_hidden_layers") and hasattr(own, "out_features"):
        names = [f"stage{i + 1}" for i in range(len(_BACKBONE))][-len(own.out_features) :]
        kept = {each: getattr(own, each) for each in ("reshape_hidden_states",) if hasattr(own, each)}
        return shrink(type(own), 64, num_hidden_layers=len(_BACKBONE), out_features=names, **kept)
    return t.ResNetConfig(
        embedding_size=16,
        hidden_sizes=_BACKBONE,
        depths=[1] * len(_BACKBONE),
        out_features=["stage2", "stage3", "stage4"],
    )


def _narrow(name: str, value: Sequence[int]) -> list[int]:
    if "depth" in name:
        return [1] * len(value)
    if "head" in name:
        return [min(each, 2) for each in value]
    return [16 * (i + 1) for i in range(len(value))]


def save_parts(folder: Path, task: str, model: Any) -> None:
    """The processor, and the tokenizer where a text comes out, as an ordinary folder has them."""
    _processor(task, model.config).save_pretrained(folder)
    if task == "automatic-speech-recognition":
        _writer(type(model)).save_pretrained(folder)
        if model.config.model_type == "whisper":
            said = json.loads((Path(tiny.whisper()) / "generation_config.json").read_bytes())
            (folder / "generation_config.json").write_text(json.dumps({**said, "max_new_tokens": WRITTEN}))


def _processor(task: str, config: t.PreTrainedConfig) -> Any:
    return picture_processor(config) if task in IMAGES else _extractor(config)


def _writer(architecture: Any) -> Any:
    """The tokenizer of a recogniser: of letters for the frames of CTC, Whisper's own, or of bytes."""
    if architecture.__name__.endswith("ForCTC"):
        return t.Wav2Vec2CTCTokenizer.from_pretrained(tiny.letters())
    if architecture.__name__.startswith("Whisper"):
        return t.WhisperTokenizer.from_pretrained(tiny.whisper())
    return byte_tokenizer()


#: What the folders of a model name where the mapping has nothing, or another.
_OF_FOLDERS = {
    **dict.fromkeys(("d_fine", "rt_detr_v2"), "RTDetrImageProcessor"),
    "dab-detr": "ConditionalDetrImageProcessor",
    "siglip2_vision_model": "Siglip2ImageProcessor",
    "wav2vec2-bert": "SeamlessM4TFeatureExtractor",
}


def picture_processor(config: t.PreTrainedConfig) -> Any:
    names = {**IMAGE_PROCESSOR_MAPPING_NAMES, **_OF_FOLDERS}.get(config.model_type, "ViTImageProcessor")
    if isinstance(names, Mapping):
        names = names.get("pil") or next(iter(names.values()))
    name = names if isinstance(names, str) else next(each for each in names if each)
    processor = getattr(t, name)()
    seen = getattr(config, "vision_config", config)
    if hasattr(processor, "max_num_patches"):
        processor.patch_size, processor.max_num_patches = seen.patch_size, 16
    if hasattr(processor, "clusters"):
        processor.clusters = np.random.default_rng(0).uniform(-1, 1, (config.vocab_size - 1, 3))
    side = getattr(seen, "image_size", None) or 224
    height, width = (side, side) if isinstance(side, int) else side
    for part in ("size", "crop_size", "pad_size"):
        own = dict(getattr(processor, part, None) or {})
        if "height" in own:
            setattr(processor, part, {"height": height, "width": width})
        elif "longest_edge" in own:
            both = {"shortest_edge": height, "longest_edge": height * 2}
            setattr(processor, part, both if "shortest_edge" in own else {"longest_edge": height})
        elif "shortest_edge" in own:
            setattr(processor, part, {"shortest_edge": height})
    if config.model_type == "lw_detr":  # its windows part a picture of one size evenly
        processor.size = {"height": 256, "width": 256}
    return processor


def _extractor(config: t.PreTrainedConfig) -> Any:
    names = {**FEATURE_EXTRACTOR_MAPPING_NAMES, **_OF_FOLDERS}
    name = names.get(config.model_type, "Wav2Vec2FeatureExtractor")
    kind = getattr(t, name)
    sizes = {each: getattr(config, each) for each in ("num_mel_bins", "max_length") if hasattr(config, each)}
    heard = getattr(config, "encoder_config", getattr(config, "audio_config", None))
    if hasattr(heard, "num_mel_bins"):
        sizes["feature_size"] = heard.num_mel_bins
    return kind(**{each: size for each, size in sizes.items() if each in inspect.signature(kind).parameters})


def _pictures() -> list[bytes]:
    """Of several sizes, shapes and kinds of pixel."""
    noise = [tiny.picture(width, height, seed) for seed, (width, height) in enumerate([(40, 30), (30, 64), (200, 90)])]
    grey, alpha = noise[0].convert("L"), noise[1].convert("RGBA")
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1))).convert("RGB")
    return [tiny.png(each) for each in (*noise, grey, alpha, ramp, noise[0])]


def _sounds() -> list[bytes]:
    """Of several lengths, rates and loudness; one of two channels."""
    tones = [tiny.tone(0.7), tiny.tone(1.5, 220.0), tiny.tone(0.7, 880.0) * 0.1, tiny.tone(2.2, 330.0)]
    return [*map(tiny.wav, tones), tiny.wav(tiny.tone(1.0, 440.0, 8000), 8000)]


Reference = Callable[..., list[Any]]


def piped(task: str, given: Callable[[str, Any, Any], Any], sees: bool) -> Reference:
    """What ``transformers.pipeline`` answers to each input, as ``given`` to it, its chance begun anew for each."""

    def reference(
        folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any], dtype: torch.dtype = torch.float32
    ) -> list[Any]:
        make: Any = t.pipeline
        own = {"image_processor": load_image_processor(folder)} if sees else {}
        pipe = make(task, model=str(folder), device="cpu", dtype=dtype, **own)
        answers: list[Any] = []
        for each in inputs:
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002 (CLAP's crops are taken by it)
            try:
                with torch.inference_mode():
                    answer = to_json(pipe(given(task, each, pipe), **parameters))
                # What else is in it is of the model's inside (Cohere's has the number of a piece).
                answers.append({"text": answer["text"]} if task == "automatic-speech-recognition" else answer)
            except Exception as error:
                answers.append(error)
        return answers

    return reference


def _decoded(task: str, data: bytes, pipe: Any) -> Any:
    if task in IMAGES:
        return decode_image(data)
    rate = pipe.feature_extractor.sampling_rate
    return {"raw": decode_audio(data, rate), "sampling_rate": rate}


INPUTS: dict[str, tuple[Sequence[Any], Mapping[str, Any]]] = {
    "image-classification": (_pictures(), {"function_to_apply": "none"}),
    "image-feature-extraction": (_pictures(), {}),
    "object-detection": (_pictures(), {"threshold": 0.0}),
    "image-segmentation": (_pictures(), {}),
    "depth-estimation": (_pictures(), {}),
    "audio-classification": (_sounds(), {"function_to_apply": "none"}),
    "automatic-speech-recognition": (_sounds(), {}),
}
REFERENCES: dict[str, Reference] = {task: piped(task, _decoded, task in IMAGES) for task in TASKS}
