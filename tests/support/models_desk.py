"""A models file on a desk: fleets that follow it and look when told to, and what they are asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_models as tiny
import torch

from transforms.models.fleet.options import Options
from transforms.models.fleet.start import Running, start
from transforms.records import Failure, Message, Prediction, Request

WEIGHTS = (("device", "cpu"), ("dtype", "float32"), ("engine", "torch"))
TEXT = "my order was late"


class Desk:
    """A folder with a models file and model folders, and the fleets that follow it; they look when told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "models.yaml"
        self._fleets: list[Running] = []

    def model(self, name: str, made: Callable[[], str] = tiny.sentiment) -> str:
        """A model folder of its own, to be changed."""
        shutil.copytree(made(), self.folder / name)
        return str(self.folder / name)

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def start(self, **options: Any) -> Running:
        options = {"refresh_s": 3600.0, "weights": WEIGHTS} | options
        fleet = start(Options(str(self.file), **options))
        torch.set_num_threads(1)
        self._fleets.append(fleet)
        return fleet

    def close(self) -> None:
        for fleet in self._fleets:
            fleet.close()


def ask(fleet: Running, *attributes: dict[str, str], text: str = TEXT) -> list[Prediction | Failure]:
    """One message for each of ``attributes``, as one batch."""
    requests = [Request(text, {}, Message(b"{}", each, each.get("id", f"m{i}"))) for i, each in enumerate(attributes)]
    return fleet.answer(requests).outcomes


def variants(outcomes: list[Prediction | Failure]) -> list[str | None]:
    return [outcome.model.variant if outcome.model else None for outcome in outcomes]


def said(outcome: Prediction | Failure) -> list[tuple[str, float]]:
    """Labels and scores, these as far as a forward repeats them."""
    assert isinstance(outcome, Prediction), outcome
    return [(each["label"], round(each["score"], 4)) for each in outcome.prediction]


def retrain(folder: str, seed: int = 1) -> None:
    """Other weights in the same folder."""
    import transformers as t

    torch.manual_seed(seed)
    config = t.AutoConfig.from_pretrained(folder)
    t.BertForSequenceClassification(config).eval().save_pretrained(folder)


def checks(desk: Desk, fleet: Running, variant: str, wrong: bool = False) -> str:
    """A file of checks that ``variant`` passes as it is now, or does not."""
    texts = ["my order was late", "thank you", "the invoice is wrong"]
    labels = [ask(fleet, {"use": variant}, text=text)[0].prediction[0]["label"] for text in texts]
    lines = [{"inputs": text, "prediction": label + "!" * wrong} for text, label in zip(texts, labels, strict=True)]
    path = desk.folder / "checks.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path.name


BY_ATTRIBUTE = "  - {{when: \"attributes.use == '{0}'\", use: {0}}}\n"


def file(models: dict[str, str], rest: str = "", last: str = "") -> str:
    """A models file in which the attribute ``use`` names the model; ``last`` is the rule for all others."""
    text = "models:\n" + "".join(f"  {name}: {{model: {json.dumps(path)}}}\n" for name, path in models.items())
    text += "serve:\n" + "".join(BY_ATTRIBUTE.format(name) for name in models)
    return text + (f"  - {{use: {last}}}\n" if last else "") + rest
