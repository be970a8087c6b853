"""Models of the Hugging Face hub: by id and revision, through its own cache, offline where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import huggingface_hub
from huggingface_hub import errors, is_offline_mode

from transforms.models.errors import ModelLoadError, Unreachable
from transforms.models.files import READ, read_json

_T = TypeVar("_T")

#: What a model needs to run here; weights in other formats and code are never fetched.
_WANTED = [f"*{suffix}" for suffix in READ]
_UNWANTED = ["onnx/*", "openvino/*", "coreml/*", "original/*"]


def list_files(
    model: str, revision: str | None, token: str | None
) -> Path | tuple[Collection[str], Callable[[str], Any]]:
    """The folder in the cache when offline; online the file names, and a reader of small JSON files."""
    if is_offline_mode():
        return _guard(model, revision, lambda: _snapshot(model, revision, token))

    def read(name: str) -> Any:
        path = _guard(
            model,
            revision,
            lambda: huggingface_hub.hf_hub_download(model, name, revision=revision, token=token),
        )
        return read_json(Path(path).read_bytes(), f"{model}/{name}")

    info = _guard(model, revision, lambda: huggingface_hub.HfApi(token=token).model_info(model, revision=revision))
    return {file.rfilename for file in info.siblings or ()}, read


def fetch(model: str, revision: str | None, token: str | None) -> tuple[Path, str]:
    """The model's folder in the cache, fetched if needed, and its commit hash."""
    folder = _guard(model, revision, lambda: _snapshot(model, revision, token))
    return folder, folder.name


def resolve(model: str, revision: str | None, token: str | None) -> str:
    """The commit that ``revision`` is now, or in the cache when offline.

    Raises:
      Unreachable: the hub does not answer.
      ModelLoadError: there is no such model or revision.
    """
    if is_offline_mode():
        return fetch(model, revision, token)[1]
    info = _guard(model, revision, lambda: huggingface_hub.HfApi(token=token).model_info(model, revision=revision))
    return str(info.sha)


def _snapshot(model: str, revision: str | None, token: str | None) -> Path:
    # The cache names a snapshot's folder after its commit.
    return Path(
        huggingface_hub.snapshot_download(
            model, revision=revision, token=token, allow_patterns=_WANTED, ignore_patterns=_UNWANTED
        )
    )


def _guard(model: str, revision: str | None, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.HTTPError, OSError) as error:
        _explain(model, revision, error)


def _explain(model: str, revision: str | None, error: Exception) -> NoReturn:
    where = f"`model={model}`" + (f" `revision={revision}`" if revision else "")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        text = f"gated; accept its terms at https://huggingface.co/{model} and give `token`"
    elif isinstance(error, errors.RevisionNotFoundError):
        text = "no such revision; give a branch, a tag or a commit hash of this model"
    elif isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        text = "no such model on the hub, or a private one; check the id, or give `token`"
    elif is_offline_mode() or isinstance(error, errors.OfflineModeIsEnabled):
        text = "not in the local cache, and HF_HUB_OFFLINE is set; fetch it first with `hf download`, or unset it"
    elif isinstance(error, errors.HFValidationError):
        text = "not a hub id"
    else:
        text = f"the hub cannot be reached ({type(error).__name__}); check the network, or use a local or gs:// folder"
        raise Unreachable(f"{where}: {text}") from None
    raise ModelLoadError(f"{where}: {text}") from None  # the cause holds the request, and so the token
