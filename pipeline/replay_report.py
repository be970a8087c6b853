"""What a replay shows: the dead letters of a dry run, its progress, and the counts at its end."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.dead_letters import ReplayCounts
from transforms.dead_letter import PREFIX, attempts, stage
from transforms.encode import rfc3339
from transforms.records import Message

_LOGGER = logging.getLogger("pipeline.replay")


def print_letters(tally: ReplayCounts, part: Sequence[Message]) -> None:
    """A line for each of ``part``."""
    for letter in part:
        message_id, kind, error = (
            letter.attributes.get(PREFIX + key, "") for key in ("message_id", "error_type", "error")
        )
        print(
            f"{rfc3339(letter.publish_time)}  {stage(letter) or '?':8} {kind or '?':16} attempt"
            f" {max(attempts(letter), 1)}  {len(letter.data):>8} bytes  {message_id or '?'}  {error[:100]}"
        )


@contextlib.contextmanager
def progress(limit: int | None) -> Iterator[Callable[[ReplayCounts, Sequence[Message]], None]]:
    """A bar on a terminal where rich is installed; otherwise a log line every few seconds."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich"):
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("replayed", total=limit)
            yield lambda tally, part: bar.update(task, completed=tally.replayed)
        return
    said = float("-inf")

    def log(tally: ReplayCounts, part: Sequence[Message]) -> None:
        nonlocal said
        if time.monotonic() - said > 5:
            said = time.monotonic()
            _LOGGER.info("%s so far", tally)

    yield log


def report(tally: ReplayCounts, values: Mapping[str, Any], dry_run: bool) -> None:
    """Says what was done, and what stays where it is and why."""
    done = "discarded" if values["discard"] else "replayed"
    if values["json"]:
        kinds = [{"stage": stage, "error_type": kind, "count": n} for (stage, kind), n in tally.kinds.most_common()]
        counts = {done: tally.replayed, "left": tally.left, "refused": tally.refused, "misplaced": tally.misplaced}
        print(json.dumps({**counts, "dry_run": dry_run, "kinds": kinds}))
    else:
        for (where, kind), count in tally.kinds.most_common():
            print(f"{count:>6} {where} {kind}")
        words = str(tally).replace("replayed", done, 1)
        print(f"{'dry run, nothing is changed: would be ' if dry_run else ''}{words}", flush=True)
    if tally.refused:
        _LOGGER.warning(
            "%d dead letters have failed %d times or more and stay where they are: look at one (--dry_run"
            " --max_attempts=1000), then replay them with a larger --max_attempts or acknowledge them",
            tally.refused,
            values["max_attempts"],
        )
    if tally.strangers:
        _LOGGER.warning(
            "%d messages on %s do not say that they are dead letters (dead_letter_stage) and stay where they are: is it"
            " a subscription of the dead-letter topic? If their own attributes left no room for it, add --unmarked",
            tally.strangers,
            values["dead_letter_subscription"],
        )
    for whose, count in tally.elsewhere.most_common():
        _LOGGER.warning(
            "%d messages stay where they are, each %s, and not %s: give that topic, or add --any_topic",
            count,
            whose,
            values["topic"],
        )
