"""``python -m pipeline.replay``: dead letters go back to the input topic once what killed them is mended.

A dead letter is acknowledged only after its message is safely published, and given back if it is not; so whatever
interrupts a replay, nothing is lost, and at worst a few messages are published twice.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from google.api_core import exceptions as api
from google.pubsub_v1 import PublisherClient, SubscriberClient

from pipeline import clients
from pipeline.checks.finding import Wrong, asking, flag
from pipeline.dead_letters import Choice, Letters, ReplayCounts, replay
from pipeline.options import FLAGS, Flag, UsageError, help_text
from transforms.dead_letter import PREFIX, attempts, stage
from transforms.encode import rfc3339
from transforms.records import STAGES, Message

_LOGGER = logging.getLogger("pipeline.replay")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _moment(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found:
        return time.time() - int(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        raise ValueError("use 2030-01-31T12:00:00Z, or 15m, 2h, 3d for that long ago") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise ValueError("use KEY=VALUE")
    return key, value


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise ValueError("use a whole number from 1")
    return int(text)


def _positive(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text) or float(text) == 0:
        raise ValueError("use a number over 0")
    return float(text)


_parse = {each.name: each.parse for each in FLAGS}
_GIVEN_UP = "pubsub"

REPLAY_FLAGS = (
    Flag(
        "dead_letter_subscription", "subscription of the dead-letter topic", _parse["input_subscription"], required=True
    ),
    Flag(
        "topic", "topic to publish to: the one that the job's subscription reads", _parse["output_topic"], required=True
    ),
    Flag("stage", "only those that failed there; may be given again", choices=(*STAGES, _GIVEN_UP)),
    Flag("error_type", "only those with this error type, such as InvalidBody; may be given again"),
    Flag("attribute", "only those with this attribute, KEY=VALUE; given again, all must fit", _pair),
    Flag("since", "only those that died since then: 2030-01-31T12:00:00Z, or 15m, 2h, 3d ago", _moment),
    Flag("until", "only those that died before then; without it, before now", _moment),
    Flag("max_attempts", "leave those that have failed this often", _count, "5"),
    Flag("limit", "replay this many at the most", _count),
    Flag("rate", "replay this many a second at the most", _positive),
    Flag("idle_s", "stop when nothing new has come for this many seconds", _positive, "10"),
)
_REPEATED = ("stage", "error_type", "attribute")


def main(argv: Sequence[str] | None = None) -> int:
    """Replays and returns the exit code: 0 done, 1 failed or interrupted, 2 wrong usage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        values = _arguments(sys.argv[1:] if argv is None else argv)
        _check(values["dead_letter_subscription"], values["topic"])
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    choice = Choice(
        frozenset(values["stage"]),
        frozenset(values["error_type"]),
        dict(values["attribute"]),
        values["since"] or 0.0,
        # What dies again while this runs is left for the next time: otherwise it would go round and round.
        values["until"] or time.time(),
    )
    dry_run, limit = values["dry_run"], values["limit"]
    show = contextlib.nullcontext(_print_letters) if dry_run else _progress(limit)
    try:
        with Letters(values["dead_letter_subscription"], values["idle_s"]) as letters, show as watch:
            _stop_at_signals(letters)
            tally = replay(
                letters,
                values["topic"],
                choice,
                values["max_attempts"],
                limit,
                values["rate"],
                watch=watch,
                dry_run=dry_run,
            )
            interrupted = letters.stopped.is_set()
    except api.GoogleAPIError as error:
        _LOGGER.error("stopped; every dead letter not published is back on the subscription: %s", error)
        return 1
    _report(tally, values["max_attempts"], dry_run)
    if interrupted:
        _LOGGER.warning("interrupted; the rest is back on the subscription")
    return int(interrupted)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(message)


def _arguments(argv: Sequence[str]) -> dict[str, Any]:
    parser = _Parser(prog="python -m pipeline.replay", description=__doc__, allow_abbrev=False)
    for each in REPLAY_FLAGS:
        action = "append" if each.name in _REPEATED else "store"
        parser.add_argument(f"--{each.name}", help=help_text(each).replace("%", "%%"), action=action, metavar="")
    parser.add_argument("--dry_run", action="store_true", help="show what would be replayed, and change nothing")
    found, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise UsageError(f"{unknown[0]!r}: no such flag; see --help")
    values: dict[str, Any] = {"dry_run": found.dry_run}
    for each in REPLAY_FLAGS:
        given = getattr(found, each.name)
        if each.name in _REPEATED:
            values[each.name] = [_value(each, text) for text in given or []]
        else:
            text = given if given is not None else each.default
            if text is None and each.required:
                raise UsageError(f"--{each.name} is missing: {each.help}")
            values[each.name] = None if text is None else _value(each, text)
    return values


def _value(each: Flag, text: str) -> Any:
    if each.choices and text not in each.choices:
        raise UsageError(f"--{each.name} {text!r}: use {' or '.join(each.choices)}")
    try:
        return each.parse(text)
    except ValueError as error:
        raise UsageError(f"--{each.name} {text!r}: {error}") from None


def _check(subscription: str, topic: str) -> None:
    """Both exist, and do not go in a circle."""
    try:
        subject = flag("dead_letter_subscription", subscription)
        with asking(
            subject, f"create it with: gcloud pubsub subscriptions create {subscription} --topic=DEAD_LETTER_TOPIC"
        ):
            found = clients.pubsub(SubscriberClient).get_subscription(subscription=subscription, retry=None, timeout=20)
        with asking(flag("topic", topic), f"create it with: gcloud pubsub topics create {topic}"):
            clients.pubsub(PublisherClient).get_topic(topic=topic, retry=None, timeout=20)
    except Wrong as wrong:
        if wrong.finding.ok is None:  # may read and publish, but not look
            _LOGGER.warning("%s", wrong)
            return
        raise UsageError(str(wrong)) from None
    if found.topic == topic:
        raise UsageError(f"--topic {topic!r} is the dead-letter topic itself; give the one that the job reads")


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


def _report(tally: ReplayCounts, max_attempts: int, dry_run: bool) -> None:
    for (where, kind), count in tally.kinds.most_common():
        _LOGGER.info("%6d %s %s", count, where, kind)
    _LOGGER.info("%s%s", "dry run, nothing is changed: would be " if dry_run else "", tally)
    if tally.refused:
        _LOGGER.warning(
            "%d dead letters have failed %d times or more and stay where they are: look at one (--dry_run"
            " --max_attempts=1000), then replay them with a larger --max_attempts or acknowledge them",
            tally.refused,
            max_attempts,
        )


if __name__ == "__main__":
    sys.exit(main())
