"""``python -m pipeline.demo``: streams support tickets through a model and accounts for each of them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.demo import closing
from pipeline.demo.classifier import base_model, read_examples, ticket_classifier
from pipeline.demo.job import Job
from pipeline.demo.page import Page, hold
from pipeline.demo.stream import Stream
from pipeline.demo.tickets import due, read_tickets, repeated
from pipeline.demo.view import View
from pipeline.emulators import setup
from pipeline.emulators.process import spawn

_CLASSIFY = "text-classification"
_FRAME_S = 0.25
_PLAIN_LINE_S = 5.0


class DemoError(Exception):
    """The demo cannot go on; its text is for the person watching."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to stream through which model.

    The tickets are published over ``seconds``. It gives up after ``patience_s`` without news of those under way, or
    ``loading_s`` without the first, whose model may have to be downloaded.
    """

    model: str
    task: str
    messages: int
    seconds: float
    folder: Path
    flags: Sequence[str] = ()
    patience_s: float = 120.0
    page: bool = False
    loading_s: float = 900.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; 0 if every ticket is accounted for, 1 if not, 2 for wrong usage, 130 if interrupted."""
    tickets = read_tickets()
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.demo",
        description=__doc__,
        epilog="Other flags go to the job, python -m pipeline.main.",
    )
    parser.add_argument("--model", help="hub id or folder (default: a ticket classifier, trained on the spot)")
    parser.add_argument("--task", help=f"Hugging Face task (default: {_CLASSIFY}, or the model's own)")
    parser.add_argument(
        "--messages", type=int, default=len(tickets), help=f"how many tickets (default {len(tickets)}: all)"
    )
    parser.add_argument("--seconds", type=float, default=45.0, help="time over which they are published (default 45)")
    parser.add_argument("--folder", type=Path, default=Path(".cache/demo"), help="log and tables (default .cache/demo)")
    parser.add_argument("--no-console", action="store_true", help="without the page to watch it by")
    args, flags = parser.parse_known_args(argv)
    if args.messages < 1 or args.seconds <= 0:
        parser.error("--messages and --seconds must be more than 0")
    console = Console()
    # `kill` ends it as Ctrl-C does: the job drained, the servers stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        model, task = _model(console, args.model, args.task)
        return run(
            console, Plan(model, task, args.messages, args.seconds, args.folder, flags, page=not args.no_console)
        )
    except (DemoError, ModuleNotFoundError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("stopped before the end; nothing is left running", style="yellow")
        return 130


def _model(console: Console, model: str | None, task: str | None) -> tuple[str, str]:
    """The model and task to run; trains the ticket classifier where neither says otherwise."""
    if model is not None:
        return model, task or ""
    if task == "feature-extraction":
        return str(base_model()), task
    if task not in (None, _CLASSIFY):
        raise DemoError(f"--task {task}: the demo has no model of its own for it; name one with --model")
    return str(_classifier(console)), _CLASSIFY


def _classifier(console: Console) -> Path:
    columns = (
        TextColumn("fine-tuning MiniLM on the labelled tickets"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
    )
    examples, shown = read_examples(), [0.0]
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0, visible=console.is_terminal)

        def progress(done: float) -> None:
            bar.update(task, completed=done)
            if not console.is_terminal and done >= shown[0]:
                console.print(f"fine-tuning MiniLM on the labelled tickets: {done:.0%}", highlight=False)
                shown[0] = done + 0.2

        trained = ticket_classifier(Path(".cache/ticket-classifier"), examples, progress=progress)
    made = "kept from an earlier run" if trained.reused else f"trained in {trained.seconds:.0f} s"
    console.print(
        f"[green]✓[/] ticket classifier [bold]{trained.folder}[/], {made}: {trained.trained_on} labelled examples, "
        f"right on {trained.accuracy:.1%} of {trained.held_out} held-out ones",
        highlight=False,
    )
    return trained.folder


def run(console: Console, plan: Plan) -> int:
    """Starts servers and job, streams the tickets, shows it all, and sums up; returns the exit code."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    tables = plan.folder / "tables.duckdb"
    for old in plan.folder.glob("tables.duckdb*"):
        old.unlink()
    with ExitStack() as stack:
        with console.status("starting embedded Pub/Sub and BigQuery"):
            pubsub = stack.enter_context(spawn("pipeline.emulators.pubsub", "--port=0"))
            bigquery = stack.enter_context(spawn("pipeline.emulators.bigquery", "--port=0", f"--data={tables}"))
            os.environ.update({server.name: server.address for server in (pubsub, bigquery)})
            resources = setup.Resources.named("my-project")
            setup.create(resources)
        console.print(f"[green]✓[/] Pub/Sub on {pubsub.address}, BigQuery on {bigquery.address}", highlight=False)
        flags = [
            *resources.flags(),
            f"--model={plan.model}",
            *([f"--task={plan.task}"] if plan.task else []),
            *plan.flags,
        ]
        page = stack.enter_context(Page(resources, plan.folder, plan.flags)) if plan.page else None
        if page:
            flags += page.flags
            console.print(page.line(), highlight=False)
        job = stack.enter_context(Job(flags, plan.folder / "job.log"))
        stream = Stream(resources)
        view = View(stream, plan.model, plan.task or "its own task", plan.messages, str(job.log))
        try:
            with _drawn(console, view) as draw:
                for notice in _stream(plan, stream, job):
                    view.notice = notice
                    draw()
        except KeyboardInterrupt:
            console.print(stream.ledger.line(), highlight=False)
            raise
        closing.show(console, stream.ledger, resources, plan.folder, job.log)
        if page and page.address and console.is_terminal:
            hold(console, page.address)
    console.print(stream.ledger.line(), highlight=False)
    return 0 if stream.ledger.adds_up() else 1


def _stream(plan: Plan, stream: Stream, job: Job) -> Iterator[str]:
    """Publishes the tickets in time and takes what comes back, until all is in; each frame, yields what is going on.

    The first ticket goes alone and waits for the model to load, which would else be counted as everybody's latency.
    It ends early, with a ledger that does not add up, when the plan's patience does.

    Raises:
        DemoError: the job ended.
    """
    tickets = list(repeated(read_tickets(), plan.messages))
    stream.publish(tickets[:1])
    started, ledger = None, stream.ledger
    news = (0, time.monotonic())
    while not ledger.adds_up() or len(ledger.tickets) < plan.messages:
        if job.exit_code() is not None:
            raise DemoError(
                f"the job ended by itself with code {job.exit_code()}; the end of {job.log}:\n{job.last_lines()}"
            )
        stream.poll()
        known = len(ledger.tickets) + len(ledger.results) + len(ledger.dead_letters) + len(ledger.audited)
        if known != news[0] or ledger.adds_up():
            news = (known, time.monotonic())
        elif time.monotonic() - news[1] > (plan.patience_s if started else plan.loading_s):
            return
        if started is None and (ledger.results or ledger.dead_letters):
            started = time.monotonic()
            stream.latencies.clear()
        if started is None:
            yield "the job starts and loads its model …"
        else:
            out = max(1, due(time.monotonic() - started, plan.seconds, plan.messages))
            if out > len(ledger.tickets):
                stream.publish(tickets[len(ledger.tickets) : out])
            yield "streaming …" if out < plan.messages else "all published; the last ones come in"
        time.sleep(_FRAME_S)
    yield "every ticket is accounted for"


@contextmanager
def _drawn(console: Console, view: View) -> Iterator[Callable[[], None]]:
    """A function that draws ``view``: a live screen in a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        with Live(console=console, screen=True, auto_refresh=False) as live:

            def draw() -> None:
                view.tick()
                live.update(view.screen(console.width, console.height), refresh=True)

            yield draw
            if view.stream.ledger.adds_up():
                time.sleep(3)
        return
    last = 0.0

    def write() -> None:
        nonlocal last
        view.tick()
        if time.monotonic() - last >= _PLAIN_LINE_S:
            last = time.monotonic()
            console.print(view.line(), highlight=False, soft_wrap=True)

    yield write
    console.print(view.line(), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
