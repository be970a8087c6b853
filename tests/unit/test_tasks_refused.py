"""Folders that are refused or read as their makers meant, and outputs that are no numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from safetensors.torch import load_file, save_file

from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.tasks.pooling import read_sentence_model
from transforms.records import Failure, Prediction, Request

_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
TEXTS = ["where is my order", "the order was late and my invoice is wrong", "help"]


def ask(folder: Path, task: str, inputs: list[Any], parameters: Any = None) -> list[Any]:
    """The outcomes of one batch."""
    engine = HuggingFaceModelHandler(str(folder), task, device="cpu", dtype="float32")._load()
    return engine.answer([Request(each, parameters or {}) for each in inputs]).outcomes


def test_the_look_before_a_launch_misses_the_tokenizer(tmp_path: Path) -> None:
    """Without a tokenizer file the folder is refused before its weights are read."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(tiny.sentiment()) / name, tmp_path)
    with pytest.raises(ModelLoadError, match="no tokenizer files"):
        HuggingFaceModelHandler(str(tmp_path), "text-classification").check()


@pytest.mark.parametrize("place", [0, 1])
def test_a_module_with_code_of_its_own(tmp_path: Path, place: int) -> None:
    """A sentence-transformers folder that names other code, first or later, is refused at the look."""
    tiny.sentence_model(tmp_path, "mean")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[place]["type"] = "custom_st.Transformer"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelLoadError, match=r"custom_st\.Transformer, code of its own"):
        HuggingFaceModelHandler(str(tmp_path), "feature-extraction").check()


@pytest.mark.parametrize("modules", [[], {}, 5, ["x"], [{"idx": 0}], [{"name": "0", "path": None, "type": "x"}]])
def test_modules_that_are_no_list_of_steps(tmp_path: Path, modules: object) -> None:
    """One line at the look, whatever stands there."""
    shutil.copytree(tiny.body(), tmp_path, dirs_exist_ok=True)
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelLoadError, match=r"modules\.json is no list of steps"):
        HuggingFaceModelHandler(str(tmp_path), "feature-extraction").check()


@pytest.mark.parametrize("name", ["tokenizer_args", "model_kwargs", "processing_kwargs"])
def test_arguments_for_the_parts_of_a_transformer(tmp_path: Path, name: str) -> None:
    """What sentence-transformers would hand on to transformers changes the answers, and is refused by name."""
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({name: {"dtype": "float32"}}))
    (tmp_path / "modules.json").write_text(json.dumps([{"name": "0", "path": "", "type": "x.Transformer"}]))
    assert read_sentence_model(tmp_path, torch.device("cpu")).max_length is None
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({name: {"model_max_length": 10}}))
    with pytest.raises(ModelLoadError, match=f"{name} in its sentence_bert_config.json is not read"):
        read_sentence_model(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("sentence_bert_config.json", {"modality_config": {"text": {"method": "get_text_features"}}}, "reads no text"),
        ("sentence_bert_config.json", {"modality_config": {"text": _TEXT, "message": _TEXT}}, "as a chat"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim=0"),
        ("config_sentence_transformers.json", {"truncate_dim": "8"}, "truncate_dim='8'"),
        ("config_sentence_transformers.json", {"prompts": ["query: "]}, "no names with texts"),
        ("config_sentence_transformers.json", [], "no names with texts"),
    ],
)
def test_what_a_folder_says_of_its_embeddings(tmp_path: Path, name: str, words: Any, says: str) -> None:
    """What would give other embeddings than sentence-transformers' is refused by name."""
    (tmp_path / "modules.json").write_text(json.dumps([{"name": "0", "path": "", "type": "x.Transformer"}]))
    (tmp_path / name).write_text(json.dumps(words))
    with pytest.raises(ModelLoadError, match=says):
        read_sentence_model(tmp_path, torch.device("cpu"))


def test_a_first_module_of_another_kind(tmp_path: Path) -> None:
    """A folder around a table of words, or of several routes, is refused at the look by what it is."""
    (tmp_path / "modules.json").write_text(
        json.dumps([{"name": "0", "path": "0", "type": "sentence_transformers.models.StaticEmbedding"}])
    )
    with pytest.raises(ModelLoadError, match="StaticEmbedding; known is Transformer"):
        HuggingFaceModelHandler(str(tmp_path), "feature-extraction").check()


@pytest.mark.parametrize("normalize", [True, False])
def test_embeddings_are_cut_where_the_folder_says(tmp_path: Path, normalize: bool) -> None:
    """truncate_dim gives as many numbers as sentence-transformers' own encode, and the same, normalised or not."""
    import sentence_transformers as st

    tiny.sentence_model(tmp_path, "mean", normalize=normalize, truncate_dim=8)
    model = st.SentenceTransformer(str(tmp_path), device="cpu")
    for asked in ({}, {"normalize": True}):
        if normalize and asked:
            continue  # sentence-transformers normalises twice; here the folder's module is the parameter's default
        for text, outcome in zip(TEXTS, ask(tmp_path, "feature-extraction", TEXTS, asked), strict=True):
            expected = model.encode(text, normalize_embeddings=bool(asked))
            assert outcome.prediction.shape == (8,)
            np.testing.assert_allclose(outcome.prediction, expected, rtol=1e-4, atol=1e-5)


def test_the_encoder_of_t5_embeds(tmp_path: Path) -> None:
    """A sentence-transformers folder around T5's encoder alone gives what encode gives."""
    import sentence_transformers as st
    from sentence_transformers.sentence_transformer import modules

    tiny.t5_encoder(tmp_path / "inner")
    dense = modules.Dense(32, 16, bias=False, activation_function=torch.nn.Identity())
    steps = [modules.Transformer(str(tmp_path / "inner")), modules.Pooling(32), dense, modules.Normalize()]
    st.SentenceTransformer(modules=steps, device="cpu").save(str(tmp_path / "st"), create_model_card=False)
    model = st.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    for text, outcome in zip(TEXTS, ask(tmp_path / "st", "feature-extraction", TEXTS), strict=True):
        np.testing.assert_allclose(outcome.prediction, model.encode(text), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "task", "weight", "parameters"),
    [
        (tiny.depths, "depth-estimation", "head", {}),
        (tiny.segmenter, "image-segmentation", "classifier", {}),
        (tiny.finder, "zero-shot-object-detection", "class_head", {"candidate_labels": ["cat"], "threshold": 0.0}),
        (tiny.whisper, "automatic-speech-recognition", "decoder.layer_norm", {"max_new_tokens": 4}),
        (tiny.letters, "automatic-speech-recognition", "lm_head", {}),
        (tiny.letters, "automatic-speech-recognition", "lm_head", {"chunk_length_s": 1}),
    ],
)
def test_what_is_no_number_is_no_answer(
    tmp_path: Path, make: Callable[[], str], task: str, weight: str, parameters: dict[str, Any]
) -> None:
    """NaN in a model's output is NonFinite in every task, also where a pipeline makes a text or a list of it."""
    shutil.copytree(make(), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if weight in name)
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    media = tiny.wav(tiny.tone()) if "speech" in task else tiny.png(tiny.picture())
    for outcome in ask(tmp_path, task, [media, media], parameters):
        assert isinstance(outcome, Failure) and outcome.error_type == "NonFinite", outcome
    sound = ask(Path(make()), task, [media], parameters)[0]
    assert isinstance(sound, Prediction)
