"""``python -m pipeline.replay``: dead letters go back to the input topic once what killed them is mended.

A dead letter is acknowledged only after its message is safely published, and given back if it is not; so whatever
interrupts a replay, nothing is lost, and at worst a few messages are published twice.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.api_core import exceptions as api
from google.pubsub_v1 import SubscriberClient

from pipeline import clients, flags
from pipeline.checks.finding import Wrong, asking, flag
from pipeline.dead_letters import Choice, Letters, ReplayCounts, replay
from pipeline.flags import Flag, UsageError
from pipeline.matchers import COUNT, SUBSCRIPTION, TOPIC, moment, pair, positive
from pipeline.way_back import WayBack, is_read
from transforms.dead_letter import PREFIX, PUBSUB, attempts, stage
from transforms.encode import has_date, rfc3339
from transforms.records import STAGES, Message

_LOGGER = logging.getLogger("pipeline.replay")

_WHERE, _CHOICE, _HOW = "From and to", "Which dead letters", "How"
_ABOUT = (
    "Publishes dead letters to the input topic again, as the messages they were, once what killed them is mended. Each "
    "is acknowledged only after its message is safely published; what is not chosen stays where it is."
)

#: Shorter than this, the time between --since and --until is what parsing both has taken.
_SHORTEST_S = 0.1

REPLAY_FLAGS = (
    Flag(
        "dead_letter_subscription",
        "subscription of the dead-letter topic",
        SUBSCRIPTION,
        required=True,
        group=_WHERE,
    ),
    Flag(
        "topic",
        "topic to publish to: the one that the job's subscription reads",
        TOPIC,
        required=True,
        group=_WHERE,
    ),
    Flag("stage", "only those that failed there", choices=(*STAGES, PUBSUB), group=_CHOICE, repeated=True),
    Flag("error_type", "only those with this error type, such as InvalidBody", group=_CHOICE, repeated=True),
    Flag("attribute", "only those with this attribute, KEY=VALUE; all must fit", pair, group=_CHOICE, repeated=True),
    Flag("since", "only those that died since then: 2030-01-31T12:00:00Z, or 15m, 2h, 3d ago", moment, group=_CHOICE),
    Flag("until", "only those that died before then; without it, before now", moment, group=_CHOICE),
    Flag("max_attempts", "leave those that have failed this often", COUNT, "5", group=_CHOICE),
    Flag(
        "any_topic",
        "also those whose own input subscription reads another topic than --topic",
        switch=True,
        group=_CHOICE,
    ),
    Flag(
        "unmarked",
        "also messages that do not say that they are dead letters: their own attributes may have left no room",
        switch=True,
        group=_CHOICE,
    ),
    Flag("limit", "replay this many at the most", COUNT, group=_HOW),
    Flag("rate", "replay this many a second at the most", positive, group=_HOW),
    Flag("idle_s", "stop when nothing new has come for this many seconds", positive, "10", group=_HOW),
    Flag("dry_run", "show what would be replayed, and change nothing", switch=True, group=_HOW),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Replays and returns the exit code: 0 done, 1 failed or interrupted, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if flags.wants_help(argv):
        return flags.print_help("replay", "pipeline.replay", _ABOUT, REPLAY_FLAGS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        values = flags.read(REPLAY_FLAGS, argv)
        choice = _choice(values, time.time())
        _check(values["dead_letter_subscription"], values["topic"])
    except UsageError as error:
        return flags.wrong_usage(error)
    topic, dry_run, limit = values["topic"], values["dry_run"], values["limit"]
    show = contextlib.nullcontext(_print_letters) if dry_run else _progress(limit)
    try:
        with Letters(values["dead_letter_subscription"], values["idle_s"]) as letters, show as watch:
            _stop_at_signals(letters)
            tally = replay(
                letters,
                topic,
                choice,
                values["max_attempts"],
                limit,
                values["rate"],
                watch=watch,
                dry_run=dry_run,
                way_back=WayBack(topic, values["any_topic"], values["unmarked"]),
            )
            interrupted = letters.stopped.is_set()
    except api.GoogleAPIError as error:
        _LOGGER.error("stopped; every dead letter not published is back on the subscription: %s", error)
        return 1
    _report(tally, values, dry_run)
    if interrupted:
        _LOGGER.warning("interrupted; the rest is back on the subscription")
        return 1
    return 2 if tally.misplaced and not tally.replayed else 0


def _choice(values: Mapping[str, Any], now: float) -> Choice:
    """Which dead letters ``values`` ask for.

    Raises:
        UsageError: nothing can have died between --since and --until.
    """
    since = values["since"] if values["since"] is not None else float("-inf")
    # What dies again while this runs is left for the next time: otherwise it would go round and round.
    until = now if values["until"] is None else min(values["until"], now)
    if since > until - _SHORTEST_S:
        end = "now" if until == now else f"--until, {_said(until)}"
        raise UsageError(f"--since is {_said(since)}, which is not before {end}: nothing can have died between them")
    return Choice(frozenset(values["stage"]), frozenset(values["error_type"]), dict(values["attribute"]), since, until)


def _said(seconds: float) -> str:
    return rfc3339(seconds) if has_date(seconds) else "before the year 1" if seconds < 0 else "after the year 9999"


def _check(subscription: str, topic: str) -> None:
    """Both exist, do not go in a circle, and what is published is read by somebody."""
    found = read = None
    with _passing(
        flag("dead_letter_subscription", subscription),
        f"create it with: gcloud pubsub subscriptions create {subscription} --topic=DEAD_LETTER_TOPIC",
    ):
        found = clients.pubsub(SubscriberClient).get_subscription(subscription=subscription, retry=None, timeout=20)
    with _passing(flag("topic", topic), f"create it with: gcloud pubsub topics create {topic}"):
        read = is_read(topic)
    if found is not None and found.topic == topic:
        raise UsageError(f"--topic {topic!r} is the dead-letter topic itself; give the one that the job reads")
    if read is False:
        raise UsageError(
            f"--topic {topic!r} has no subscription: what is published to it would be gone; give the one that the"
            " job's subscription reads"
        )


@contextlib.contextmanager
def _passing(subject: str, missing: str) -> Iterator[None]:
    """A look at ``subject``: what is wrong is wrong usage; where one may read and publish, but not look, it is said."""
    try:
        with asking(subject, missing):
            yield
    except Wrong as wrong:
        if wrong.finding.ok is not None:
            raise UsageError(str(wrong)) from None
        _LOGGER.warning("%s", wrong)


def _stop_at_signals(letters: Letters) -> None:
    """SIGTERM and Ctrl-C finish the part in work; a second one ends at once."""

    def stop(signum: int, frame: object) -> None:
        signal.signal(signum, signal.SIG_DFL)
        letters.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _print_letters(tally: ReplayCounts, part: Sequence[Message]) -> None:
    for letter in part:
        message_id, kind, error = (
            letter.attributes.get(PREFIX + key, "") for key in ("message_id", "error_type", "error")
        )
        print(
            f"{rfc3339(letter.publish_time)}  {stage(letter) or '?':8} {kind or '?':16} attempt"
            f" {max(attempts(letter), 1)}  {len(letter.data):>8} bytes  {message_id or '?'}  {error[:100]}"
        )


@contextlib.contextmanager
def _progress(limit: int | None) -> Iterator[Callable[[ReplayCounts, Sequence[Message]], None]]:
    """A bar on a terminal where rich is installed; otherwise a log line every few seconds."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich"):
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("replayed", total=limit)
            yield lambda tally, part: bar.update(task, completed=tally.replayed)
        return
    said = time.monotonic()

    def log(tally: ReplayCounts, part: Sequence[Message]) -> None:
        nonlocal said
        if time.monotonic() - said > 5:
            said = time.monotonic()
            _LOGGER.info("%s so far", tally)

    yield log


def _report(tally: ReplayCounts, values: Mapping[str, Any], dry_run: bool) -> None:
    for (where, kind), count in tally.kinds.most_common():
        _LOGGER.info("%6d %s %s", count, where, kind)
    _LOGGER.info("%s%s", "dry run, nothing is changed: would be " if dry_run else "", tally)
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


if __name__ == "__main__":
    sys.exit(main())
