"""The model's metrics, told to Beam once a batch; docs/metrics.md describes every name."""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.metrics import Metrics

from transforms.models.answers import Answers
from transforms.records import Failure, Prediction

NAMESPACE = "HuggingFaceModelHandler"

COUNTERS = {
    name: Metrics.counter(NAMESPACE, name)
    for name in (
        "predictions",
        "failures",
        "forwards",
        "bisections",
        "out_of_memory",
        "truncated",
        "tokens",
        "padding",
        "padding_saved",
    )
}
_BATCH_MS = Metrics.distribution(NAMESPACE, "batch_ms")
_MODEL_LOAD_MS = Metrics.distribution(NAMESPACE, "model_load_ms")
#: Loads that no batch has told of yet: a model is loaded where Beam counts nothing.
_LOADS: list[float] = []

#: What ``padding_saved`` compares with: batches of this many elements, in the order in which they came.
_PLAIN_BATCH = 32


def loaded(elapsed_ms: float) -> None:
    """A model was loaded; told with the next batch."""
    _LOADS.append(elapsed_ms)


def count(answers: Answers) -> None:
    """Updates the metrics, once a batch."""
    failures = sum(isinstance(outcome, Failure) for outcome in answers.outcomes)
    counts = answers.counts
    for name, value in (
        ("predictions", len(answers.outcomes) - failures),
        ("failures", failures),
        ("forwards", counts.forwards),
        ("bisections", counts.bisections),
        ("out_of_memory", counts.out_of_memory),
        ("truncated", answers.truncated),
        ("tokens", answers.tokens),
        ("padding", counts.padding),
        ("padding_saved", max(0, _plain_padding(answers.outcomes) - counts.padding)),
    ):
        if value:
            COUNTERS[name].inc(value)
    _BATCH_MS.update(int(answers.ms))
    while _LOADS:
        _MODEL_LOAD_MS.update(int(_LOADS.pop()))


def _plain_padding(outcomes: Sequence[Prediction | Failure]) -> int:
    """Padding of plain batches, each as wide as its longest element."""
    counts = [outcome.tokens for outcome in outcomes if isinstance(outcome, Prediction) and outcome.tokens]
    batches = [counts[start : start + _PLAIN_BATCH] for start in range(0, len(counts), _PLAIN_BATCH)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)
