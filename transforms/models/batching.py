"""Cuts a batch into micro-batches under a budget of padded tokens.

Padding is most of the cost on mixed lengths, so elements run beside others of their length. Pure functions: the
handler restores the order by the indices they return.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """What one element costs in a micro-batch.

    ``length`` is the tokens of its longest row, ``rows`` the rows it needs (a zero-shot text needs one a label). Only
    elements of equal ``group`` may share a micro-batch.
    """

    length: int
    rows: int = 1
    group: Hashable = None


def cost(sizes: Sequence[Size]) -> int:
    """Padded tokens of a micro-batch of ``sizes``: all rows are as long as the longest."""
    return sum(size.rows for size in sizes) * max(size.length for size in sizes)


def cut(sizes: Sequence[Size], max_tokens: int, max_size: int, max_padding: int | None = None) -> list[list[int]]:
    """Indices into ``sizes``, as micro-batches.

    Every index is in exactly one. No micro-batch has more than ``max_size`` elements, or more than ``max_tokens``
    padded tokens unless it holds one element, or more than ``max_padding`` of them that are padding: as many as cost
    what one more forward costs. The longest come first, so that memory runs out at once or not at all.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size.group, []).append(index)
    padding = max_tokens if max_padding is None else max_padding
    return [batch for members in groups.values() for batch in _cut_group(sizes, members, max_tokens, max_size, padding)]


def _cut_group(
    sizes: Sequence[Size], members: list[int], max_tokens: int, max_size: int, max_padding: int
) -> Iterator[list[int]]:
    members.sort(key=lambda index: sizes[index].length, reverse=True)
    batch: list[int] = []
    rows = tokens = longest = 0
    for index in members:
        size = sizes[index]
        padded = (rows + size.rows) * longest
        padding = padded - tokens - size.rows * size.length
        if batch and (len(batch) == max_size or padded > max_tokens or padding > max_padding):
            yield batch
            batch = []
        if not batch:
            rows, tokens, longest = 0, 0, size.length
        batch.append(index)
        rows += size.rows
        tokens += size.rows * size.length
    if batch:
        yield batch
