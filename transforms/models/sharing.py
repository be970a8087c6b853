"""Which texts may share a forward of a model, found by measuring it when it is loaded.

Rows of one forward are padded to the longest, and no answer may show it. Most models mask the padding; some do not, or
do only on one side, or look for the id that they were trained with; some keep, after a batch, what it left in them. No
list of names tells, so three rows are answered alone and beside each other, in a few short forwards.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from transforms.models.errors import ModelLoadError, reason
from transforms.models.inside import state, versions, vocabulary

if TYPE_CHECKING:
    from transforms.models.tasks.text import TextTask

_LOG = logging.getLogger(__name__)

#: Rows to measure with: one word, some, and more than most windows, convolutions and chunks of models are wide; in a
#: model that generates, where each row costs two steps of what is often a large one, fewer tokens.
_WORDS = (1, 9, 90)
_TOKENS = {False: 128, True: 64}

#: What is not to be encoded as a mark, in a language that most vocabularies know; letters do for the others.
_TEXT = "please tell me where my order is and why the invoice was wrong, thank you 17 times A C D E "


@dataclass(slots=True)
class Sharing:
    """Which rows may share a forward: ``all`` of them, those of equal ``length``, or ``none``."""

    which: str = "all"
    #: Tokens that a row must have: one, or what the model's windows and pooling need.
    least: int = 1
    #: Tokens beyond which a row shares a forward with its equals in length alone; None where there is no such length.
    even: int | None = None
    #: What a forward changes in the model, as it was when loaded: owner, name and value.
    state: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)

    def parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices into ``lengths``, those that may share a forward together."""
        parts: dict[Hashable, list[int]] = {}
        for i, length in enumerate(lengths):
            parts.setdefault(self.group(length, length), []).append(i)
        return list(parts.values())

    def group(self, length: int, tokens: int | None) -> Hashable:
        """What must be equal for two elements to share a micro-batch: their longest row, and their tokens in all."""
        if self.which == "none":
            return object()
        stretched = self.even is not None and length > self.even
        return (length, tokens) if self.which == "length" or stretched else None

    def restore(self) -> None:
        """The model as it was when loaded, whatever ran before."""
        for owner, name, value in self.state:
            owner[name] = value


def measure(task: TextTask) -> None:
    """Sets the padding and the sharing with which each row of ``task`` is answered as if it were alone.

    Raises:
      ModelLoadError: the model cannot answer a text, or answers one text in two ways.
    """
    rows = sample(task)
    # An engine without a module keeps nothing between two forwards.
    before, weights = state(task.model.module), versions(task.model.module)
    try:
        rows = _answered(task, rows)
        alone = [task.raw([row])[0] for row in rows]
    except Exception as error:
        raise ModelLoadError(
            f"the model cannot answer a text for {task.entry.name}: {type(error).__name__}: {reason(error)}"
        ) from error
    # What changes along with weights was made ready once (RWKV rescales them), and must not be taken back.
    if weights == versions(task.model.module):
        task.sharing.state = [(owner, name, old) for owner, name, old in before if owner.get(name) is not old]
    if task.sharing.state:
        # A number or a tensor is a cache or a recurrence; a word, a switch or another module is a mode, which the
        # lengths of a batch chose (BigBird attends to all of a short text, and to blocks of a long one).
        if any(isinstance(old, (str, bool, torch.nn.Module)) for _, _, old in task.sharing.state):
            task.sharing.which = "length"
        alone = [task.raw([row])[0] for row in rows]
    limit = math.sqrt(torch.finfo(task.dtype).eps)  # rounding is far below it, and padding that is read far above
    again = distance([alone[0], alone[-1]], [task.raw([row])[0] for row in (rows[0], rows[-1])])
    if not again <= limit:
        raise ModelLoadError(
            f"the model gives two answers to one text (they differ by {again:.1%}), so none can be relied on;"
            " use a model whose answers do not depend on chance"
        )
    _settle(task, rows, alone, limit)


def _answered(task: TextTask, rows: Sequence[Any]) -> list[Any]:
    """``rows`` without those that are too short for the model, and the least length that is not."""
    if _runs(task, rows[0]):
        return list(rows)
    shorter = len(rows[0].ids)
    short = [text for count in range(1, 9) for text in ("a" * count, " ".join("a" * count))]
    for row in sorted(_encoded(task, short), key=lambda row: len(row.ids)):
        if len(row.ids) > shorter and _runs(task, row):
            task.sharing.least = len(row.ids)
            break
    return [row for row in rows if len(row.ids) >= max(task.sharing.least, shorter + 1)] or list(rows)


def _runs(task: TextTask, row: Any) -> bool:
    try:
        task.raw([row])
    except Exception:  # noqa: BLE001 (where it is not the length, longer rows raise it too, and are heard)
        return False
    return True


def _settle(task: TextTask, rows: Sequence[Any], alone: Sequence[torch.Tensor], limit: float) -> None:
    """The first way of sharing under which ``rows`` are answered as they are ``alone``."""
    config = getattr(task.model.module, "config", task.config).get_text_config()
    own = config.pad_token_id if hasattr(config, "pad_token_id") else None
    preferred, ids = task.encoder.left, list(_pad_ids(task, own))
    tried: list[str] = []
    if task.sharing.which == "all":
        for pad_id in ids:
            for left in dict.fromkeys((preferred, preferred if task.model.generates else not preferred)):
                task.encoder.pad_id, task.encoder.left = pad_id, left
                if own is None:
                    config.pad_token_id = pad_id
                far = _beside(task, rows, alone)
                if far <= limit:
                    _LOG.info("texts share a forward, padded on the %s with id %d", "left" if left else "right", pad_id)
                    return
                tried.append(f"{far:.1%}" if math.isfinite(far) else "an error")
    task.encoder.pad_id, task.encoder.left = ids[0], preferred
    if own is None:
        config.pad_token_id = ids[0]
    twice = [row for row in rows for _ in range(2)]
    doubled = [tensor for tensor in alone for _ in range(2)]
    for which in ("length", "none"):
        task.sharing.which = which
        if _beside(task, twice, doubled) <= limit:
            break
    because = f"padding changes its answers ({tried[0]})" if tried else "a batch leaves its length in the model"
    says = {"length": "only texts of equal length share a forward", "none": "each text has a forward of its own"}
    _LOG.info("%s: %s", because, says[task.sharing.which])
    if which == "none" and own is None:
        config.pad_token_id = own


def sample(task: TextTask) -> list[Any]:
    """Rows of rising length, none of them cut, the shortest of nothing but a space."""
    most = _TOKENS[task.model.generates]
    longest = min(most, task.longest or most) - 2
    words = (_TEXT * 5).split()
    counts = (*_WORDS, *(_WORDS[-1] // n for n in (2, 4, 8)))
    rows = _encoded(task, [" ", *(" ".join(words[:count]) for count in counts)])
    unknown = task.encoder.tokenizer.unk_token_id
    marks = {unknown, *task.encoder.tokenizer.all_special_ids}
    if all(marks.issuperset(row.ids) for row in rows):
        raise ModelLoadError(
            "its tokenizer knows no word of any text: the folder lacks the tokenizer's files, or they are another's;"
            " save the tokenizer beside the model (tokenizer.save_pretrained)"
        )
    lengths = {len(row.ids): row for row in rows if 0 < len(row.ids) <= longest}
    fitting = [lengths[length] for length in sorted(lengths)]
    return [*fitting[:3], fitting[-1]] if len(fitting) > 3 else fitting or [min(rows, key=lambda row: len(row.ids))]


def _encoded(task: TextTask, texts: Sequence[str]) -> list[Any]:
    return task.encoder.encode([task.example(text) for text in texts])


def _pad_ids(task: TextTask, own: int | None) -> Iterator[int]:
    """Ids to pad with, the likeliest first: the model's, one that no text has, the tokenizer's, other marks'."""
    tokenizer = task.encoder.tokenizer
    size = vocabulary(task.model.module) or max(len(tokenizer), own or 0) + 1  # CANINE hashes its characters
    spare = size - 1 if size > len(tokenizer) else None
    # Penalties for what stands before a new token see the padding too: where it is a token of texts, or an end.
    writes_on = task.model.generates and not getattr(task.config, "is_encoder_decoder", False)
    first = (spare, own) if writes_on else (own, spare)
    found = (*first, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, 0)
    return iter(dict.fromkeys(i for i in found if isinstance(i, int) and 0 <= i < size))


def _beside(task: TextTask, rows: Sequence[Any], alone: Sequence[torch.Tensor]) -> float:
    """How far the answers of ``rows`` in one batch lie from those ``alone``."""
    try:
        return distance(alone, task.raw(rows))
    except Exception:  # noqa: BLE001 (whatever this way of sharing cannot do, another may)
        return math.inf


def distance(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """The largest distance between two answers to one row, as a share of the answer's own size."""
    worst = 0.0
    for one, other in zip(ones, others, strict=True):
        if one.shape != other.shape:
            return math.inf
        size = float(one.double().norm())
        far = float((one.double() - other.double()).norm())
        worst = max(worst, far / size if size else far)
        if math.isnan(far):
            return 0.0 if bool((one.isnan() == other.isnan()).all()) else math.inf
    return worst
