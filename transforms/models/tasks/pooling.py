"""Token embeddings to one sentence embedding, by the files that sentence-transformers writes beside a model.

``modules.json`` lists the steps after the transformer: pooling, dense layers, normalisation. They are read here with
plain code, so that no model folder can name code to run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from transforms.models.errors import ModelLoadError

#: ``(token embeddings [rows, tokens, width], mask [rows, tokens, 1]) -> [rows, width]``
_POOL: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": lambda x, mask: (x * mask).sum(1) / mask.sum(1).clamp(min=1e-9),
    "mean_sqrt_len_tokens": lambda x, mask: (x * mask).sum(1) / mask.sum(1).clamp(min=1e-9).sqrt(),
    "cls": lambda x, mask: x[:, 0],
    "max": lambda x, mask: x.masked_fill(mask == 0, -torch.inf).amax(1),
    "weightedmean": lambda x, mask: _weighted_mean(x, mask),
    "lasttoken": lambda x, mask: x[torch.arange(len(x), device=x.device), mask[:, :, 0].sum(1).long() - 1],
}

#: The names of the same in folders written before sentence-transformers 5.
_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
    "torch.nn.modules.activation.Sigmoid": torch.nn.Sigmoid,
}


#: Names in ``sentence_…_config.json``, in the order in which sentence-transformers looks for them.
_WRITTEN = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


#: What may be among the arguments that a folder has for the parts of its transformer, and changes no answer.
_IDLE = frozenset(
    {"torch_dtype", "dtype", "attn_implementation", "add_pooling_layer", "low_cpu_mem_usage", "use_safetensors"}
)


#: Which of a transformer's outputs sentence-transformers reads for a task, where the folder says it.
_OUTPUTS = {"feature-extraction": "last_hidden_state", "sequence-classification": "logits"}


class _Unit(torch.nn.Module):
    """A normalisation that another step follows."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(rows)


def _weighted_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask * torch.arange(1, x.shape[1] + 1, device=x.device).view(1, -1, 1)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """What a model folder says about its sentence embeddings; the defaults are those of a folder that says nothing."""

    transformer: Path
    modes: tuple[str, ...] = ("mean",)
    layers: tuple[torch.nn.Module, ...] = ()
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    #: Numbers that are left of an embedding (Matryoshka); None leaves all.
    truncate_dim: int | None = None
    #: How two embeddings are compared.
    similarity: str = "cosine"

    def pool(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``[rows, tokens, width]`` under ``mask`` ``[rows, tokens]`` to ``[rows, width]``, in float32."""
        # Padding may hold anything: a window of nothing else is 0 / 0 on some engines, and NaN times 0 is NaN.
        tokens, wide = tokens.float().masked_fill(~mask.unsqueeze(-1), 0.0), mask.unsqueeze(-1).float()
        pooled = torch.cat([_POOL[mode](tokens, wide) for mode in self.modes], dim=-1)
        for layer in self.layers:
            pooled = layer(pooled)
        return pooled


def read_sentence_model(folder: Path, device: torch.device) -> SentenceModel:
    """The sentence embedding described in ``folder``; mean pooling where it describes none.

    Raises:
      ModelLoadError: it lists a step that is not known here.
    """
    if not (folder / "modules.json").is_file():
        return SentenceModel(folder)
    # As sentence-transformers has it: in the order of the list, and of two with one name the second.
    modules = list({module["name"]: module for module in _read(folder / "modules.json")}.values())
    transformer = folder / modules[0]["path"]
    modes: tuple[str, ...] = ("mean",)
    layers: list[torch.nn.Module] = []
    normalize = False
    for module in modules[1:]:
        if normalize:  # and goes on: what a message may leave out is only the last step
            layers.append(_Unit())
            normalize = False
        kind, path = module["type"].rpartition(".")[2], folder / module["path"]
        if not module["type"].startswith("sentence_transformers."):
            raise ModelLoadError(f"{folder}: modules.json names {module['type']}, code of its own, which is never run")
        if kind == "Pooling" and not layers:
            modes = _modes(_read(path / "config.json"), path)
        elif kind == "Normalize":
            normalize = True
        elif kind == "Dense":
            layers.append(_dense(path).to(device))
        else:
            raise ModelLoadError(
                f"{folder}: modules.json names {module['type']} at {module['name']}; known are Transformer, Pooling,"
                " Dense and Normalize, Pooling before the others"
            )
    words = transformer_words(transformer)
    said = _said(folder)
    return SentenceModel(
        transformer=transformer,
        modes=modes,
        layers=tuple(layers),
        normalize=normalize,
        max_length=words.get("max_seq_length"),
        lowercase=bool(words.get("do_lower_case")),
        prompts=said.get("prompts") or {},
        default_prompt=said.get("default_prompt_name"),
        truncate_dim=said.get("truncate_dim"),
        similarity=said.get("similarity_fn_name") or "cosine",
    )


def _said(folder: Path) -> dict[str, Any]:
    """What the folder says of its embeddings, none of it of another kind than it can be."""
    said = _read(folder / "config_sentence_transformers.json", default={})
    prompts = (said.get("prompts") or {}) if isinstance(said, dict) else None
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelLoadError(f"{folder}: the prompts of config_sentence_transformers.json are no names with texts")
    usual, dim = said.get("default_prompt_name"), said.get("truncate_dim")
    if usual is not None and usual not in prompts:
        raise ModelLoadError(f"{folder}: config_sentence_transformers.json names the prompt {usual!r}, and has none so")
    if dim is not None and (type(dim) is not int or dim < 1):
        raise ModelLoadError(
            f"{folder}: truncate_dim={dim!r} in config_sentence_transformers.json is no count of numbers"
        )
    return dict(said)


def transformer_words(transformer: Path, task: str = "feature-extraction") -> dict[str, Any]:
    """What sentence-transformers wrote of the transformer: the first of the files that it has called so.

    Raises:
      ModelLoadError: it is for another ``task``, or reads a text otherwise than is done here.
    """
    found = (_read(transformer / f"sentence_{name}_config.json", default={}) for name in _WRITTEN)
    words: dict[str, Any] = next((words for words in found if words), {})
    odd = [name for name in ("query_expansion", "query_length", "document_length") if words.get(name)]
    if words.get("transformer_task", task) != task or odd:
        raise ModelLoadError(f"{transformer}: made for {odd[0] if odd else words['transformer_task']}, not for {task}")
    forward = {"method": "forward", "method_output_name": _OUTPUTS[task]}
    ways = words.get("modality_config") or {"text": forward}
    way = ways.get("text") if isinstance(ways, dict) else None
    if not isinstance(way, dict) or {**way, "method_output_name": _only(way.get("method_output_name"))} != forward:
        raise ModelLoadError(f"{transformer}: the modality_config of its sentence_bert_config.json reads no text alone")
    if "message" in ways:
        raise ModelLoadError(
            f"{transformer}: its sentence_bert_config.json has a message in modality_config, so that each text is read"
            " as a chat, which is not done here; save the model from a tokenizer without a chat template"
        )
    for name in ("model", "config", "tokenizer", "processor", "processing"):
        for key in (f"{name}_args", f"{name}_kwargs"):
            given = words.get(key) or {}
            if not isinstance(given, dict) or given.keys() - _IDLE:
                raise ModelLoadError(f"{transformer}: {key} in its sentence_bert_config.json is not read; leave it out")
    return words


def _only(names: Any) -> Any:
    """The name in a list of one."""
    return names[0] if isinstance(names, list) and len(names) == 1 else names


def _modes(config: dict[str, Any], path: Path) -> tuple[str, ...]:
    mode = config.get("pooling_mode")
    modes = (
        (mode,) if isinstance(mode, str) else tuple(mode or [new for old, new in _OLD_NAMES.items() if config.get(old)])
    )
    unknown = [mode for mode in modes if mode not in _POOL]
    if unknown:
        raise ModelLoadError(f"{path}: unknown pooling {', '.join(unknown)}; known are {', '.join(_POOL)}")
    if config.get("include_prompt") is False:
        raise ModelLoadError(f"{path}: pooling without the prompt (include_prompt=false) is not supported")
    return modes or ("mean",)


def _dense(path: Path) -> torch.nn.Module:
    config, weights = _read(path / "config.json"), path / "model.safetensors"
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        raise ModelLoadError(f"{path}: a dense layer with {activation} is not supported")
    if {config.get("module_input_name"), config.get("module_output_name")} - {None, "sentence_embedding"}:
        raise ModelLoadError(f"{path}: a dense layer over token embeddings is not supported")
    if not weights.is_file():
        raise ModelLoadError(
            f"{path}: no model.safetensors; save the model again with sentence-transformers 5 or newer"
        )
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    tensors = safetensors.torch.load_file(weights)
    linear.load_state_dict({name.removeprefix("linear."): tensor.float() for name, tensor in tensors.items()})
    return torch.nn.Sequential(linear, _ACTIVATIONS[activation]()).eval()


def _read(path: Path, default: Any = None) -> Any:
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: cannot be read as JSON: {error}") from None
