"""Sentence embeddings against sentence-transformers itself: the real MiniLM, and every pooling there is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers

from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Failure, Prediction, Request

TEXTS = [tiny.text_of(1 + 7 * i % 60, seed=i) for i in range(40)] + ["naïve café", "東京", "  spaces  ", "x" * 2000]


def embed(folder: str, texts: list[str], dtype: str = "float32", **parameters: Any) -> np.ndarray:
    handler = HuggingFaceModelHandler(folder, "feature-extraction", dtype=dtype, max_batch_tokens=512)
    model = handler.load_model()
    torch.set_num_threads(1)
    outcomes = handler.run_inference([Request(text, parameters) for text in texts], model)
    assert all(isinstance(outcome, Prediction) for outcome in outcomes), outcomes
    return np.stack([outcome.prediction for outcome in outcomes])  # type: ignore[union-attr]


def reference(folder: str, texts: list[str], **options: Any) -> np.ndarray:
    st = pytest.importorskip("sentence_transformers")
    torch.set_num_threads(1)
    return st.SentenceTransformer(folder, device="cpu").encode(texts, **options)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.9999), ("bfloat16", 0.999)])
def test_minilm_embeds_as_sentence_transformers_does(minilm: str, dtype: str, least: float) -> None:
    """Cosine to sentence-transformers at least 0.9999 in float32 and 0.999 in bfloat16, on every text."""
    ours, theirs = embed(minilm, TEXTS, dtype), reference(minilm, TEXTS)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    print(f"MiniLM {dtype}: least cosine {cosines.min():.6f}")
    assert cosines.min() >= least
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize(
    "modes",
    [("mean",), ("cls",), ("max",), ("mean_sqrt_len_tokens",), ("weightedmean",), ("lasttoken",), ("cls", "mean")],
    ids="+".join,
)
@pytest.mark.parametrize("extras", [{}, {"dense": True, "normalize": True}], ids=["pooled", "dense, normalised"])
def test_every_pooling_equals_sentence_transformers(
    tmp_path: Path, modes: tuple[str, ...], extras: dict[str, Any]
) -> None:
    """Pooling, dense layer, normalisation and maximum length come from the folder's own files."""
    pytest.importorskip("sentence_transformers")
    folder = tiny.sentence_model(tmp_path / "model", *modes, **extras)
    np.testing.assert_allclose(embed(folder, TEXTS[:40]), reference(folder, TEXTS[:40]), atol=2e-5)


def changed(path: Path, **values: Any) -> None:
    """The JSON file at ``path`` with some of its values changed."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def modules_in_order(folder: Path, *order: int) -> None:
    """The steps of ``modules.json`` in another order."""
    modules = json.loads((folder / "modules.json").read_text())
    steps = [modules[old] | {"idx": new, "name": str(new)} for new, old in enumerate(order)]
    (folder / "modules.json").write_text(json.dumps(steps))


def one_name_twice(folder: Path) -> None:
    """A list of steps two of which have one name, whose numbers are out of order."""
    modules = json.loads((folder / "modules.json").read_text())
    modules[3]["idx"], modules[2]["name"] = 1, modules[3]["name"]
    (folder / "modules.json").write_text(json.dumps(modules))


def older_name(folder: Path) -> None:
    """``sentence_bert_config.json`` by the name of a RoBERTa's, and with a shorter limit."""
    path = folder / "sentence_bert_config.json"
    changed(path, max_seq_length=10)
    path.rename(folder / "sentence_roberta_config.json")


def limits(folder: Path, own: int | None, tokenizers: int) -> None:
    changed(folder / "sentence_bert_config.json", max_seq_length=own)
    changed(folder / "tokenizer_config.json", model_max_length=tokenizers)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "normalised, then dense": lambda folder: modules_in_order(folder, 0, 1, 3, 2),
    "normalised twice": lambda folder: modules_in_order(folder, 0, 1, 3, 2, 3),
    "one name twice": one_name_twice,
    "the older name of a file": older_name,
    "a limit over the tokenizer's": lambda folder: limits(folder, 40, 16),
    "no limit but the tokenizer's": lambda folder: limits(folder, None, 16),
    "lower case": lambda folder: changed(folder / "sentence_bert_config.json", do_lower_case=True),
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_files_mean_what_sentence_transformers_reads_in_them(tmp_path: Path, folder: str) -> None:
    """Steps in any order, files by their older names, limits above one another, marks in a text."""
    pytest.importorskip("sentence_transformers")
    model = tiny.sentence_model(tmp_path / "model", "mean", dense=True, normalize=True)
    FOLDERS[folder](Path(model))
    texts = [*TEXTS[:8], tiny.text_of(60), "THE Order [SEP] Help", " [SEP]"]
    np.testing.assert_allclose(embed(model, texts), reference(model, texts, batch_size=1), atol=2e-5)


def test_prompts_go_before_the_text(tmp_path: Path) -> None:
    """``prompt_name`` picks one of the model's prompts, its default applies unasked, and others are refused."""
    pytest.importorskip("sentence_transformers")
    prompts = {"query": "please help ", "passage": "the order "}
    folder = tiny.sentence_model(tmp_path / "m", "mean", prompts=prompts, default_prompt_name="passage")
    texts = TEXTS[:5]
    np.testing.assert_allclose(embed(folder, texts), reference(folder, texts), atol=2e-5)
    asked = embed(folder, texts, prompt_name="query")
    np.testing.assert_allclose(asked, reference(folder, texts, prompt_name="query"), atol=2e-5)
    handler = HuggingFaceModelHandler(folder, "feature-extraction", dtype="float32", max_batch_tokens=512)
    refused = handler.run_inference([Request("x", {"prompt_name": "other"})], handler.load_model())[0]
    assert isinstance(refused, Failure) and "passage, query" in refused.error


def test_a_folder_that_says_nothing_is_pooled_by_the_mean() -> None:
    """Without sentence-transformers' files an embedding is the mean of the pipeline's token embeddings."""
    pipe = transformers.pipeline("feature-extraction", model=tiny.body())
    tokens = [np.array(pipe(text)[0]) for text in TEXTS[:8]]
    np.testing.assert_allclose(embed(tiny.body(), TEXTS[:8]), [t.mean(0) for t in tokens], atol=1e-4)
    for text, expected in zip(TEXTS[:8], tokens, strict=True):
        np.testing.assert_allclose(embed(tiny.body(), [text], pooling="none")[0][0], expected, atol=1e-4)


def test_a_list_of_texts_gives_a_list_of_embeddings() -> None:
    """One message with several texts has one embedding each, equal to those of single messages."""
    handler = HuggingFaceModelHandler(tiny.body(), "feature-extraction", dtype="float32", max_batch_tokens=512)
    outcomes = handler.run_inference([Request(TEXTS[:5]), Request(TEXTS[5])], handler.load_model())
    assert isinstance(outcomes[0], Prediction) and outcomes[0].prediction.shape == (5, 32)
    np.testing.assert_allclose(outcomes[0].prediction, embed(tiny.body(), TEXTS[:5]), atol=1e-5)


def test_normalize_and_truncate_belong_to_the_message() -> None:
    """``normalize`` scales to length one; ``truncate=false`` refuses what would be cut."""
    unit = embed(tiny.body(), ["the order"], normalize=True)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    handler = HuggingFaceModelHandler(tiny.body(), "feature-extraction", dtype="float32", max_batch_tokens=512)
    refused = handler.run_inference([Request(tiny.text_of(200), {"truncate": False})], handler.load_model())[0]
    assert isinstance(refused, Failure) and refused.error_type == "TooLong"


def test_a_step_that_is_code_is_refused(tmp_path: Path) -> None:
    """A modules.json that names a class of its own is refused, and the class is named."""
    pytest.importorskip("sentence_transformers")
    folder = Path(tiny.sentence_model(tmp_path / "m", "mean"))
    modules = (folder / "modules.json").read_text()
    kind = next(part for part in modules.split('"') if part.endswith("Pooling") and "." in part)
    (folder / "modules.json").write_text(modules.replace(kind, "evil.Pooling"))
    with pytest.raises(ModelLoadError, match="evil.Pooling, code of its own"):
        HuggingFaceModelHandler(str(folder)).load_model()
