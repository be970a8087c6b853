"""The zoo's models that write a text about a picture: tiny ones, each with the processor that its folders have."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny_models as tiny
import torch
import transformers as t
from tokenizers.processors import TemplateProcessing
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from transforms.models.tasks.pictures import decode_image
from zoo.shrink import shrink
from zoo.tokenizer import byte_tokenizer

TASK = "image-text-to-text"

#: A picture's side in pixels, that of its patches, and how many of these there are.
SIDE, PATCH = 32, 8
PATCHES = (SIDE // PATCH) ** 2

#: Tokens that a prompt may have, its pictures' among them; and those that are written.
POSITIONS, WRITTEN = 1024, 4

#: What a tokenizer calls the marks of pictures, for processors that ask it; others know them by heart.
_NAMED = {
    "image_token": "<image>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "image_boundary_token": "<fake_token_around_image>",
    "image_start_token": "<boi>",
    "image_end_token": "<eoi>",
    "image_break_token": "<break>",
}
_MARKS = (
    *dict.fromkeys(_NAMED.values()),
    *("<end_of_utterance>", "<global-img>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE_GLOBAL"),
    *("<imgpad>", "<img>", "</img>", "<|im_start|>", "<|im_end|>", "<|image|>", "TILE"),
    *("<IMG_START>", "<IMG_ATOM>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"),
    *("|SPEAKER|", "|NEWLINE|", "<0x00>", "<0x01>", "<0x02>", "<0x03>", "<0x04>"),
)

#: As LLaVA's: the role, then each part, a picture as its mark; what begins a text the tokenizer writes.
_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}MARK{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

#: Whose folders have no chat template, and whose processors write the mark of a picture themselves.
_NO_CHAT = (
    *("blip", "blip-2", "instructblip", "git", "kosmos-2", "kosmos-2.5", "florence2", "pix2struct", "paligemma"),
    *("fuyu", "chameleon", "vision-encoder-decoder"),
)
_NO_MARK = ("blip", "blip-2", "instructblip", "git", "kosmos-2", "kosmos-2.5", "florence2", "fuyu", "pix2struct")

#: Processors that the mapping has under another name, or not.
_OTHERS = {
    "kosmos-2": "Kosmos2Processor",
    "kosmos-2.5": "Kosmos2_5Processor",
    "vipllava": "LlavaProcessor",
    "vision-encoder-decoder": "TrOCRProcessor",
}
_PINPOINTS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]

#: By model type, what no rule knows: of the configuration, of the processor, and of its image processor.
_CONFIG: dict[str, dict[str, Any]] = {
    "blip-2": {"num_query_tokens": 4},
    "instructblip": {"num_query_tokens": 4},
    "gemma3": {"mm_tokens_per_image": 4},
    "t5gemma2": {"mm_tokens_per_image": 4},
    "idefics3": {"scale_factor": 2},
    "granite_docling": {"scale_factor": 2},
    "llava_next": {"image_grid_pinpoints": _PINPOINTS},
    "florence2": {
        **{"patch_size": [7, 3, 3, 3], "depths": [1] * 4, "embed_dim": [16, 16, 32, 32]},
        **{"num_heads": [2] * 4, "num_groups": [2] * 4},
    },
    "fuyu": {"patch_size": PATCH},
    "paddleocr_vl": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}},
    "vipllava": {"vision_feature_layers": [-2, -1]},
    "pix2struct": {"patch_embed_hidden_size": 768},
    "kosmos-2.5": {"patch_embed_hidden_size": 768, "latent_query_num": 16},
    "mllama": {
        "intermediate_layers_indices": [0],
        "vision_output_dim": 128,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "cross_attention_layers": [1],
    },
}
_WORDS: dict[str, dict[str, Any]] = {
    "aya_vision": {"downsample_factor": 2},
    "gemma3": {"image_seq_length": 4},
    "t5gemma2": {"image_seq_length": 4},
    "idefics2": {"image_seq_len": 64},
    "idefics3": {"image_seq_len": 4},
    "granite_docling": {"image_seq_len": 4},
}
_PICTURES: dict[str, dict[str, Any]] = {
    "florence2": {"image_seq_length": 2},
    "fuyu": {"patch_size": {"height": PATCH, "width": PATCH}},
    "idefics": {"image_size": SIDE},
    "idefics3": {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}},
    "llava_next": {"image_grid_pinpoints": _PINPOINTS},
    "pix2struct": {"max_patches": 16},
    "kosmos-2.5": {"max_patches": 16},
}
_IMAGE_IDS = {"aya_vision": "<|IMG_PATCH|>", "ovis2": "<IMG_ATOM>", "got_ocr2": "<imgpad>"}


def save(folder: Path, kind: Any, model_of: Callable[[Any, Any], Any]) -> None:
    """Writes a tiny model of ``kind``, made by ``model_of`` of its class and configuration, and its processor.

    Raises:
      ImportError: its processor needs a package that is not here.
    """
    own = kind.config_class.model_type
    text = _tokenizer(own)
    processor = _processor(own, text)
    vocabulary = len(text) + 40
    model = model_of(kind, shrink(kind.config_class, vocabulary, **_config(own, text)))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = text.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _tokenizer(own: str) -> Any:
    """Words between marks for BLIP and GIT, and for the others bytes after one; the marks of pictures beside them."""
    if own in ("blip", "git"):
        words = tiny.word_tokenizer(max_length=POSITIONS)
        words.model_input_names = ["input_ids", "attention_mask"]
        return words
    made = byte_tokenizer()
    made.add_special_tokens({"additional_special_tokens": list(_MARKS)})
    made = type(made)(
        tokenizer_object=made.backend_tokenizer,
        model_max_length=POSITIONS,
        **{"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"},
        extra_special_tokens={} if own in ("blip-2", "instructblip") else _NAMED,
    )
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", made.bos_token_id)]
    )
    return made


def _config(own: str, text: Any) -> dict[str, Any]:
    mark = text.convert_tokens_to_ids(_IMAGE_IDS.get(own, "<image>"))
    begins, ends = text.convert_tokens_to_ids(["<boi>", "<eoi>"])
    ids = {
        **{"image_token_id": mark, "image_token_index": mark},
        **{"boi_token_id": begins, "boi_token_index": begins, "eoi_token_id": ends, "eoi_token_index": ends},
        **{f"{name}_token_id": getattr(text, f"{name}_token_id") for name in ("pad", "bos", "eos")},
    }
    sizes = {"image_size": SIDE, "patch_size": PATCH, "max_position_embeddings": POSITIONS}
    if own == "ovis2":
        names = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
        ids["visual_indicator_token_ids"] = text.convert_tokens_to_ids(names)
    if own in ("blip", "git"):
        ids["sep_token_id"] = text.sep_token_id
        ids |= {"bos_token_id": text.cls_token_id, "eos_token_id": text.sep_token_id}
    return {**ids, **sizes, "tie_word_embeddings": False, **_CONFIG.get(own, {})}


def _processor(own: str, text: Any) -> Any:
    name = _OTHERS.get(own) or PROCESSOR_MAPPING_NAMES.get(own)
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(own, {"pil": "ViTImageProcessorPil"})
    if name is None:
        raise ImportError("no processor is mapped to it")
    if "pil" not in names:
        raise ImportError(f"{names['torchvision']} needs torchvision")
    kind = getattr(t, name)
    parts = kind.get_attributes()
    if "video_processor" in parts:
        raise ImportError(f"{name}'s video processor needs torchvision")
    others = {"feature_extractor", "protein_tokenizer"} & set(parts)
    if others:
        raise ImportError(f"{name} has a {others.pop().replace('_', ' ')} too, which the zoo does not make")
    pictures = getattr(t, names["pil"])()
    for part in ("size", "crop_size"):
        sides = dict(getattr(pictures, part, None) or {})
        if sides:
            setattr(pictures, part, dict.fromkeys(sides, SIDE))
    pictures.image_seq_length = PATCHES
    for name, value in _PICTURES.get(own, {}).items():
        setattr(pictures, name, value)
    words: dict[str, Any] = {
        **{"patch_size": PATCH, "img_size": SIDE, "image_size": SIDE, "vision_feature_select_strategy": "default"},
        **{"num_additional_image_tokens": 1, "num_query_tokens": 4},
        **dict.fromkeys(("num_image_tokens", "image_seq_length", "image_seq_len"), PATCHES),
        **({"qformer_tokenizer": byte_tokenizer()} if "qformer_tokenizer" in parts else {}),
    }
    words = {name: value for name, value in words.items() if name in inspect.signature(kind).parameters}
    made = kind(image_processor=pictures, tokenizer=text, **words | _WORDS.get(own, {}))
    if own not in _NO_CHAT:
        made.chat_template = _TEMPLATE.replace("MARK", _mark(own, made))
    return made


def _mark(own: str, processor: Any) -> str:
    """What stands for a picture in a text."""
    if own in _NO_MARK:
        return ""
    return str(processor.boi_token if own in ("gemma3", "t5gemma2") else getattr(processor, "image_token", ""))


def inputs(folder: Path) -> list[Any]:
    """Texts with a picture each; where the folder has a template chats too, of several pictures, of none, and begun."""
    processor = _read(folder)
    mark = _mark(t.AutoConfig.from_pretrained(folder).model_type, processor)
    sizes = [(40, 30), (30, 64), (200, 90), (40, 30)]
    pictures = [tiny.b64(tiny.png(tiny.picture(*size, seed))) for seed, size in enumerate(sizes)]
    words = ["help", "where is my invoice please help the order was late and wrong", "thank you", "my order"]
    plain = [{"image": pictures[i], "text": f"{mark}{words[j]}"} for i, j in ((0, 0), (1, 1), (2, 2), (3, 3), (0, 1))]
    if processor.chat_template is None:
        return plain
    images = [{"type": "image", "image": picture} for picture in pictures]
    texts = [{"type": "text", "text": each} for each in words]
    asked: list[list[Any]] = [[images[i], texts[i]] for i in range(4)]
    asked += [[images[1], images[2], texts[1]], [images[0], texts[3], images[3], texts[0]], [texts[1]]]
    chats = [[{"role": "user", "content": parts}] for parts in asked]
    begun = {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}
    return [*chats, [*chats[0], begun], *plain[:2]]


def _read(folder: Path) -> Any:
    return t.AutoProcessor.from_pretrained(folder, backend="pil")


def reference(folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
    """What ``transformers.pipeline`` answers to each."""
    make: Any = t.pipeline
    pipe = make(TASK, model=str(folder), processor=_read(folder), device="cpu", dtype=torch.float32)
    answers: list[Any] = []
    for each in inputs:
        asked = _chat(each) if isinstance(each, list) else {"images": _picture(each["image"]), "text": each["text"]}
        try:
            with torch.inference_mode():
                found = pipe(asked, return_full_text=False, generate_kwargs=dict(parameters))
            answers.append([{"generated_text": one["generated_text"]} for one in found])
        except Exception as error:
            answers.append(error)
    return answers


def _picture(data: str) -> Any:
    return decode_image(base64.b64decode(data))


def _chat(chat: Sequence[Any]) -> list[Any]:
    return [{**message, "content": [_part(part) for part in message["content"]]} for message in chat]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**part, "image": _picture(part["image"])} if part["type"] == "image" else part


INPUTS: tuple[Callable[[Path], list[Any]], Mapping[str, Any]] = (
    inputs,
    {"max_new_tokens": WRITTEN, "do_sample": False},
)
