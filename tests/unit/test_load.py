"""Loading: from a folder, the hub and Cloud Storage; and one clear line for each way it can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tiny_models as tiny
import torch
from model_stores import COMMIT, Hub, Storage, serve
from safetensors.torch import load_file, save_file

from transforms.models import files
from transforms.models.backends import device
from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Prediction, Request


def copy(folder: str, to: Path, **config: Any) -> Path:
    """A copy of a model folder, with its config.json changed (None removes a key)."""
    shutil.copytree(folder, to)
    values = {**json.loads((to / "config.json").read_text()), **config}
    (to / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return to


def failure(model: str | Path, task: str | None = None, *, load: bool = False, **options: Any) -> str:
    """The one line with which checking (or loading) ``model`` fails."""
    with pytest.raises(ModelLoadError) as caught:
        handler = HuggingFaceModelHandler(str(model), task, **options)
        handler.load_model() if load else handler.check()
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """Neither a folder nor a hub id: the error says what to give."""
    assert "no such folder, and not a hub id" in failure(tmp_path / "nowhere")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """No config.json."""
    assert "it has no config.json" in failure(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.h5"])
def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path, name: str) -> None:
    """A pickle is never opened; the error names it and says how to convert it."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    (folder / "model.safetensors").rename(folder / name)
    assert f"no safetensors weights (only {name})" in failure(folder)
    assert "only" in failure(folder, load=True)


def test_code_in_the_folder_is_refused(tmp_path: Path) -> None:
    """A model that needs its own Python is refused, and the file is not imported."""
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    folder = copy(tiny.sentiment(), tmp_path / "m", model_type="evil", auto_map=auto_map)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "needs Python code of its own (auto_map" in failure(folder)
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_known_model_is_not_run(tmp_path: Path) -> None:
    """Where transformers itself knows the model, its auto_map is left alone."""
    auto_map = {"AutoModelForSequenceClassification": "evil.Model"}
    folder = copy(tiny.sentiment(), tmp_path / "m", auto_map=auto_map)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    HuggingFaceModelHandler(str(folder)).load_model()
    assert not (tmp_path / "ran").exists()


def test_an_unknown_model_type(tmp_path: Path) -> None:
    """A model newer than the installed transformers."""
    folder = copy(tiny.sentiment(), tmp_path / "m", model_type="bert9")
    assert "model_type 'bert9' in config.json is unknown" in failure(folder)


def test_a_damaged_config(tmp_path: Path) -> None:
    """A config.json that is not JSON."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    (folder / "config.json").write_text("{")
    assert "not JSON" in failure(folder)


def test_damaged_weights(tmp_path: Path) -> None:
    """A cut-off weights file is found before the first message."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded for text-classification" in failure(folder, load=True)


def test_weights_that_lack_the_head(tmp_path: Path) -> None:
    """A body without its classifier would answer at random; it is refused instead."""
    folder = copy(tiny.body(), tmp_path / "m", architectures=["BertForSequenceClassification"])
    assert "lacks weights that text-classification needs (classifier." in failure(folder, load=True)


def test_a_task_the_model_was_not_made_for() -> None:
    """The error names the architecture and what it can do."""
    line = failure(tiny.sentiment(), "token-classification")
    assert (
        "BertForSequenceClassification" in line and "it can do: text-classification, zero-shot-classification" in line
    )


def test_an_unknown_task() -> None:
    """The error lists the tasks there are."""
    assert "there are: audio-classification, automatic-speech-recognition" in failure(tiny.sentiment(), "sentiment")


def test_an_architecture_that_does_not_tell_its_task() -> None:
    """Without --task, a body could stand for several; the error asks for one."""
    assert "give `task`, one of:" in failure(tiny.body())


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (tiny.sentiment, "text-classification"),
        (tiny.entities, "token-classification"),
        (tiny.masked, "fill-mask"),
        (tiny.answering, "question-answering"),
        (tiny.causal, "text-generation"),
        (tiny.animals, "image-classification"),
        (tiny.clip, "zero-shot-image-classification"),
        (tiny.detector, "object-detection"),
        (tiny.captioner, "image-text-to-text"),
        (tiny.sounds, "audio-classification"),
        (tiny.letters, "automatic-speech-recognition"),
        (tiny.minilm, "feature-extraction"),
    ],
)
def test_the_architecture_tells_the_task(model: Any, task: str) -> None:
    """Without --task, the model's own configuration decides."""
    assert HuggingFaceModelHandler(model()).check() == task


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "tpu"}, "`device=tpu`: must be auto, cpu, cuda or cuda:N"),
        ({"dtype": "int8"}, "`dtype=int8`: must be auto, float32"),
        ({"on_too_long": "ignore"}, "`on_too_long=ignore`: must be truncate, dead_letter"),
        ({"engine": "abacus"}, "`engine=abacus`: must be auto, openvino, torch"),
        ({"model_copies": 0}, "`model_copies=0`: must be 1 or more"),
        ({"max_batch_tokens": 0}, "`max_batch_tokens=0`: must be 1 or more"),
        ({"time_limit_s": 0.0}, "`time_limit_s=0.0`: must be over 0"),
        ({"parameters": {"top_k": object()}}, "is not JSON"),
        ({"max_batch_size": 0}, "`max_batch_size=0`: must be 1 or more"),
        ({"parameters": {"top": 1}}, "`parameters`: parameters.top: text-classification has no such parameter"),
        ({"parameters": {"top_k": 0}}, "`parameters`: parameters.top_k=0: must be an integer of at least 1"),
        ({"time_limit_s": 5.0}, "`time_limit_s=5.0`: text-classification cannot be stopped"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    """Values are checked before anything is loaded."""
    assert words in failure(tiny.sentiment(), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_cuda_where_there_is_none() -> None:
    """Asking for a GPU that is not there is one clear line."""
    assert "no CUDA device is present" in failure(tiny.sentiment(), device="cuda", load=True)


@pytest.mark.parametrize(("speedup", "expected"), [(0.6, torch.float32), (1.1, torch.float32), (2.2, torch.bfloat16)])
def test_dtype_auto_is_what_this_cpu_multiplies_faster(
    speedup: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 is taken where a measured matrix product gains enough by it, and only where nothing else was asked."""
    monkeypatch.setattr(device, "bfloat16_speedup", lambda: speedup)
    assert device.pick_dtype("auto", torch.device("cpu")) == expected
    assert device.pick_dtype("float16", torch.device("cpu")) == torch.float16


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux lists a CPU's features")
def test_auto_follows_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU auto takes bfloat16 where the measured products gain enough, and float32 where they do not."""
    for speedup, expected in ((3.0, torch.bfloat16), (1.2, torch.float32), (0.6, torch.float32)):
        monkeypatch.setattr(device, "bfloat16_speedup", lambda speedup=speedup: speedup)
        assert device.pick_dtype("auto", torch.device("cpu")) == expected


def test_the_measurement_is_a_ratio() -> None:
    """What this CPU gains by bfloat16 is measured, whatever else keeps it busy."""
    assert 0 < device.bfloat16_speedup() < 100


def test_copies_share_out_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """One copy uses every core, and two half of them each."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        whole = device.share_threads(1)
        assert device.share_threads(2) == max(1, whole // 2) == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_a_folders_revision_follows_its_content(tmp_path: Path) -> None:
    """The same files have the same revision wherever they lie; one changed weight gives another."""
    one, two = copy(tiny.sentiment(), tmp_path / "a"), copy(tiny.sentiment(), tmp_path / "b")
    assert files.hash_folder(one) == files.hash_folder(two)
    weights = two / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    assert files.hash_folder(one) != files.hash_folder(two)
    assert files.hash_folder(one).startswith("sha256:") and len(files.hash_folder(one)) == 47


def test_hashing_reads_a_bounded_part_of_large_weights(tmp_path: Path) -> None:
    """A 2 GB file is told from one with another ending, without reading it whole."""
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(2_000_000_000)
    before = files.hash_folder(tmp_path)
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert files.hash_folder(tmp_path) != before


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Makes ``url`` the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A hub on loopback, online, with an empty cache."""
    with serve(Hub, tiny.sentiment()) as (url, seen):
        point_to(monkeypatch, url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield seen


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_model_is_fetched_and_its_commit_recorded(hub: list[str], revision: str | None) -> None:
    """A hub id becomes a model; its revision is the commit hash, whatever name it was asked for by."""
    handler = HuggingFaceModelHandler("acme/tiny", revision=revision)
    assert handler.check() == "text-classification"
    assert not any("safetensors" in path for path in hub)
    engine = handler._load()
    assert engine.info.revision == COMMIT
    assert isinstance(engine.answer([Request("the order")]).outcomes[0], Prediction)


def test_a_cached_hub_model_runs_offline(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With HF_HUB_OFFLINE the cache is used and nothing is asked; what is not in it is one clear line."""
    HuggingFaceModelHandler("acme/tiny")._load()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.clear()
    assert HuggingFaceModelHandler("acme/tiny")._load().info.revision == COMMIT
    assert hub == []
    assert "not in the local cache, and HF_HUB_OFFLINE is set" in failure("acme/other")


def test_the_hubs_refusals_are_clear(hub: list[str]) -> None:
    """A gated model, a model that is not there, and a revision that is not."""
    assert "gated; accept its terms at https://huggingface.co/acme/gated" in failure("acme/gated")
    assert "no such model on the hub, or a private one" in failure("acme/none")
    line = failure("acme/tiny", revision="v9")
    assert "`revision=v9`: no such revision" in line


def test_a_hub_that_cannot_be_reached(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is one clear line."""
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert "the hub cannot be reached" in failure("acme/tiny")


def test_the_token_is_read_when_it_is_needed(hub: list[str]) -> None:
    """The token comes from a callable at load time, and is no part of the pickled handler."""
    import pickle

    asked: list[str] = []
    handler = HuggingFaceModelHandler("acme/tiny", token=lambda: asked.append("read"))
    assert not asked
    handler.check()
    assert asked == ["read"]
    assert b"hf_secret" not in pickle.dumps(HuggingFaceModelHandler("acme/tiny", token=_token))


def _token() -> str:
    return "hf_" + "secret"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A Cloud Storage on loopback, and an empty cache."""
    with serve(Storage, tiny.sentiment()) as (url, seen):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield seen


def test_a_bucket_folder_is_downloaded_once(bucket: list[str], tmp_path: Path) -> None:
    """A gs:// folder runs; checking reads no weights, and a second load only lists."""
    handler = HuggingFaceModelHandler("gs://models/tiny/")
    assert handler.check() == "text-classification"
    assert not any("safetensors" in path for path in bucket)
    engine = handler._load()
    assert engine.info.revision.startswith("gcs:")
    assert isinstance(engine.answer([Request("the order")]).outcomes[0], Prediction)
    bucket.clear()
    handler._load()
    assert not any("safetensors" in path for path in bucket)
    assert len(list((tmp_path / "cache" / "beam-hf-inference").iterdir())) == 1


def test_a_damaged_download_leaves_nothing_behind(bucket: list[str], tmp_path: Path) -> None:
    """A file whose checksum is wrong fails the load, and no half folder is mistaken for a model later."""
    line = failure("gs://models/broken", load=True)
    assert "checksum" in line.lower() or "crc32c" in line.lower()
    assert list((tmp_path / "cache" / "beam-hf-inference").iterdir()) == []


def test_a_bucket_that_refuses_or_is_empty(bucket: list[str]) -> None:
    """The error names the URI, and the role that is missing."""
    assert "the folder is empty or does not exist" in failure("gs://models/none")
    assert "roles/storage.objectViewer" in failure("gs://private/tiny")


def shorten(file: Path, count: int) -> None:
    file.write_bytes(file.read_bytes()[:count])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda file: shorten(file, 98_000), "was cut off: it has 98,000 of its 98,276 bytes"),
        (lambda file: shorten(file, 1_000), "was cut off in its header, at 1,000 bytes"),
        (lambda file: shorten(file, 5), "was cut off in its header, at 5 bytes"),
        (lambda file: shorten(file, 0), "was cut off in its header, at 0 bytes"),
        (lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "git lfs pull"),
        (lambda file: file.write_bytes(b"\x02" + b"\0" * 7 + b"[]" + b"\0" * 50), "a header that cannot be read"),
    ],
)
def test_weights_that_broke_off_are_told_before_a_load(
    tmp_path: Path, break_it: Callable[[Path], object], words: str
) -> None:
    """A look at the folder finds them, in one line with the way out; no weight is read for it."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    break_it(folder / "model.safetensors")
    found = failure(folder)
    assert words in found and "\n" not in found


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    """What the index names is looked for."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    index = {
        "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00003.safetensors", "c": "model-3.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names 'model-00002-of-00003.safetensors', which is not there (2 files are lacking)" in failure(folder)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/tmp/model.safetensors", "pytorch_model.bin"])
def test_an_index_opens_nothing_but_the_models_own_safetensors(tmp_path: Path, name: str) -> None:
    """transformers opens what an index names: a pickle, or a file of another folder, is refused before that."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    copy(tiny.sentiment(), tmp_path / "other")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "model-1.safetensors").write_bytes((folder / "pytorch_model.bin").read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert f"names '{name}', which is no safetensors file in the model's own folder" in failure(folder)


@pytest.mark.parametrize(
    "labels", [{"0": "bad", "2": "good"}, {"1": "bad", "2": "good"}, {"0": "bad", "1": None}, {"0": "bad", "1": ""}]
)
def test_labels_with_gaps(tmp_path: Path, labels: dict[str, str]) -> None:
    """An output without a name is told before the first message that would have had it."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    assert "id2label in config.json names 2 outputs and not output" in failure(folder)


def config_with(folder: Path, **changed: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


def index_without_metadata(folder: Path) -> None:
    index = {"weight_map": {"classifier.bias": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: config_with(folder, id2label=["bad", "good"]), "id2label in config.json is no object"),
        (lambda folder: config_with(folder, id2label="bad"), "id2label in config.json is no object"),
        (lambda folder: config_with(folder, architectures=[5]), "does not tell the task"),
        (lambda folder: config_with(folder, architectures="Bert"), "its architecture (not named) does not tell"),
        (lambda folder: (folder / "generation_config.json").write_text("{"), "the model folder is damaged"),
        (lambda folder: (folder / "generation_config.json").write_text("[]"), "the model folder is damaged"),
        (index_without_metadata, "has no metadata; fetch it again"),
    ],
)
def test_files_of_another_shape_are_told_before_a_load(
    tmp_path: Path, break_it: Callable[[Path], object], words: str
) -> None:
    """One line that names the file, where transformers would stumble, or pass over it and answer otherwise."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    break_it(folder)
    found = failure(folder)
    assert words in found and "\n" not in found


def test_sound_of_no_rate(tmp_path: Path) -> None:
    """No recording can be brought to it."""
    folder = copy(tiny.sounds(), tmp_path / "m")
    words = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**words, "sampling_rate": 0}))
    assert "sampling_rate in preprocessor_config.json is 0" in failure(folder, "audio-classification", load=True)


def test_a_model_that_cannot_answer_anything_is_told_when_it_is_loaded(tmp_path: Path) -> None:
    """One small message is answered first: here the processor makes pictures of a size that the model refuses."""
    folder = copy(tiny.animals(), tmp_path / "m")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config["size"] = {"height": 48, "width": 48}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    found = failure(folder, "image-classification", load=True)
    assert "cannot answer an example of image-classification: ValueError" in found and "\n" not in found


def test_a_model_that_refuses_every_picture_is_told_when_it_is_loaded(tmp_path: Path) -> None:
    """A processor that lacks what it needs refuses whatever is sent: that is no fault of the messages."""
    folder = copy(tiny.animals(), tmp_path / "m")
    processor = {"image_processor_type": "ImageGPTImageProcessor", "do_color_quantize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    found = failure(folder, "image-classification", load=True)
    assert "takes no example of image-classification: " in found and "Clusters" in found and "\n" not in found


def test_a_choice_is_kept_for_the_machine_and_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was measured on a quiet day stands on a busy one, for that model alone; a lost file is no error."""
    monkeypatch.setenv("BEAM_HF_CACHE", str(tmp_path / "cache"))
    cpu = torch.device("cpu")
    for speedup, first, other in ((2.2, torch.bfloat16, torch.bfloat16), (0.6, torch.bfloat16, torch.float32)):
        monkeypatch.setattr(device, "bfloat16_speedup", lambda speedup=speedup: speedup)
        assert device.pick_dtype("auto", cpu, "a at main") == first
        assert device.pick_dtype("auto", cpu, f"b at {speedup}") == other
    assert device.pick_dtype("float32", cpu, "a at main") == torch.float32
    for damaged in ("{", "[" * 100_000):
        (tmp_path / "cache" / "choices.json").write_text(damaged)
        assert device.pick_dtype("auto", cpu, "a at main") == torch.float32
    monkeypatch.setenv("BEAM_HF_CACHE", "/proc/nobody")
    assert device.pick_dtype("auto", cpu, "c") == torch.float32


def test_a_choice_is_told_in_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format, and why: measured, or chosen before."""
    monkeypatch.setattr(device, "bfloat16_speedup", lambda: 0.6)
    with caplog.at_level("INFO"):
        for _ in range(2):
            device.pick_dtype("auto", torch.device("cpu"), "told at main")
    first, second = (record.getMessage() for record in caplog.records if "dtype auto" in record.getMessage())
    assert "float32: bfloat16 is multiplied 0.60 times as fast" in first
    assert "float32: as was chosen on this machine before" in second


@pytest.mark.parametrize("most", [2, 1, 0, -1])
def test_a_limit_that_leaves_no_word(tmp_path: Path, most: int) -> None:
    """A tokenizer whose maximum is all marks would make every text the same."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": most}))
    assert f"model_max_length of its tokenizer is {most}, and 2 of these are marks" in failure(folder, load=True)


def test_an_adapter_alone_or_beside_weights(tmp_path: Path) -> None:
    """Its base model without it would give other answers."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "an adapter (PEFT), which is not read; merge it" in failure(folder)
    (folder / "config.json").unlink()
    assert "an adapter (PEFT), which is not read; merge it" in failure(folder)


def test_weights_of_another_name(tmp_path: Path) -> None:
    """transformers opens model.safetensors and what an index names: another file is told at the look."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert "model-00001-of-00001.safetensors is there, and no model.safetensors" in failure(folder)


@pytest.mark.parametrize("said", [None, {"quant_method": "of-its-own"}])
def test_whole_numbers_for_weights(tmp_path: Path, said: dict[str, str] | None) -> None:
    """Weights that were quantised, with no word of a scale that transformers heeds, would be read as they stand."""
    folder = copy(tiny.sentiment(), tmp_path / "m", quantization_config=said)
    weights = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    weights[name] = (weights[name] * 50).round().to(torch.int8)
    save_file(weights, folder / "model.safetensors")
    assert f"holds {name} as I8, and config.json does not say how" in failure(folder)


def test_a_model_that_gives_tuples(tmp_path: Path) -> None:
    """return_dict in config.json, as folders have it that were made for TorchScript, changes no answer."""
    folder = copy(tiny.sentiment(), tmp_path / "m", return_dict=False)
    given = [HuggingFaceModelHandler(str(each), device="cpu").load_model() for each in (tiny.sentiment(), folder)]
    one, other = ([*each.answer([Request("late order", {"top_k": None})]).outcomes][0].prediction for each in given)
    assert one == other


_PHI = {"model_type": "phi3", "architectures": ["Phi3ForSequenceClassification"], **tiny.SIZES}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("tokenizer.json", "{", "its tokenizer cannot be read (JSONDecodeError"),
        ("tokenizer_config.json", "[]", "its tokenizer cannot be read"),
        ("tokenizer_config.json", '{"model_max_length": "64"}', "model_max_length of its tokenizer is '64', no number"),
        ("config.json", '{"x": ' + "[" * 100_000, "not JSON"),
        (
            "config.json",
            json.dumps({**_PHI, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
            "must be one of ['longrope']",
        ),
    ],
)
def test_files_that_transformers_cannot_read(tmp_path: Path, name: str, text: str, says: str) -> None:
    """One line with the cause in it, not only the announcement of one."""
    folder = copy(tiny.sentiment(), tmp_path / "m")
    (folder / name).write_text(text)
    assert says in failure(folder, load=True, device="cpu", engine="torch")
