"""A sample of the zoo (`make zoo` runs all of it), one architecture of each kind, and the kinds of folder around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers as t
from tokenizers import Tokenizer, models
from zoo.build import build, enliven
from zoo.judge import differ, judge

from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.sharing import Sharing
from transforms.records import Failure, Prediction, Request


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Tiny products are faster on one thread than shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("task", "architecture", "verdict"),
    [
        ("text-classification", "BertForSequenceClassification", "equal"),
        ("text-classification", "XLNetForSequenceClassification", "equal"),  # no limit of positions, padded left
        ("text-classification", "FNetForSequenceClassification", "grouped"),  # mixes padding into every token
        ("token-classification", "ConvBertForTokenClassification", "grouped"),  # a convolution that reaches into it
        ("text-classification", "BigBirdForSequenceClassification", "grouped"),  # a short text changes the model
        ("fill-mask", "FNetForMaskedLM", "grouped"),
        ("question-answering", "BertForQuestionAnswering", "equal"),
        ("question-answering", "MobileBertForQuestionAnswering", "equal"),  # sure that nothing in the text answers
        ("feature-extraction", "CanineModel", "grouped"),  # a tokenizer in Python
        ("zero-shot-classification", "NystromformerForSequenceClassification", "grouped"),
        ("text-generation", "LlamaForCausalLM", "equal"),
        ("text-generation", "RecurrentGemmaForCausalLM", "grouped"),  # padding runs through its recurrence
        ("text-classification", "ReformerForSequenceClassification", "refused"),  # answers by chance
        ("token-classification", "FunnelForTokenClassification", "grouped"),  # cannot read fewer than 3 tokens
        ("text-generation", "RwkvForCausalLM", "alone"),  # rescales its weights at the first forward
        ("token-classification", "BrosForTokenClassification", "refused"),  # needs where the words stand on a page
    ],
)
def test_a_sample_of_the_zoo(tmp_path: Path, task: str, architecture: str, verdict: str) -> None:
    """Alone = in a batch = in another order = later = transformers, or one line at launch: a sample of each kind."""
    build(tmp_path, task, architecture)
    found = judge(tmp_path, task)
    assert found.verdict == verdict, found


@pytest.mark.parametrize(
    ("task", "architecture", "verdict"),
    [
        ("image-classification", "BeitForImageClassification", "equal"),
        ("image-classification", "ConvNextForImageClassification", "equal"),
        ("image-classification", "ImageGPTForImageClassification", "refused"),  # reads colours as words
        ("image-feature-extraction", "PixtralVisionModel", "alone"),  # joins the pictures of a batch
        ("image-feature-extraction", "ViTMAEModel", "refused"),  # looks at patches by chance
        ("audio-classification", "ASTForAudioClassification", "equal"),
    ],
)
def test_a_sample_of_pictures_and_recordings(tmp_path: Path, task: str, architecture: str, verdict: str) -> None:
    """Pictures of several sizes and kinds of pixel, recordings of several lengths and rates: the same comparison."""
    build(tmp_path, task, architecture)
    found = judge(tmp_path, task)
    assert found.verdict == verdict, found


@pytest.mark.parametrize(
    ("architecture", "verdict"),
    [
        ("BlipForConditionalGeneration", "equal"),  # leaves out the last token of a prompt
        ("GitForCausalLM", "equal"),
    ],
)
def test_a_sample_of_pictures_with_texts(tmp_path: Path, architecture: str, verdict: str) -> None:
    """Texts of several lengths with pictures of several sizes: the same comparison, of the text that is written."""
    build(tmp_path, "image-text-to-text", architecture)
    found = judge(tmp_path, "image-text-to-text")
    assert found.verdict == verdict, found


def test_a_text_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    """Idefics' processor takes it for a picture, and would fetch it."""
    build(tmp_path, "image-text-to-text", "IdeficsForVisionText2Text")
    model = HuggingFaceModelHandler(str(tmp_path), device="cpu", engine="torch")._load()
    image = tiny.b64(tiny.png(tiny.picture()))
    requests = [
        Request({"image": image, "text": text}, {"max_new_tokens": 2}) for text in ("who", "http://127.0.0.1:9/")
    ]
    for outcomes in (model.answer(requests).outcomes, [model.answer([each]).outcomes[0] for each in requests]):
        assert isinstance(outcomes[0], Prediction), outcomes[0]
        assert isinstance(outcomes[1], Failure) and outcomes[1].error_type == "InvalidInput", outcomes[1]


def test_a_picture_that_its_processor_cuts_is_whole(tmp_path: Path) -> None:
    """As many rows as parts, as transformers gives them, alone and beside pictures of other shapes."""
    build(tmp_path, "image-feature-extraction", "ViTModel")
    cut = t.GotOcr2ImageProcessorPil(crop_to_patches=True, max_patches=4, size={"height": 32, "width": 32})
    cut.save_pretrained(tmp_path)
    model = HuggingFaceModelHandler(
        str(tmp_path), "image-feature-extraction", device="cpu", engine="torch"
    ).load_model()
    requests = [Request(tiny.png(tiny.picture(*size)), {}) for size in ((64, 32), (32, 32), (128, 32))]
    together = model.answer(requests).outcomes
    assert [one.prediction.shape[0] for one in together] == [3, 1, 5]
    for request, one in zip(requests, together, strict=True):
        assert np.allclose(one.prediction, model.answer([request]).outcomes[0].prediction, atol=1e-5)


def gpt2(folder: Path, tokenizer: Any, pad: int | None) -> None:
    """A classifier that reads its answer where the last token stands that is not padding."""
    torch.manual_seed(5)
    config = t.GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128, num_labels=3)
    config.pad_token_id, config.eos_token_id, config.bos_token_id = pad, tokenizer.eos_token_id, None
    model = t.GPT2ForSequenceClassification(config)
    enliven(model)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("special", "pad"),
    [({}, "<pad>"), ({}, "<eos>"), ({}, None), ({"pad_token": None}, "<eos>"), ({"pad_token": None}, None)],
)
def test_the_pad_id_is_the_models(tmp_path: Path, special: dict[str, Any], pad: str | None) -> None:
    """Whatever the tokenizer and the model call padding, mixed lengths share a forward and are answered as alone."""
    tokenizer = tiny.byte_tokenizer(**special)
    gpt2(tmp_path, tokenizer, tokenizer.convert_tokens_to_ids(pad) if pad else None)
    found = judge(tmp_path, "text-classification")
    assert found.verdict == "equal", found


def test_padding_goes_to_the_side_that_is_right(tmp_path: Path) -> None:
    """A tokenizer that says left, beside a model that counts positions from the first column, is padded right."""
    tokenizer = tiny.byte_tokenizer(padding_side="left")
    torch.manual_seed(5)
    config = t.GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128)
    model = t.GPT2Model(config)
    enliven(model)
    model.eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert judge(tmp_path, "feature-extraction").verdict == "equal"


def test_what_one_batch_leaves_is_taken_back(tmp_path: Path) -> None:
    """After a short text, which turns BigBird's sparse attention off for good, a long one is answered as at first."""
    build(tmp_path, "feature-extraction", "BigBirdModel")
    ask = HuggingFaceModelHandler(str(tmp_path), "feature-extraction", device="cpu", dtype="float32")._load().answer
    text = Request(tiny.text_of(80))
    first, _, later = (ask([one]).outcomes[0] for one in (text, Request("help"), text))
    pipe: Any = t.pipeline("feature-extraction", model=str(tmp_path), device="cpu", dtype=torch.float32)
    expected = np.asarray(pipe(text.inputs))[0].mean(axis=0)
    assert isinstance(first, Prediction) and isinstance(later, Prediction)
    np.testing.assert_array_equal(first.prediction, later.prediction)
    np.testing.assert_allclose(first.prediction, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "task", "parameters", "beyond"),
    [
        ("SequenceClassification", "text-classification", {"top_k": None}, 140),
        ("CausalLM", "text-generation", {"max_new_tokens": 4}, 70),
    ],
)
def test_positions_that_are_stretched_beyond_a_length(
    tmp_path: Path, head: str, task: str, parameters: dict[str, Any], beyond: int
) -> None:
    """A text under that length and one over it, which a forward counts by the longer, are answered as each alone."""
    tokenizer = tiny.byte_tokenizer()
    tokenizer.model_max_length = 10**30
    torch.manual_seed(5)
    rope = {"short_factor": [1.0] * 8, "long_factor": [float(3 + i) for i in range(8)], "rope_theta": 1e4}
    config = t.Phi3Config(
        **tiny.SIZES,
        vocab_size=len(tokenizer),
        original_max_position_embeddings=beyond,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": beyond, **rope},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = getattr(t, f"Phi3For{head}")(config)
    enliven(model)
    model.eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = HuggingFaceModelHandler(str(tmp_path), task, device="cpu", dtype="float32", engine="torch")._load()
    assert engine.task.sharing.which == "all"
    asks = [Request(tiny.text_of(60)[: beyond + more], parameters) for more in (-9, -6, -3, -1, 0, 1, 1, 4, -60)]
    alone = [engine.answer([one]).outcomes[0] for one in asks]
    for one, other in zip(alone, engine.answer(asks).outcomes, strict=True):
        assert differ(one, other) == ""


@pytest.mark.parametrize("spare", [0, 6])
@pytest.mark.parametrize("given", [{}, {"repetition_penalty": 1.3}, {"repetition_penalty": 1.3, "num_beams": 2}])
def test_an_end_that_is_a_token_of_texts(tmp_path: Path, spare: int, given: dict[str, Any]) -> None:
    """What fills a row after its end is no part of the text, and no penalty falls on what is padded with."""
    tokenizer = tiny.byte_tokenizer()
    torch.manual_seed(3)
    size = len(tokenizer) + spare
    model = t.GPT2LMHeadModel(t.GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, bos_token_id=None))
    enliven(model)
    texts = [
        "a",
        "where is my order",
        "good",
        "the order was late and the invoice is wrong, please help me",
        "hi there",
    ]
    written: list[int] = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        new = model.eval().generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
        written += new[0, ids.shape[1] + 3 :].tolist()
    end = max(sorted(set(written)), key=written.count)
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = end
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = HuggingFaceModelHandler(str(tmp_path), "text-generation", device="cpu", dtype="float32")._load()
    asks = [Request(text, {"max_new_tokens": 20, **given}) for text in texts]
    alone = [engine.answer([one]).outcomes[0] for one in asks]
    together = engine.answer(asks).outcomes
    assert [one.prediction for one in together] == [one.prediction for one in alone]
    assert len({len(one.prediction[0]["generated_text"]) - len(one.request.inputs) for one in alone}) > 1
    assert max(one.batch_size for one in together) == (1 if given and not spare else len(asks))


def test_a_maximum_of_another_name(tmp_path: Path) -> None:
    """MPT calls it max_seq_len: where the tokenizer has none, a longer text is cut to it."""
    build(tmp_path, "text-classification", "MptForSequenceClassification")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 10**30}))
    engine = HuggingFaceModelHandler(str(tmp_path), "text-classification", device="cpu", dtype="float32")._load()
    (outcome,) = engine.answer([Request(tiny.text_of(400))]).outcomes
    assert isinstance(outcome, Prediction) and outcome.truncated


def letters_only() -> Any:
    """A tokenizer that drops what it does not know."""
    vocabulary = {letter: i for i, letter in enumerate(["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz "])}
    return t.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [])),
        model_max_length=64,
        pad_token="<pad>",
        eos_token="<eos>",
    )


@pytest.mark.parametrize(
    ("task", "architecture"),
    [
        ("text-classification", "BertForSequenceClassification"),
        ("token-classification", "BertForTokenClassification"),
        ("feature-extraction", "BertModel"),
        ("text-generation", "BertLMHeadModel"),
    ],
)
def test_a_text_without_a_token(tmp_path: Path, task: str, architecture: str) -> None:
    """Emoji that the tokenizer drops are InvalidInput, alone and beside others, and leave the others' answers alone."""
    build(tmp_path, task, architecture)
    (tmp_path / "tokenizer.json").unlink()
    letters_only().save_pretrained(tmp_path)
    engine = HuggingFaceModelHandler(str(tmp_path), task, device="cpu", dtype="float32")._load()
    parameters = {"max_new_tokens": 3} if task == "text-generation" else {}
    requests = [Request(text, parameters) for text in ("😀😀", "good order", "😀", "bad")]
    for outcomes in ([engine.answer([one]).outcomes[0] for one in requests], engine.answer(requests).outcomes):
        kinds = [each.error_type if isinstance(each, Failure) else "an answer" for each in outcomes]
        assert kinds == ["InvalidInput", "an answer", "InvalidInput", "an answer"]


def test_a_list_with_a_text_without_a_token(tmp_path: Path) -> None:
    """One empty text among the list of a message is that message's failure: no zero vector stands for it."""
    build(tmp_path, "feature-extraction", "BertModel")
    (tmp_path / "tokenizer.json").unlink()
    letters_only().save_pretrained(tmp_path)
    engine = HuggingFaceModelHandler(str(tmp_path), "feature-extraction", device="cpu", dtype="float32")._load()
    (outcome,) = engine.answer([Request(["good", "😀"])]).outcomes
    assert isinstance(outcome, Failure) and outcome.error_type == "InvalidInput"


@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",)])
@pytest.mark.parametrize(
    ("make", "task"),
    [
        (tiny.sentiment, "text-classification"),
        (tiny.causal, "text-generation"),
        (tiny.body, "feature-extraction"),
    ],
)
def test_a_folder_without_its_vocabulary(tmp_path: Path, make: Any, task: str, kept: tuple[str, ...]) -> None:
    """A model saved without its tokenizer is refused in one line, not answered as if every word were unknown."""
    for path in Path(make()).iterdir():
        if path.name in ("config.json", "generation_config.json", "model.safetensors", *kept):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelLoadError, match="tokenizer|vocab") as caught:
        HuggingFaceModelHandler(str(tmp_path), task, device="cpu")._load()
    assert "\n" not in str(caught.value)


def test_a_position_table_of_minus_one_is_no_limit(tmp_path: Path) -> None:
    """XLNet's -1 positions cut no text."""
    build(tmp_path, "text-classification", "XLNetForSequenceClassification")
    assert json.loads((tmp_path / "config.json").read_text()).get("max_position_embeddings", -1) == -1
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 10**30}))
    engine = HuggingFaceModelHandler(str(tmp_path), "text-classification", device="cpu", dtype="float32")._load()
    (outcome,) = engine.answer([Request(tiny.text_of(300))]).outcomes
    assert isinstance(outcome, Prediction) and not outcome.truncated and outcome.tokens and outcome.tokens > 300


def test_rows_that_must_not_share_are_put_back_in_order() -> None:
    """Rows are dealt into parts by length, each exactly once, in their order within a part."""
    lengths = [3, 5, 3, 7, 5]
    assert Sharing().parts(lengths) == [[0, 1, 2, 3, 4]]
    assert Sharing("length").parts(lengths) == [[0, 2], [1, 4], [3]]
    assert Sharing("none").parts(lengths) == [[0], [1], [2], [3], [4]]
    assert Sharing("none").group(3, 3) != Sharing("none").group(3, 3)
