"""Remote endpoints against real servers, each in an environment of its own: they bring other versions of our libraries.

``ENDPOINT_SERVERS`` names a folder with one virtual environment a server (``infinity``, ``llama``, ``vllm``), made as
docs/endpoints.md says; what is not there is skipped. ``transformers serve`` is in test_endpoint_server.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from transforms.models.remote.handler import EndpointModelHandler
from transforms.records import Failure, Message, Prediction, Request

#: Nobody is told of these runs, and a small cache is enough.
_QUIET = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}

CHAT = [{"role": "user", "content": "the cat"}]


def program(server: str, name: str) -> str:
    """Path of a program in the environment of ``server``; without it, the test is skipped."""
    folder = os.environ.get("ENDPOINT_SERVERS", "")
    path = Path(folder) / server / "bin" / name
    if not folder or not path.exists():
        pytest.skip(f"{server} is not installed (ENDPOINT_SERVERS={folder or 'not set'})")
    return str(path)


@contextlib.contextmanager
def running(command: list[str], health: str, log: Path) -> Iterator[str]:
    """The server's URL, once it is ready; stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": "",
        **_QUIET,
    }
    with log.open("wb") as output:
        ours = [part.replace("PORT", str(port)) for part in command]
        server = subprocess.Popen(ours, stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + 1200
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5):
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"{command[0]} did not start: {log.read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def run(url: str, task: str, inputs, parameters=None, **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch, and no failed launch."""
    handler = EndpointModelHandler(url, task, timeout_s=120, max_wait_s=150, **settings)
    handler.probe()
    asked = [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]
    return list(handler.run_inference(asked, handler.load_model()))


def local(folder: str, task: str, inputs) -> list[Prediction | Failure]:
    """What our own handler makes of the same weights."""
    from transforms.models.handler import HuggingFaceModelHandler

    handler = HuggingFaceModelHandler(folder, task, device="cpu", dtype="float32")
    return handler.run_inference([Request(one, {}, Message()) for one in inputs], handler.load_model())


def equal(outcomes: list[Prediction | Failure], task: str, folder: str, inputs) -> None:
    """Ranks and scores are those of the local weights."""
    assert all(isinstance(one, Prediction) for one in outcomes), outcomes
    for theirs, own in zip(outcomes, local(folder, task, inputs), strict=True):
        assert [each["index"] for each in theirs.prediction] == [each["index"] for each in own.prediction]
        scores = [[each["score"] for each in one.prediction] for one in (theirs, own)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


def embeddings_of(url: str, model: str, folder: str) -> None:
    """Forty texts, in whole batches, point where local weights' embeddings point."""
    texts = [f"text number {n}" for n in range(40)]
    outcomes = run(url, "feature-extraction", texts, model=model)
    assert all(isinstance(one, Prediction) for one in outcomes), outcomes[0]
    assert {one.batch_size for one in outcomes} == {32, 8}
    for theirs, own in zip(outcomes, local(folder, "feature-extraction", texts), strict=True):
        a, b = theirs.prediction, np.asarray(own.prediction)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def texts_of(url: str, model: str) -> None:
    """Chats, a prompt, and one that is refused alone, on an OpenAI-compatible server of generations."""
    greedy = {"max_new_tokens": 4, "do_sample": False}
    outcomes = run(url, "text-generation", [CHAT, "the dog", CHAT], greedy, model=model)
    assert all(isinstance(one, Prediction) for one in outcomes), outcomes
    first, prompt, third = (one.prediction[0]["generated_text"] for one in outcomes)
    assert first[:-1] == CHAT and first[-1]["role"] == "assistant" and first == third and prompt.startswith("the dog")
    assert all(one.tokens and one.tokens_generated for one in outcomes)
    long, fine = run(url, "text-generation", ["word " * 20_000, "the dog"], greedy, model=model)
    assert isinstance(fine, Prediction) and isinstance(long, Failure), (long, fine)
    print(f"over the context: {long.error_type} {long.error[:200]}")


def test_infinity(minilm, tmp_path):
    """Embeddings and ranks equal to local weights', whole batches a request; tokens where it says them of one input."""
    import tiny_writers

    # Its transformers is of the version before, which knows this tokenizer by another name.
    ranker = str(shutil.copytree(tiny_writers.ranker(), tmp_path / "ranker"))
    tokenizer = tmp_path / "ranker" / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    command = [program("infinity", "infinity_emb"), "v2", "--host=127.0.0.1", "--port=PORT", "--url-prefix=/v1"]
    for name, folder in (("mini", minilm), ("ranks", ranker)):
        command += [f"--model-id={folder}", f"--served-model-name={name}", "--engine=torch", "--device=cpu"]
        command += ["--dtype=float32", "--no-model-warmup", "--no-bettertransformer"]
    with running(command, "/health", tmp_path / "log") as url:
        embeddings_of(f"{url}/v1", "mini", minilm)
        asked = [{"query": "the order", "texts": ["was late", "invoice", "thank you"]}] * 2
        ranks = run(f"{url}/v1", "text-ranking", asked, model="ranks")
        equal(ranks, "text-ranking", ranker, asked)


def test_llama_cpp(tmp_path):
    """llama.cpp's server with the model that lies beside it: chats, prompts, and a prompt that is too long."""
    python = program("llama", "python")
    model = program("llama", "model.gguf")
    command = [python, "-m", "llama_cpp.server", f"--model={model}", "--host=127.0.0.1", "--port=PORT", "--n_ctx=256"]
    with running([*command, "--model_alias=tiny", "--n_threads=1"], "/v1/models", tmp_path / "log") as url:
        texts_of(f"{url}/v1", "tiny")


def test_vllm(tmp_path):
    """vLLM on a CPU, where it installs: generation, by a model whose heads are as wide as its kernels take."""
    import tiny_models
    import transformers

    config = transformers.AutoConfig.from_pretrained(tiny_models.causal(), n_embd=64)
    shutil.copytree(tiny_models.causal(), tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    with running(vllm(str(tmp_path / "model"), "--max-model-len=128"), "/health", tmp_path / "log") as url:
        texts_of(f"{url}/v1", "tiny")


def test_vllm_embeddings(minilm, tmp_path):
    """The same of embeddings."""
    with running(vllm(minilm, "--runner=pooling", "--dtype=float32"), "/health", tmp_path / "log") as url:
        embeddings_of(f"{url}/v1", "tiny", minilm)


def vllm(model: str, *flags: str) -> list[str]:
    """Its server by its module: the script of the package for CPUs looks for one of another name."""
    command = [program("vllm", "python"), "-m", "vllm.entrypoints.openai.api_server", f"--model={model}"]
    return [*command, "--served-model-name=tiny", "--host=127.0.0.1", "--port=PORT", "--enforce-eager", *flags]
