"""The engine that runs every task: transformers' models on PyTorch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from transforms.models import memory
from transforms.models.backends import Engine, Model, Place, Source
from transforms.models.backends.architectures import auto_class
from transforms.models.backends.device import bound_kernel_caches, pick_device, pick_dtype, share_threads
from transforms.models.backends.pack import ROWS, ROWS_OF_ANSWERS, pack, packed_bytes
from transforms.models.errors import ModelLoadError

if TYPE_CHECKING:
    from transforms.models.spec import ModelSpec


class TorchModel(Model):
    """A transformers model, packed for this CPU where that is faster."""

    def __init__(self, module: Any, copies: int) -> None:
        self.module = module.eval()
        self.generates = bool(getattr(module, "can_generate", lambda: False)())
        # The weights, held twice, leave half of the memory to the rest.
        free = memory.available() / 2 / copies - super().bytes()
        pack(module, ROWS_OF_ANSWERS if self.generates else ROWS, free)

    def bytes(self) -> int:
        return super().bytes() + packed_bytes(self.module)

    def forward(self, **inputs: torch.Tensor) -> Any:
        return self.module(**inputs)

    def running(self) -> AbstractContextManager[Any]:
        return torch.inference_mode()

    def positions(self) -> int | None:
        config = self.module.config.get_text_config()
        rows: int | None = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
        if not rows or rows < 0:  # XLNet's -1 is no limit
            return None
        # RoBERTa and its kin count positions from the padding id upwards: 514 positions hold 512 tokens.
        tables = (each for name, each in self.module.named_modules() if name.endswith("position_embeddings"))
        offset: int = next(
            (each.padding_idx + 1 for each in tables if getattr(each, "padding_idx", None) is not None), 0
        )
        return rows - offset


class TorchEngine(Engine):
    """PyTorch, on a CPU or on CUDA."""

    name = "torch"

    def place(self, spec: ModelSpec) -> Place:
        bound_kernel_caches()
        device = pick_device(spec.device)
        share_threads(spec.model_copies)
        dtype = pick_dtype(spec.dtype, device, f"{spec.model} at {spec.revision or 'no revision'}")
        return Place(device, dtype, spec.model_copies)

    def load(self, source: Source, place: Place) -> Model:
        module, info = auto_class(source).from_pretrained(
            source.folder,
            config=source.config,
            dtype=place.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        missing = sorted(key for key in info["missing_keys"] if not source.may_miss(key))
        if missing:
            raise ModelLoadError(
                f"the model lacks weights that {source.task} needs ({', '.join(missing[:3])}"
                f"{', …' if len(missing) > 3 else ''}); use a model trained for {source.task}"
            )
        return TorchModel(module.to(place.device), place.copies)


ENGINE = TorchEngine()
