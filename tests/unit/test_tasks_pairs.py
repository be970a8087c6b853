"""Similarities, ranks and embeddings cut short, against sentence-transformers itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import tiny_writers as writers
import torch
from handler_answers import answers

from transforms.models.errors import InvalidInput, ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.task_table import TASKS
from transforms.records import Failure, Prediction, Request

st = pytest.importorskip("sentence_transformers")

QUERIES = ["where is my order", "good", "john smith lives in paris " * 3]
TEXTS = [tiny.text_of(1 + 5 * i % 40, seed=i) for i in range(9)]


def by_index(ranks: list[dict[str, Any]]) -> list[float]:
    assert [one["score"] for one in ranks] == sorted((one["score"] for one in ranks), reverse=True)
    return [one["score"] for one in sorted(ranks, key=lambda one: one["index"])]


def test_ranks_are_those_of_a_cross_encoder() -> None:
    """Scores are CrossEncoder.predict's, sorted, in whatever batch; raw ones the model's; top_k cuts after sorting."""
    folder = writers.ranker()
    encoder = st.CrossEncoder(folder, device="cpu")
    pairs = [[(query, text) for text in TEXTS[: 3 + i]] for i, query in enumerate(QUERIES)]
    inputs = [{"query": own[0][0], "texts": [text for _, text in own]} for own in pairs]
    for budget in (1, 300, 100_000):
        asked = [Request(each, given) for each in inputs for given in ({}, {"raw_scores": True}, {"raw_scores": False})]
        found = answers(folder, "text-ranking", asked, max_batch_tokens=budget)
        for own, (usual, raw, squashed) in zip(pairs, zip(*[iter(found)] * 3, strict=True), strict=True):
            np.testing.assert_allclose(by_index(usual), encoder.predict(own), atol=1e-5)
            np.testing.assert_allclose(by_index(squashed), encoder.predict(own), atol=1e-5)
            logits = encoder.predict(own, activation_fn=torch.nn.Identity())
            np.testing.assert_allclose(by_index(raw), logits, atol=1e-4)
    whole, best = answers(
        folder, "text-ranking", [Request(inputs[0]), Request(inputs[0], {"top_k": 2, "return_text": True})]
    )
    assert [(one["index"], one["score"]) for one in best] == [
        (one["index"], pytest.approx(one["score"], abs=1e-6)) for one in whole[:2]
    ]
    assert [one["text"] for one in best] == [inputs[0]["texts"][one["index"]] for one in best]


@pytest.mark.parametrize("activation", ["Sigmoid", "Identity", "Tanh"])
def test_a_folder_that_a_cross_encoder_wrote(tmp_path: Path, activation: str) -> None:
    """It is known for what it is without a task, and its scores go through what it says."""
    kind = getattr(torch.nn, activation)
    encoder = st.CrossEncoder(writers.ranker(), device="cpu", activation_fn=kind())
    encoder.save_pretrained(str(tmp_path))
    assert (tmp_path / "modules.json").is_file()
    assert HuggingFaceModelHandler(str(tmp_path)).check() == "text-ranking"
    (found,) = answers(str(tmp_path), None, [Request({"query": QUERIES[0], "texts": TEXTS})])
    np.testing.assert_allclose(by_index(found), encoder.predict([(QUERIES[0], text) for text in TEXTS]), atol=1e-5)


def test_what_a_cross_encoders_folder_says_of_its_pairs(tmp_path: Path) -> None:
    """A maximum is heeded, and a chat around each pair, or arguments for its parts, are refused by name."""
    st.CrossEncoder(writers.ranker(), device="cpu").save_pretrained(str(tmp_path))
    file = tmp_path / "sentence_bert_config.json"
    words = json.loads(file.read_text())
    file.write_text(json.dumps({**words, "max_seq_length": 8}))
    (found,) = answers(str(tmp_path), None, [Request({"query": QUERIES[0], "texts": TEXTS})])
    expected = st.CrossEncoder(str(tmp_path), device="cpu").predict([(QUERIES[0], text) for text in TEXTS])
    np.testing.assert_allclose(by_index(found), expected, atol=1e-5)
    ways = words["modality_config"]
    for other, says in (
        ({"modality_config": {**ways, "message": ways["text"]}}, "read as a chat"),
        ({"processing_kwargs": {"text": {"max_length": 10}}}, "processing_kwargs in its"),
    ):
        file.write_text(json.dumps({**words, **other}))
        with pytest.raises(ModelLoadError, match=says):
            HuggingFaceModelHandler(str(tmp_path), device="cpu")._load()


def test_an_older_folder_says_its_activation_elsewhere(tmp_path: Path) -> None:
    """ms-marco's cross-encoders name it in config.json; one that is not torch's is refused, and never imported."""
    folder = Path(shutil.copytree(writers.ranker(), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    for key in ("sentence_transformers", "sbert_ce_default_activation_function"):
        name = "torch.nn.modules.linear.Identity"
        said = {key: {"activation_fn": name} if key == "sentence_transformers" else name}
        (folder / "config.json").write_text(json.dumps({**config, **said}))
        inputs = {"query": QUERIES[0], "texts": TEXTS}
        handler = HuggingFaceModelHandler(str(folder), "text-ranking", dtype="float32", device="cpu")
        outcomes = handler._load().answer([Request(inputs), Request(inputs, {"raw_scores": True})]).outcomes
        usual, raw = (by_index(one.prediction) for one in outcomes if isinstance(one, Prediction))
        np.testing.assert_allclose(usual, raw, atol=1e-5)
    (folder / "config.json").write_text(json.dumps({**config, "sentence_transformers": {"activation_fn": "os.system"}}))
    with pytest.raises(ModelLoadError, match=r"go through os\.system, which is not known here"):
        HuggingFaceModelHandler(str(folder), "text-ranking", device="cpu")._load()


def test_a_classifier_is_no_ranker() -> None:
    """A model of three labels has no one score, and is refused in one line before the first message."""
    with pytest.raises(ModelLoadError, match="one score a pair; this one has 3 labels"):
        HuggingFaceModelHandler(tiny.sentiment(), "text-ranking", device="cpu")._load()


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_are_those_of_sentence_transformers(tmp_path: Path, name: str) -> None:
    """The comparison that the folder names, over the folder's own embeddings, whatever stands beside a message."""
    folder = tiny.sentence_model(tmp_path / "model", "mean", similarity_fn_name=name)
    model = st.SentenceTransformer(folder, device="cpu")
    inputs = [{"source_sentence": query, "sentences": TEXTS[: 2 + i]} for i, query in enumerate(QUERIES)]
    expected = [
        model.similarity(model.encode([each["source_sentence"]]), model.encode(each["sentences"]))[0] for each in inputs
    ]
    for budget in (1, 100_000):
        found = answers(folder, "sentence-similarity", [Request(each) for each in inputs], max_batch_tokens=budget)
        for own, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(own, reference, rtol=1e-4, atol=1e-5)


def test_similarities_of_a_folder_that_says_nothing() -> None:
    """The cosine of the mean embeddings; a text is as near to itself as can be."""
    (found,) = answers(
        tiny.body(), "sentence-similarity", [Request({"source_sentence": "good", "sentences": ["good", "bad order"]})]
    )
    assert found[0] == pytest.approx(1, abs=1e-5) and found[1] < 0.999


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", ["dimensions", "truncate_dim"])
def test_embeddings_are_cut_short_as_asked(tmp_path: Path, normalize: bool, name: str) -> None:
    """Per message and per job, beside others of other lengths: cut first, then normalised where that is done."""
    folder = tiny.sentence_model(tmp_path / "model", "mean", normalize=normalize)
    model = st.SentenceTransformer(folder, device="cpu")
    asked: list[dict[str, Any]] = [{name: 5}, {}, {name: 8, "normalize": True}, {name: 1}, {name: 32}]
    expected = []
    for text, given in zip(TEXTS, asked, strict=False):
        unit = bool(given.get("normalize") or (normalize and given))
        expected.append(model.encode(text, truncate_dim=given.get(name), normalize_embeddings=unit))
    found = answers(folder, None, [Request(text, given) for text, given in zip(TEXTS, asked, strict=False)])
    for own, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, reference, atol=2e-5)
    (by_job,) = answers(folder, None, [Request(TEXTS[0])], parameters={name: 5})
    np.testing.assert_allclose(by_job, expected[0], atol=2e-5)
    pair = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:3]}
    (near,) = answers(folder, "sentence-similarity", [Request(pair, {name: 5})])
    short = model.encode(TEXTS[:3], truncate_dim=5)
    np.testing.assert_allclose(near, model.similarity(short[:1], short[1:])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"dimensions": 33}, "the model's embeddings have 32 numbers"),
        ({"truncate_dim": 10**9}, "the model's embeddings have 32 numbers"),
        ({"dimensions": 0}, "must be an integer of at least 1"),
        ({"dimensions": True}, "must be an integer of at least 1"),
        ({"dimensions": 4, "truncate_dim": 5}, "dimensions=4 is given too"),
        ({"dimensions": 4, "pooling": "none"}, "token embeddings are not cut short"),
    ],
)
def test_dimensions_that_there_are_not(parameters: dict[str, Any], what: str) -> None:
    """More numbers than there are, none, or two wishes at once are that message's failure alone."""
    asked = [Request("good", parameters), Request("good", {"dimensions": 32})]
    wrong, right = answers(tiny.body(), "feature-extraction", asked)
    assert isinstance(wrong, Failure) and wrong.error_type == "InvalidParameter" and what in wrong.error, wrong
    assert np.shape(right) == (32,)


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("text-ranking", {"query": "x", "texts": []}),
        ("text-ranking", {"query": "x", "texts": ["a"] * 1001}),
        ("text-ranking", {"query": "x", "texts": "a"}),
        ("text-ranking", {"query": "x", "texts": ["a", None]}),
        ("text-ranking", {"query": "x", "texts": ["a", ""]}),
        ("text-ranking", {"query": None, "texts": ["a"]}),
        ("text-ranking", {"query": "x"}),
        ("text-ranking", {"query": "x", "texts": ["a"], "parameters": {}}),
        ("text-ranking", ["x", ["a"]]),
        ("sentence-similarity", {"source_sentence": "x", "sentences": []}),
        ("sentence-similarity", {"source_sentence": "x", "sentences": ["\ud800"]}),
        ("sentence-similarity", {"query": "x", "texts": ["a"]}),
        ("sentence-similarity", "x"),
        ("translation", ["a text"]),
        ("summarization", {"text": "a"}),
        ("text2text-generation", ""),
    ],
)
def test_what_is_no_input(task: str, inputs: Any) -> None:
    """Nulls, empty and endless lists, and other tasks' shapes are InvalidInput, and name what was expected."""
    with pytest.raises(InvalidInput, match="inputs"):
        TASKS[task].check(inputs)


def test_a_thousand_texts_and_one() -> None:
    """The most texts that a message may hold are ranked as in messages of a few."""
    texts = [tiny.text_of(1 + i % 9, seed=i) for i in range(1000)]
    asked = [Request({"query": "good", "texts": some}) for some in (texts, texts[:9])]
    whole, part = answers(writers.ranker(), "text-ranking", asked)
    assert len(whole) == 1000
    np.testing.assert_allclose(by_index(whole)[:9], by_index(part), atol=1e-5)
