"""Models that were once answered wrongly, each by the message of its report; and that no case lacks a test."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers as t
from failing_messages import case, message
from safetensors.torch import load_file, save_file
from test_zoo import gpt2, letters_only
from zoo.build import build

from pipeline import beam_flags
from transforms.decode import decode
from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Failure, Message, Prediction, Request

TESTS = Path(__file__).parents[1]


def answers(folder: Path, task: str, *requests: Request) -> list[Prediction | Failure]:
    engine = HuggingFaceModelHandler(str(folder), task, device="cpu", dtype="float32")._load()
    return engine.answer(requests).outcomes


def alone_and_beside(folder: Path, request: Request) -> tuple[Any, Any, Any]:
    """The scores of ``request`` alone, beside a longer one, and by transformers' pipeline."""
    asked = Request(request.inputs, {"top_k": None, "function_to_apply": "none"}, request.message)
    other = Request(tiny.text_of(30), asked.parameters)
    (alone,) = answers(folder, "text-classification", asked)
    beside = answers(folder, "text-classification", other, asked)[1]
    make: Any = t.pipeline
    theirs = make("text-classification", model=str(folder), device="cpu")(
        asked.inputs, top_k=None, function_to_apply="none"
    )
    return tuple({one["label"]: one["score"] for one in each} for each in (alone.prediction, beside.prediction, theirs))  # type: ignore[union-attr, return-value]


def assert_alike(*scores: dict[str, float]) -> None:
    for each in scores[1:]:
        assert each == pytest.approx(scores[0], abs=1e-3)


@pytest.mark.parametrize("architecture", ["FNet", "Nystromformer", "Yoso", "ConvBert", "Canine"])
def test_architectures_that_read_padding(tmp_path: Path, architecture: str) -> None:
    """The report's text has one answer, whatever stands beside it."""
    build(tmp_path, "text-classification", f"{architecture}ForSequenceClassification")
    assert_alike(*alone_and_beside(tmp_path, decode(message("architectures-that-read-padding"))))


@pytest.mark.parametrize("architecture", ["RwkvForCausalLM", "RecurrentGemmaForCausalLM"])
def test_generation_that_reads_padding(tmp_path: Path, architecture: str) -> None:
    """The same of models that generate."""
    build(tmp_path, "text-generation", architecture)
    request = Request("good order", {"max_new_tokens": 5}, message("architectures-that-read-padding"))
    (alone,) = answers(tmp_path, "text-generation", request)
    beside = answers(tmp_path, "text-generation", Request(tiny.text_of(20), {"max_new_tokens": 5}), request)[1]
    assert alone.prediction == beside.prediction  # type: ignore[union-attr]


def test_xlnet(tmp_path: Path) -> None:
    """A limit of -1 positions is none, and padding goes to the left."""
    build(tmp_path, "text-classification", "XLNetForSequenceClassification")
    assert_alike(*alone_and_beside(tmp_path, decode(message("xlnet"))))


@pytest.mark.parametrize("special", [{"pad_token": None}, {}])
def test_pad_token_mismatch(tmp_path: Path, special: dict[str, Any]) -> None:
    """The model pads with its end of text, its tokenizer with something else or nothing."""
    tokenizer = tiny.byte_tokenizer(**special)
    gpt2(tmp_path, tokenizer, tokenizer.eos_token_id)
    assert_alike(*alone_and_beside(tmp_path, decode(message("pad-token-mismatch"))))


def test_no_token_in_a_batch(tmp_path: Path) -> None:
    """Emoji of which the tokenizer has none: InvalidInput alone and beside others."""
    build(tmp_path, "text-classification", "BertForSequenceClassification")
    (tmp_path / "tokenizer.json").unlink()
    letters_only().save_pretrained(tmp_path)
    request = decode(message("no-token-in-a-batch"))
    for outcomes in (
        answers(tmp_path, "text-classification", request),
        answers(tmp_path, "text-classification", request, Request("good")),
    ):
        assert isinstance(outcomes[0], Failure) and outcomes[0].error_type == "InvalidInput"
        assert "has no token for this model" in outcomes[0].error


def test_no_tokenizer_files(tmp_path: Path) -> None:
    """`no-tokenizer-files`: a model saved alone is refused at the launch."""
    assert decode(message("no-tokenizer-files")).inputs == "Where is my parcel?"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((Path(tiny.sentiment()) / name).read_bytes())
    with pytest.raises(ModelLoadError, match="no tokenizer files"):
        HuggingFaceModelHandler(str(tmp_path), "text-classification").check()


def sentence_folder(folder: Path, **words: Any) -> Any:
    """A folder of sentence-transformers, and the model as that library loads it."""
    import sentence_transformers as st

    tiny.sentence_model(folder, "mean", **words)
    return st.SentenceTransformer(str(folder), device="cpu")


def test_st_truncate_dim(tmp_path: Path) -> None:
    """`st-truncate-dim`: eight numbers, as encode gives."""
    theirs = sentence_folder(tmp_path, truncate_dim=8)
    request = decode(message("st-truncate-dim"))
    (outcome,) = answers(tmp_path, "feature-extraction", request)
    assert isinstance(outcome, Prediction) and outcome.prediction.shape == (8,)
    np.testing.assert_allclose(outcome.prediction, theirs.encode(request.inputs), atol=1e-4)


def test_st_code_of_its_own_first(tmp_path: Path) -> None:
    """`st-code-of-its-own-first`: refused, with the name of the code."""
    sentence_folder(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert decode(message("st-code-of-its-own-first")).inputs == "hi"
    with pytest.raises(ModelLoadError, match=r"custom_st\.Transformer, code of its own"):
        HuggingFaceModelHandler(str(tmp_path), "feature-extraction").check()


def test_st_t5(tmp_path: Path) -> None:
    """`st-t5`: the encoder alone, in a folder of sentence-transformers, gives what encode gives."""
    import sentence_transformers as st
    from sentence_transformers.sentence_transformer import modules

    tiny.t5_encoder(tmp_path / "inner")
    steps = [modules.Transformer(str(tmp_path / "inner")), modules.Pooling(32), modules.Normalize()]
    theirs = st.SentenceTransformer(modules=steps, device="cpu")
    theirs.save(str(tmp_path / "st"), create_model_card=False)
    request = decode(message("st-t5"))
    (outcome,) = answers(tmp_path / "st", "feature-extraction", request)
    np.testing.assert_allclose(outcome.prediction, theirs.encode(request.inputs), atol=1e-4)  # type: ignore[union-attr]


def test_runner_in_lower_case() -> None:
    """It is the local runner, with the job's own source."""
    name = case("runner-in-lower-case")["flags"][0].removeprefix("--runner=")
    assert beam_flags.runner(name) == beam_flags.LOCAL_RUNNER


@pytest.mark.parametrize(
    ("make", "task", "weight", "parameters"),
    [
        (tiny.depths, "depth-estimation", "head", {}),
        (tiny.segmenter, "image-segmentation", "classifier", {}),
        (tiny.animals, "image-classification", "classifier", {}),
    ],
)
def test_nan_in_pipeline_tasks(
    tmp_path: Path, make: Callable[[], str], task: str, weight: str, parameters: dict[str, Any]
) -> None:
    """`nan-in-pipeline-tasks`: the message's picture has no answer; test_tasks_refused.py has the other tasks."""
    for path in Path(make()).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if weight in name)
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read = json.loads(message("nan-in-pipeline-tasks").data)
    assert read == {"inputs": "base64 image"}
    picture = base64.b64encode(tiny.png(tiny.picture())).decode()
    request = decode(Message(json.dumps({"inputs": picture}).encode()))
    (outcome,) = answers(tmp_path, task, Request(request.inputs, parameters))
    assert isinstance(outcome, Failure) and outcome.error_type == "NonFinite"


def test_every_case_has_a_test() -> None:
    """A file of tests/cases that no test names is not exercised."""
    sources = "".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    for file in sorted((TESTS / "cases").glob("*.json")):
        # The cases of JMESPath are named by their ending.
        assert f'"{file.stem.removeprefix("jmespath-")}"' in sources, file.name
