"""``make bench``: every system on the same messages in one run; JSON, plots and the tables of docs/performance.md.

``--quick`` runs the smaller model on mixed lengths alone, with fewer messages and without the planned subscriber.
``--google_emulator`` adds the same ratios over Google's own Pub/Sub emulator, where the Google Cloud CLI has it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import conditions, growth, measure, plots, report
from benchmarks.systems import infinity
from benchmarks.workloads import CACHE, model, texts
from pipeline import clients
from pipeline.emulators.process import spawn

#: Messages a turn for each system: enough for a few seconds at its rate. All go on in the same stream.
COUNTS = {
    "ours": 1800,
    "ours, torch": 1800,
    "planned subscriber": 1800,
    "sentence-transformers": 600,
    "subscriber": 250,
    "stock": 120,
}
#: And under each condition, where the peers stand beside them.
PEERS = {
    "ours": 900,
    "ours, torch": 900,
    "planned subscriber": 900,
    "sentence-transformers": 400,
    "ours, infinity": 400,
    "subscriber": 120,
    "Beam's handler": 60,
    "stock": 60,
}
NULL_COUNTS = {"ours": 20_000, "stock": 400}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--google_emulator", action="store_true")
    parser.add_argument("--backlog", type=int, help="one more, deeper backlog: 1000000 takes five minutes")
    parser.add_argument("--out", default="docs/benchmarks", help="folder of results.json and the plots")
    args = parser.parse_args()
    os.environ.update(NO_GCE_CHECK="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": report.machine(), "quick": args.quick}
    turns, null_turns = (2, 2) if args.quick else (5, 3)
    with embedded_servers():
        pace = speed()
        plan = _plan(args.quick, pace)
        results["throughput"] = {
            f"{network} {workload}": progress(compare, network, workload, share, systems, turns)
            for network, workload, share, systems in plan
        }
        counts = scaled(NULL_COUNTS, 0.5 if args.quick else 1)
        inputs = texts("short", counts["ours"] * null_turns)
        results["null"] = progress(measure.rounds, counts, "null", inputs, null_turns)
        results["latency"] = latencies(results["throughput"]["6x384 mixed"], args.quick)
        results["growth"] = growth.run(progress, args.quick, args.backlog)
        if not args.quick:
            peers = scaled(
                {name: count for name, count in PEERS.items() if name != "ours, infinity" or infinity()}, pace
            )
            inputs = texts("mixed", turns * max(peers.values()))
            results["conditions"] = progress(conditions.run, peers, model("6x384"), inputs, turns)
    if args.google_emulator:
        with google_emulator():
            results["google_emulator"] = progress(compare, *plan[0], turns)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    plots.draw(results, out)
    report.write(results, Path("docs/performance.md"))
    print(report.summary(results))


def _plan(quick: bool, pace: float) -> list[tuple[str, str, float, Sequence[str]]]:
    """Model, workload, the share of COUNTS that machine, model and length of the texts allow, and the systems."""
    everyone, both = list(COUNTS), ["ours", "ours, torch"]
    if quick:
        return [("6x384", "mixed", 0.4 * pace, [each for each in everyone if each != "planned subscriber"])]
    return [
        ("6x384", "mixed", pace, everyone),
        ("6x384", "short", pace, everyone),
        ("6x384", "long", 0.1 * pace, everyone),
        ("12x768", "mixed", 0.08 * pace, everyone),
        ("vit-12x768", "pictures", 0.03 * pace, both),
    ]


def scaled(counts: Mapping[str, int], share: float) -> dict[str, int]:
    """A share of the messages a turn, and not so few that a rate means nothing."""
    return {system: max(30, int(count * share)) for system, count in counts.items()}


def speed() -> float:
    """How fast torch is here beside the machine whose turns of ``COUNTS`` take some seconds: at most 1."""
    with measure.Raw(model("6x384"), "mixed", 200) as raw:
        raw.turn()
        return float(min(1.0, raw.row()["rate"] / 300))


def compare(network: str, workload: str, share: float, systems: Sequence[str], turns: int) -> list[dict[str, Any]]:
    """The raw model on either engine and ``systems`` on one workload, in turns."""
    folder = model(network)
    counts = scaled({system: COUNTS[system] for system in systems}, share)
    most = max(counts.values())
    with measure.Raw(folder, workload, most) as raw, measure.Raw(folder, workload, most, "openvino") as best:
        return measure.rounds(counts, folder, texts(workload, most * turns), turns, [raw, best])


def latencies(throughput: Sequence[dict[str, Any]], quick: bool) -> list[dict[str, Any]]:
    """Ours at 10 a second and at 10, 50 and 80 % of its capacity; the subscriber at the same shares of its own."""
    seconds = 8 if quick else 12
    rates = {row["system"]: row["rate"] for row in throughput}
    rows = []
    loads = {"ours": (0.0, 0.5)} if quick else {"ours": (0.0, 0.1, 0.5, 0.8), "subscriber": (0.1, 0.5)}
    for system, shares in loads.items():
        with measure.Run.start(system, model("6x384")) as run:
            run.warm_up(texts("mixed", 20))
            for share in shares:
                rate = rates[system] * share or 10.0
                found = progress(measure.latency, run, texts("mixed", max(100, int(rate * seconds))), rate)
                rows.append({**found, "share": share})
    return rows


def progress(function: Callable[..., Any], *args: Any) -> Any:
    """Calls ``function`` and says how long it took."""
    start = time.monotonic()
    found = function(*args)
    words = " ".join(str(arg) for arg in args if isinstance(arg, (str, int, float)))
    rows = found if isinstance(found, list) else [found]
    rates = ", ".join(f"{row.get('system', '')} {row['rate']:.0f}/s" for row in rows if "rate" in row)
    print(f"{time.monotonic() - start:6.1f} s  {function.__name__.strip('_')} {words}: {rates}", flush=True)
    return found


@contextlib.contextmanager
def embedded_servers() -> Iterator[None]:
    """Pub/Sub and BigQuery of our own, for this process and its children."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        spawn("pipeline.emulators.pubsub", "--port", "0") as pubsub,
        spawn("pipeline.emulators.bigquery", "--port", "0") as bigquery,
    ):
        os.environ.update({server.name: server.address for server in (pubsub, bigquery)})
        clients.pubsub.cache_clear()
        clients.bigquery_client.cache_clear()
        yield


@contextlib.contextmanager
def google_emulator() -> Iterator[None]:
    """Google's Pub/Sub emulator, with our BigQuery beside it."""
    if not shutil.which("gcloud"):
        raise SystemExit("--google_emulator: no gcloud on this machine; install the Google Cloud CLI and its emulator")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "gcloud",
        "beta",
        "emulators",
        "pubsub",
        "start",
        "--project=my-project",
        f"--host-port={address}",
        "--quiet",
    ]
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        with embedded_servers():
            os.environ["PUBSUB_EMULATOR_HOST"] = address
            clients.pubsub.cache_clear()
            _wait_for(address)
            yield
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _wait_for(address: str) -> None:
    host, _, port = address.partition(":")
    for _ in range(120):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.5)
    raise SystemExit(f"Google's Pub/Sub emulator did not start at {address} within a minute")


if __name__ == "__main__":
    main()
