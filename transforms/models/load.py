"""Finds a model's folder, wherever it lies, and refuses what cannot or must not be loaded.

Weights are read from safetensors only, and no code that a model brings is ever run. Every way this can fail is a
``ModelLoadError`` of one line, raised before the first message is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transforms.models import gcs, hub
from transforms.models.errors import Changed, ModelLoadError
from transforms.models.files import hash_folder, read_json

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

#: Files that a tokenizer is read from, among them those of tokenizers in Python.
_TOKENIZER = re.compile(r"[^/]*(token|vocab|merges|bpe|spm|sentencepiece|spiece)[^/]*|[^/]+\.model")

#: Tasks whose answers are the model's own labels.
LABELLED = frozenset(
    {
        *("text-classification", "token-classification", "image-classification", "audio-classification"),
        *("object-detection", "image-segmentation"),
    }
)

#: What transformers opens: the weights, or which file has which of them.
_WEIGHTS = frozenset({"model.safetensors", "model.safetensors.index.json"})
_OTHER_WEIGHTS = (".bin", ".pt", ".h5", ".ckpt", ".onnx", ".gguf")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this machine, and the revision that its results carry."""

    path: Path
    revision: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a model folder holds, known without its weights: its file names, and its small JSON files on demand."""

    model: str
    names: Collection[str]
    read: Callable[[str], Any]

    def root(self) -> str:
        """Where the transformer lies inside the folder: ``""``, or the sub-folder that ``modules.json`` names."""
        path = next((module["path"] for module in self.modules()), "")
        return f"{path}/" if path else ""

    def modules(self) -> list[dict[str, Any]]:
        """The steps that ``modules.json`` names; none where there is no such file.

        Raises:
          ModelLoadError: it is no list of steps.
        """
        if "modules.json" not in self.names:
            return []
        modules = self.read("modules.json")
        for module in modules if isinstance(modules, list) and modules else [None]:
            named = [module.get(key) for key in ("name", "path", "type")] if isinstance(module, dict) else [None]
            if not all(isinstance(each, str) for each in named):
                raise ModelLoadError(
                    f"`model={self.model}`: modules.json is no list of steps, each with a name, a path and a type;"
                    " save the model again with sentence-transformers"
                )
        return list(modules)


def list_files(model: str, revision: str | None, token: str | None) -> Listing:
    """Lists ``model`` without fetching its weights.

    Raises:
      ModelLoadError: it is not there, or cannot be reached.
    """
    if model.startswith("gs://"):
        kept = gcs.kept(revision)
        return _list_folder(model, kept) if kept else Listing(model, *gcs.list_files(model))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _list_folder(model, folder)
    _must_be_hub_id(model)
    found = hub.list_files(model, revision, token)
    return _list_folder(model, found) if isinstance(found, Path) else Listing(model, *found)


def fetch(model: str, revision: str | None, token: str | None) -> ModelFolder:
    """Brings ``model`` onto this machine, if it is not there yet.

    The revision is the commit hash for a hub model, and a hash of the files otherwise, as :func:`resolve` gives it.

    Raises:
      Changed: a folder is no longer what ``revision`` names.
      ModelLoadError: it is not there, or cannot be reached.
    """
    if model.startswith("gs://"):
        return ModelFolder(*gcs.fetch(model, revision if (revision or "").startswith("gcs:") else None))
    folder = Path(model).expanduser()
    if folder.is_dir():
        found = hash_folder(folder)
        if (revision or "").startswith("sha256:") and revision != found:
            raise Changed(f"`model={model}`: its files are no longer those of {revision}")
        return ModelFolder(folder, found)
    _must_be_hub_id(model)
    return ModelFolder(*hub.fetch(model, revision, token))


def resolve(model: str, revision: str | None, token: str | None) -> str:
    """What :func:`fetch` would give for the revision now; asks, and fetches no weights.

    Raises:
      Unreachable: it cannot be asked now.
      ModelLoadError: it is not there.
    """
    if model.startswith("gs://"):
        return gcs.resolve(model)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return hash_folder(folder)
    _must_be_hub_id(model)
    return hub.resolve(model, revision, token)


def _must_be_hub_id(model: str) -> None:
    if model.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(model):
        raise ModelLoadError(
            f"`model={model}`: no such folder, and not a hub id; give a local folder, an id such as"
            " sentence-transformers/all-MiniLM-L6-v2, or a gs:// folder"
        )


def _list_folder(model: str, folder: Path) -> Listing:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return Listing(model, names, lambda name: read_json((folder / name).read_bytes(), f"{model}/{name}"))


def check_tokenizer(listing: Listing) -> None:
    """Refuses a text model without its tokenizer: transformers would make one to which every word is unknown.

    Raises:
      ModelLoadError: no file in the folder can be a tokenizer's.
    """
    root = listing.root()
    if not any(_TOKENIZER.fullmatch(name.removeprefix(root)) for name in listing.names if name.startswith(root)):
        raise ModelLoadError(
            f"`model={listing.model}`: no tokenizer files (tokenizer.json, vocab.txt, spiece.model, …), so every word"
            " would be unknown; save the tokenizer into the folder too: tokenizer.save_pretrained"
        )


def check_files(listing: Listing) -> dict[str, Any]:
    """The model's ``config.json``, once it is clear that the folder is a model's and can be loaded safely.

    Raises:
      ModelLoadError: it is no model folder, has no safetensors weights, or needs code of its own.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    model, root = listing.model, listing.root()
    _check_modules(listing)
    if f"{root}adapter_config.json" in listing.names:
        raise ModelLoadError(
            f"`model={model}`: {root}adapter_config.json makes it an adapter (PEFT), which is not read; merge it into"
            " its base model and save that: model.merge_and_unload().save_pretrained"
        )
    if f"{root}config.json" not in listing.names:
        raise ModelLoadError(f"`model={model}`: not a model folder, it has no {root}config.json")
    here = [name.removeprefix(root) for name in listing.names if name.startswith(root)]
    if not _WEIGHTS & set(here):
        strange = sorted(name for name in here if "/" not in name and name.endswith(".safetensors"))
        if strange:
            raise ModelLoadError(
                f"`model={model}`: {strange[0]} is there, and no model.safetensors, nor an index that names it"
                " (model.safetensors.index.json); fetch the model again"
            )
        other = sorted(name for name in here if name.endswith(_OTHER_WEIGHTS))
        found = f"only {other[0]}" if other else "no weights at all"
        raise ModelLoadError(
            f"`model={model}`: no safetensors weights ({found}); other formats can run code when read."
            " Convert them: https://huggingface.co/docs/safetensors/convert-weights"
        )
    config = listing.read(f"{root}config.json")
    known: dict[str, Any] = config if isinstance(config, dict) else {}
    # transformers would pass over one that it cannot read, and write by its own settings.
    written = f"{root}generation_config.json"
    if written in listing.names and not isinstance(listing.read(written), dict):
        raise ModelLoadError(
            f"`model={model}`: {written} holds no settings; the model folder is damaged, fetch it again"
        )
    kind = known.get("model_type")
    if kind in CONFIG_MAPPING_NAMES:
        return known
    if "auto_map" in known:
        raise ModelLoadError(
            f"`model={model}`: needs Python code of its own (auto_map in config.json), which is never run here;"
            " use a model that transformers itself knows"
        )
    raise ModelLoadError(
        f"`model={model}`: model_type {kind!r} in config.json is unknown to the installed transformers;"
        " upgrade transformers, or use another model"
    )


def check_labels(config: Mapping[str, Any], model: str) -> None:
    """Refuses labels with gaps: the first message with that answer would have no name for it.

    Raises:
      ModelLoadError: an output has no label.
    """
    labels = config.get("id2label")
    if not labels:
        return
    if not isinstance(labels, Mapping):
        raise ModelLoadError(
            f"`model={model}`: id2label in config.json is no object of numbers and labels; mend it there"
        )
    lacking = next((i for i in range(len(labels)) if labels.get(str(i)) in (None, "")), None)
    if lacking is not None:
        raise ModelLoadError(
            f"`model={model}`: id2label in config.json names {len(labels)} outputs and not output {lacking};"
            f" give each of 0 to {len(labels) - 1} its label"
        )


def _check_modules(listing: Listing) -> None:
    for place, module in enumerate(listing.modules()):
        if not module["type"].startswith("sentence_transformers."):
            raise ModelLoadError(
                f"`model={listing.model}`: modules.json names {module['type']}, code of its own, which is never run"
                " here; use a model made of sentence-transformers' own modules"
            )
        if not place and module["type"].rpartition(".")[2] != "Transformer":
            raise ModelLoadError(
                f"`model={listing.model}`: modules.json begins with {module['type']}; known is Transformer alone"
            )
