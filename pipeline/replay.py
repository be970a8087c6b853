"""``python -m pipeline.replay``: dead letters go back to the input topic once what killed them is mended.

A dead letter is acknowledged only after its message is safely published, and given back if it is not; so whatever
interrupts a replay, nothing is lost, and at worst a few messages are published twice.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.api_core import exceptions as api
from google.pubsub_v1 import SubscriberClient

from pipeline import clients, flags
from pipeline.checks import hints
from pipeline.checks.finding import UNREACHABLE, Wrong, asking, flag
from pipeline.command import Failed, command
from pipeline.dead_letters import Choice, Letters, replay
from pipeline.flags import Flag, UsageError
from pipeline.matchers import COUNT, SUBSCRIPTION, TOPIC, moment, pair, positive
from pipeline.publish import publish_all
from pipeline.replay_report import print_letters, progress, report
from pipeline.way_back import WayBack, is_read
from transforms.dead_letter import PUBSUB
from transforms.encode import has_date, rfc3339
from transforms.records import STAGES

_LOGGER = logging.getLogger("pipeline.replay")

_WHERE, _CHOICE, _HOW = "From and to", "Which dead letters", "How"
_ABOUT = (
    "Publishes dead letters to the input topic again, as the messages they were, once what killed them is mended. Each "
    "is acknowledged only after its message is safely published; what is not chosen stays where it is."
)

_LOOKED_AT = ("dead_letter_subscription", "idle_s")

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
        "topic to publish to: the one that the job's subscription reads; not with --discard",
        TOPIC,
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
    Flag("discard", "acknowledge them and publish nothing: they are gone", switch=True, group=_HOW),
    Flag("json", "print the counts as JSON", switch=True, group=_HOW),
    Flag("dry_run", "show what would be replayed, and change nothing", switch=True, group=_HOW),
)


@command
def main(argv: Sequence[str]) -> int:
    """Replays and returns the exit code: 0 done, 1 failed or interrupted, 2 wrong usage."""
    if flags.wants_help(argv):
        return flags.print_help("replay", "pipeline.replay", _ABOUT, REPLAY_FLAGS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        values = flags.read(REPLAY_FLAGS, argv)
        choice = _choice(values, time.time())
        if bool(values["topic"]) == values["discard"]:
            raise UsageError(
                "--topic is missing: topic to publish to"
                if not values["topic"]
                else "--discard publishes nothing; leave --topic out"
            )
        _check(values["dead_letter_subscription"], values["topic"])
    except UsageError as error:
        return flags.wrong_usage(error)
    topic, dry_run, limit, discard = values["topic"] or "", values["dry_run"], values["limit"], values["discard"]
    _LOGGER.info("looking at %s; done when nothing new has come for %g s", *(values[n] for n in _LOOKED_AT))
    show = contextlib.nullcontext(print_letters) if dry_run else progress(limit)
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
                publish=(lambda topic, messages: None) if discard else publish_all,
                watch=watch,
                dry_run=dry_run,
                way_back=WayBack(topic, values["any_topic"] or discard, values["unmarked"]),
            )
            interrupted = letters.stopped.is_set()
    except api.GoogleAPIError as error:
        words = clients.words(error)
        raise Failed(f"stopped; every dead letter not published is back on the subscription: {words}") from None
    report(tally, values, dry_run)
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


def _check(subscription: str, topic: str | None) -> None:
    """Both exist, do not go in a circle, and what is published is read by somebody."""
    found = read = None
    with _passing(
        flag("dead_letter_subscription", subscription),
        hints.make_subscription("input_subscription", subscription, "DEAD_LETTER_TOPIC"),
    ):
        found = clients.pubsub(SubscriberClient).get_subscription(subscription=subscription, retry=None, timeout=20)
    if topic is None:
        return
    with _passing(flag("topic", topic), hints.make_topic("output_topic", topic)):
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
        with asking(subject, missing, "Pub/Sub"):
            yield
    except Wrong as wrong:
        if wrong.finding.cause.endswith(UNREACHABLE):
            raise Failed(str(wrong)) from None
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


if __name__ == "__main__":
    sys.exit(main())
