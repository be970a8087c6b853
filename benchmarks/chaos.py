"""``make chaos``: the job under long, seeded faults, and the account of every message.

Kills, outages of each sink, a Pub/Sub that dies, a drain of a slow bundle, and fuzzed payloads, against the real job as
a process over the embedded servers. The model is a fake one: what is tested is the accounting. Then messages that kill
the process which answers them, with a real tiny model, and what the journal that finds them costs. Writes
``chaos.json`` and ``chaos.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]
os.environ.update(NO_GCE_CHECK="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import fake_job  # noqa: E402
import fuzzed  # noqa: E402
import journal  # noqa: E402
import scenarios  # noqa: E402
from streams import Servers  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--outage_s", type=float, default=60)
    parser.add_argument("--messages", type=int, default=6_000, help="to a model with killers among them")
    parser.add_argument("--payloads", type=int, default=100_000)
    parser.add_argument("--only", default="", help="run the scenarios whose name holds this")
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "benchmarks")
    args = parser.parse_args()
    planned: dict[str, Callable[[Servers, Path], dict[str, Any]]] = {
        "kills": lambda servers, work: scenarios.kills(servers, work, args.kills, args.seed),
        "kills of the stock pipeline": lambda servers, work: scenarios.kills(
            servers, work, args.kills, args.seed, stock=True
        ),
        "outage of the audit table": lambda servers, work: scenarios.outage(
            servers, work, args.outage_s, args.seed, "bigquery"
        ),
        "outage of the output topic": lambda servers, work: scenarios.outage(
            servers, work, args.outage_s, args.seed, "output_topic"
        ),
        "outage of the dead-letter topic": lambda servers, work: scenarios.outage(
            servers, work, args.outage_s, args.seed, "dead_letter_topic"
        ),
        "outage of Pub/Sub": lambda servers, work: scenarios.pubsub_outage(servers, work, args.outage_s, args.seed),
        "drain of a slow bundle": scenarios.slow_drain,
        "killers": lambda servers, work: scenarios.killers(servers, work, args.messages, 50),
        "cost of the journal": lambda servers, work: journal.measure(2_000, 5),
        "fuzzed payloads": lambda servers, work: fuzzed.fuzz(servers, work, args.payloads, args.seed),
    }
    report: dict[str, Any] = {
        "seed": args.seed,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    fake_job.PRELOAD = ["real_job"]
    kept = True
    args.report.mkdir(parents=True, exist_ok=True)
    if args.only and (args.report / "chaos.json").exists():
        report = {**json.loads((args.report / "chaos.json").read_text("utf-8")), **report}
    for name, scenario in planned.items():
        if args.only not in name:
            continue
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory() as folder, Servers.start(Path(folder) / "tables.duckdb") as servers:
            found = report[name] = scenario(servers, Path(folder))
        kept = kept and found.get("kept", True)
        print(json.dumps(found, indent=2), flush=True)
        (args.report / "chaos.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        (args.report / "chaos.md").write_text(markdown(report), "utf-8")
    print("the promise was kept" if kept else "the promise was BROKEN")
    return 0 if kept else 1


def markdown(report: dict[str, Any]) -> str:
    """The report as tables, one a scenario."""
    parts = [f"# Chaos report\n\nSeed {report['seed']}, {report['machine']}.\n"]
    for name, found in report.items():
        if isinstance(found, dict):
            rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in found.items())
            parts.append(f"## {name[0].upper()}{name[1:]}\n\n| | |\n|---|---:|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
