"""Remote endpoints against real servers, each in an environment of its own: they bring other versions of our libraries.

``ENDPOINT_SERVERS`` names a folder with one virtual environment a server (``infinity``, ``llama``, ``vllm``), made as
docs/endpoints.md says; what is not there is skipped. ``transformers serve`` is in test_endpoint_server.py.
"""

from __future__ import annotations

import contextlib
import os
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

#: infinity's way to say no to what it does to a model by default.
_QUIET = {"INFINITY_BETTERTRANSFORMER": "false", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}

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
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5):
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"{command[0]} did not start: {log.read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def run(url: str, task: str, inputs, parameters=None, **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch, and no failed launch."""
    handler = EndpointModelHandler(url, task, timeout_s=120, **settings)
    handler.probe()
    asked = [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]
    return list(handler.run_inference(asked, handler.load_model()))


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
    """Embeddings equal to local weights', whole batches a request; the count of tokens where it says one."""
    sentence_transformers = [program("infinity", "infinity_emb"), "v2", "--engine=torch", "--device=cpu"]
    command = [
        *sentence_transformers,
        f"--model-id={minilm}",
        "--served-model-name=mini",
        "--host=127.0.0.1",
        "--port=PORT",
    ]
    with running([*command, "--url-prefix=/v1", "--dtype=float32"], "/health", tmp_path / "log") as url:
        texts = [f"text number {n}" for n in range(40)]
        outcomes = run(f"{url}/v1", "feature-extraction", texts, model="mini")
    assert all(isinstance(one, Prediction) for one in outcomes), outcomes[0]
    from transforms.models.handler import HuggingFaceModelHandler

    local = HuggingFaceModelHandler(minilm, "feature-extraction", device="cpu", dtype="float32")
    ours = local.run_inference([Request(text, {}, Message()) for text in texts], local.load_model())
    for theirs, own in zip(outcomes, ours, strict=True):
        a, b = theirs.prediction, np.asarray(own.prediction)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9999


def test_llama_cpp(tmp_path):
    """llama.cpp's server with the model that lies beside it: chats, prompts, and a prompt that is too long."""
    python = program("llama", "python")
    model = program("llama", "model.gguf")
    command = [python, "-m", "llama_cpp.server", f"--model={model}", "--host=127.0.0.1", "--port=PORT", "--n_ctx=256"]
    with running([*command, "--model_alias=tiny", "--n_threads=1"], "/v1/models", tmp_path / "log") as url:
        texts_of(f"{url}/v1", "tiny")


def test_vllm(tmp_path):
    """vLLM on a CPU, where it installs."""
    import tiny_models

    model = str(tiny_models.causal())
    command = [program("vllm", "vllm"), "serve", model, "--host=127.0.0.1", "--port=PORT", "--served-model-name=tiny"]
    with running([*command, "--max-model-len=128", "--enforce-eager"], "/health", tmp_path / "log") as url:
        texts_of(f"{url}/v1", "tiny")
