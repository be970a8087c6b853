"""The live view, drawn anew from the stream's state at every frame."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from rich import box
from rich.align import Align
from rich.console import RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.demo.stream import Stream
from pipeline.demo.tickets import words

#: One colour a label, in the order in which labels turn up.
_PALETTE = ("cyan", "yellow", "green", "magenta", "blue", "bright_red", "bright_cyan", "bright_yellow")
_INTRODUCTION = (
    "Every ticket goes through Pub/Sub to the job, a process of its own, and ends as\n"
    "one result or one dead letter; a row in the audit table tells of it either way.\n"
    "A dozen are malformed on purpose."
)
_SPARKS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass
class View:
    """What the screen shows. ``notice`` says what is going on just now."""

    stream: Stream
    model: str
    task: str
    total: int
    log: str
    notice: str = ""
    started: float = field(default_factory=time.monotonic)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=120))
    _colours: dict[str, str] = field(default_factory=dict)
    _ended: tuple[float, int] | None = None

    def tick(self) -> None:
        """Notes how many messages ended since the last second."""
        now, ended = time.monotonic(), len(self.stream.ledger.results) + len(self.stream.ledger.dead_letters)
        if self._ended is None:
            self._ended = (now, ended)
        elif now - self._ended[0] >= 1:
            self.rates.append((ended - self._ended[1]) / (now - self._ended[0]))
            self._ended = (now, ended)

    def line(self) -> str:
        """The state on one plain line, for where there is no terminal."""
        elapsed = time.monotonic() - self.started
        return f"{elapsed:5.1f} s  {self.stream.ledger.line()}  {self.rate():.1f} msg/s  {self.notice}"

    def rate(self) -> float:
        """Messages that ended a second, over the last three."""
        latest = list(self.rates)[-3:]
        return sum(latest) / len(latest) if latest else 0.0

    def colour(self, label: str) -> str:
        """``label``'s colour, the same throughout."""
        return self._colours.setdefault(label, _PALETTE[len(self._colours) % len(_PALETTE)])

    def screen(self, width: int, height: int) -> RenderableType:
        """The whole screen."""
        layout = Layout()
        layout.split_column(
            Layout(self._header(), size=3),
            Layout(name="top", size=10),
            Layout(self._predictions(width, height - 3 - 10 - 6 - 1), name="predictions"),
            Layout(self._dead_letters(), size=6),
            Layout(self._footer(), size=1),
        )
        layout["top"].split_row(Layout(self._counters()), Layout(self._distribution(width // 2)))
        return layout

    def _header(self) -> RenderableType:
        elapsed = int(time.monotonic() - self.started)
        row = Table.grid(expand=True)
        row.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        row.add_column(justify="right", no_wrap=True, min_width=5)
        what = Text.assemble(
            ("support tickets ", "bold"), ("→ ", "dim"), (self.task, "bold cyan"), ("  ", ""), (self.model, "dim")
        )
        row.add_row(what, Text(f"{elapsed // 60}:{elapsed % 60:02d}", style="bold"))
        return Panel(
            row, box=box.HEAVY, border_style="cyan", title="[bold]beam-hf-inference[/] · demo", title_align="left"
        )

    def _counters(self) -> RenderableType:
        ledger = self.stream.ledger
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=12, no_wrap=True)
        table.add_column(justify="right", width=5, style="bold")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for name, count, colour in (
            ("published", len(ledger.tickets), "cyan"),
            ("results", len(ledger.results), "green"),
            ("dead letters", len(ledger.dead_letters), "red"),
            ("audit rows", len(ledger.audited), "blue"),
        ):
            bar = ProgressBar(self.total, count, complete_style=colour, finished_style=colour, style="grey23")
            table.add_row(Text(name), f"{count:,}", bar)
        under_way = max(0, len(ledger.tickets) - len(ledger.results) - len(ledger.dead_letters))
        table.add_row(Text("under way", style="dim"), f"{under_way:,}", "")
        table.add_row(
            Text("rate", style="dim"), f"{self.rate():.1f}", Text.assemble(("/s ", "dim"), (self._spark(18), "cyan"))
        )
        latencies = list(self.stream.latencies)
        latency = f"ms median, {percentile(latencies, 0.95):,.0f} p95"
        median = f"{percentile(latencies, 0.5):,.0f}"
        table.add_row(
            Text("latency", style="dim"), median if latencies else "", Text(latency if latencies else "", "dim")
        )
        verdicts = list(ledger.verdicts().values())
        if verdicts:
            right = f"{100 * sum(verdicts) / len(verdicts):.1f}"
            table.add_row(Text("right", style="dim"), right, Text("% as a person labelled them", "dim"))
        return Panel(table, title="messages", title_align="left", border_style="grey50", box=box.ROUNDED)

    def _spark(self, width: int) -> str:
        latest = list(self.rates)[-width:]
        most = max(latest, default=0.0)
        return "".join(_SPARKS[round(8 * rate / most)] if most else " " for rate in latest)

    def _distribution(self, width: int) -> RenderableType:
        ledger = self.stream.ledger
        counts = Counter(answer.label for answer in list(ledger.results.values()) if answer.label)
        title = "predicted labels"
        if ledger.results and not counts:
            tickets = [ledger.tickets[i] for i in list(ledger.results) if i in ledger.tickets]
            counts = Counter(ticket.attributes.get("language", "?") for ticket in tickets)
            title = "results by language"
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, max_width=16, overflow="ellipsis")
        table.add_column(justify="right", style="bold", width=4)
        table.add_column()
        room = max(8, width - 4 - 16 - 4 - 3)
        most = max(10, *counts.values(), 0)
        for label, count in sorted(counts.most_common(8)):
            table.add_row(label, str(count), Text(_bar(count / most * room), style=self.colour(label)))
        return Panel(table, title=title, title_align="left", border_style="grey50", box=box.ROUNDED)

    def _predictions(self, width: int, height: int) -> RenderableType:
        ledger = self.stream.ledger
        if not ledger.results:
            waiting = Align.center(Text(_INTRODUCTION, style="dim"), vertical="middle")
            return Panel(waiting, title="latest predictions", title_align="left", border_style="green", box=box.ROUNDED)
        verdicts = ledger.verdicts()
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=2, style="dim")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(max_width=max(16, width // 3), no_wrap=True, overflow="ellipsis", justify="right")
        table.add_column(width=5, justify="right")
        table.add_column(width=1)
        for message_id, answer in list(ledger.results.items())[: -max(1, height - 2) - 1 : -1]:
            ticket = ledger.tickets.get(message_id)
            table.add_row(
                ticket.attributes.get("language", "") if ticket else "",
                Text(words(ticket) if ticket else message_id),
                Text(answer.text, style=f"bold {self.colour(answer.label)}" if answer.label else "bold"),
                f"{100 * answer.score:.0f} %" if answer.score is not None else "",
                {True: "[green]✓[/]", False: "[red]✗[/]", None: ""}[verdicts.get(message_id)],
            )
        return Panel(table, title="latest predictions", title_align="left", border_style="green", box=box.ROUNDED)

    def _dead_letters(self) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=7, style="red")
        table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis", style="dim")
        for message_id, letter in list(self.stream.ledger.dead_letters.items())[:-5:-1]:
            ticket = self.stream.ledger.tickets.get(message_id)
            table.add_row(
                letter.stage, Text(letter.error), Text(words(ticket) or "(nothing)" if ticket else message_id)
            )
        return Panel(table, title="latest dead letters", title_align="left", border_style="red", box=box.ROUNDED)

    def _footer(self) -> RenderableType:
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        row.add_column(justify="right", no_wrap=True, style="dim")
        row.add_row(Text(f" {self.notice}", style="bold yellow"), f"log {self.log} · Ctrl-C stops ")
        return row


def _bar(eighths: float) -> str:
    """A bar of ``eighths`` characters' length, exact to an eighth."""
    whole, part = divmod(round(eighths * 8), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


def percentile(seconds: list[float], part: float) -> float:
    """The latency that ``part`` of ``seconds`` stay within, in milliseconds; 0 of none."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
