"""What the demo says at its end: how well, how fast, what failed, and where to look next."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.demo.stream import Ledger, query
from pipeline.emulators.setup import Resources

SPEED = """
SELECT APPROX_QUANTILES(total_ms, 100)[OFFSET(50)] AS half, APPROX_QUANTILES(total_ms, 100)[OFFSET(95)] AS most,
  AVG(inference_ms / batch_size) AS forward, ANY_VALUE(device) AS device, ANY_VALUE(dtype) AS dtype
FROM {audit} WHERE status = 'ok'
"""

FAILURES = """
SELECT stage, error_type, COUNT(*) AS n, MIN(error) AS example
FROM {audit} WHERE status = 'dead_letter' GROUP BY stage, error_type ORDER BY n DESC, stage, error_type
"""


def show(console: Console, ledger: Ledger, resources: Resources, folder: Path, log: Path) -> None:
    """Prints the summary; the figures of speed and failure come from the audit table, by SQL."""
    console.print()
    console.rule("[bold]what happened")
    lines = Table.grid(padding=(0, 1))
    if ledger.adds_up():
        lines.add_row(
            "[green]✓[/]", f"each of {len(ledger.tickets):,} tickets: one result or one dead letter, and an audit row"
        )
    else:
        lines.add_row("[red]✗[/]", f"[red]not every ticket is accounted for:[/] {_missing(ledger)}")
    for line in (_accuracy(ledger), _speed(resources)):
        if line:
            lines.add_row("[green]✓[/]", line)
    console.print(lines, highlight=False)
    console.print()
    _failures(console, resources)
    console.rule("[bold]where to look next")
    _next(console, resources, folder, log)


def _missing(ledger: Ledger) -> str:
    ended = ledger.results.keys() | ledger.dead_letters.keys()
    return (
        f"{len(ledger.tickets.keys() - ended)} without an end, "
        f"{len(ledger.results.keys() & ledger.dead_letters.keys())} with two, "
        f"{len(ledger.tickets.keys() - ledger.audited)} without an audit row, "
        f"{len((ended | ledger.audited) - ledger.tickets.keys())} unknown"
    )


def _accuracy(ledger: Ledger) -> str:
    verdicts = ledger.verdicts()
    if not verdicts:
        return ""
    english = [right for i, right in verdicts.items() if ledger.tickets[i].attributes.get("language") == "en"]
    others = [right for i, right in verdicts.items() if ledger.tickets[i].attributes.get("language") != "en"]
    return (
        f"{_share(list(verdicts.values()))} got the label that a person gave them: "
        f"English {_share(english)}, other languages {_share(others)}; it was trained on none of them"
    )


def _share(verdicts: list[bool]) -> str:
    return f"[bold]{100 * sum(verdicts) / len(verdicts):.1f} %[/] of {len(verdicts):,}" if verdicts else "none"


def _speed(resources: Resources) -> str:
    row = query(resources, SPEED)[0]
    if row["half"] is None:
        return ""
    return (
        f"from publish to processed: half within [bold]{row['half']:,.0f} ms[/], 95 % within "
        f"[bold]{row['most']:,.0f} ms[/]; of that the model takes {row['forward']:,.1f} ms a ticket, "
        f"on {row['device']} in {row['dtype']}"
    )


def _failures(console: Console, resources: Resources) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("dead letters", justify="right", style="bold red", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    table.add_column("error", no_wrap=True)
    table.add_column("for example", no_wrap=True, overflow="ellipsis", style="dim", ratio=1)
    for row in query(resources, FAILURES):
        table.add_row(str(row["n"]), row["stage"], row["error_type"], Text(row["example"] or ""))
    if table.row_count:
        console.print(table)
        console.print()


def _next(console: Console, resources: Resources, folder: Path, log: Path) -> None:
    name, executable = resources.audit_table, Path(sys.executable)
    python = executable.relative_to(Path.cwd()) if executable.is_relative_to(Path.cwd()) else "python"
    sql = f"SELECT status, error_type, COUNT(*) FROM {name.dataset}.{name.table} GROUP BY 1, 2"
    ask = f'[print(*row) for row in clients.bigquery_client("{name.project}").query("{sql}").result()]'
    for about, command in (
        (
            "the servers and this audit table again; prints what to export",
            f"{python} -m pipeline.emulators --state={folder}",
        ),
        ("with that exported: ask the table", f"{python} -c 'from pipeline import clients; {ask}'"),
        (
            "another model, from the hub or a folder",
            "make demo MODEL=distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        ),
        ("sentence embeddings", "make demo TASK=feature-extraction"),
        ("what the job said", f"less {log}"),
    ):
        console.print(f"[dim]# {about}[/]", highlight=False)
        console.print(command, style="cyan", highlight=False, soft_wrap=True, markup=False)
    console.print()
