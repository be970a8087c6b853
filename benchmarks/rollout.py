"""``python -m benchmarks.rollout``: a job under load while its models file changes twenty times, and kills amid swaps.

The real job as a process over the embedded servers, with tiny models of real architectures. Prints what became of every
message, the latency during changes beside that without, memory after each, and whether every row's ``models_version``
was one in force.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.update(NO_GCE_CHECK="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from chaos import Collector, Load, account  # noqa: E402
from streams import Servers, audit_rows, drain, fresh, job, waited  # noqa: E402
from tiny_models import sentiment, topics  # noqa: E402

from pipeline.direct import leases  # noqa: E402
from transforms.records import Message  # noqa: E402

_IN_FORCE = re.compile(r"models in force: ([0-9a-f]{8}-[0-9a-f]{6})")


class Desk:
    """The models file of a running job, its model folders, and what the job says of them."""

    def __init__(self, folder: Path) -> None:
        self.file, self.metrics, self.log = (folder / name for name in ("models.yaml", "metrics.json", "log"))
        self.stable, self.next = (str(shutil.copytree(sentiment(), folder / name)) for name in ("stable", "next"))
        self.other = topics()
        self.broken = shutil.copytree(sentiment(), folder / "broken")
        weights = self.broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-50])
        (folder / "wrong.ndjson").write_text('{"inputs": "my order", "prediction": "no such label"}\n')
        self.split, self.more, self.rest, self.rules = {"stable": 90, "next": 10}, {}, "", ""

    def write(self, text: str = "") -> None:
        """The file as this desk has it, or ``text``; put in place at once."""
        models = {"stable": self.stable, "next": self.next, **self.more}
        entries = "".join(f"  {name}: {{model: {json.dumps(path)}, refresh: true}}\n" for name, path in models.items())
        split = f"serve:\n{self.rules}  - {{split: {json.dumps(self.split)}}}\n"
        draft = self.file.with_suffix(".new")
        draft.write_text(text or f"models:\n{entries}{split}{self.rest}# {time.time()}\n")
        draft.replace(self.file)

    def told(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.metrics.read_text())["models"]
        except (OSError, ValueError, KeyError):
            return {}
        return found

    def versions(self) -> set[str]:
        """Every version that was in force, by the log."""
        return set(_IN_FORCE.findall(self.log.read_text()))


def changes(desk: Desk) -> Iterator[tuple[str, bool, Callable[[], None]]]:
    """Twenty changes: what each is, whether it comes into force, and what makes it."""

    def put(**state: Any) -> Callable[[], None]:
        def change() -> None:
            for name, value in state.items():
                setattr(desk, name, value)
            desk.write()

        return change

    def retrain(seed: int) -> Callable[[], None]:
        def change() -> None:
            import torch
            import transformers as t

            torch.manual_seed(seed)
            made = t.BertForSequenceClassification(t.AutoConfig.from_pretrained(desk.next)).eval()
            made.save_pretrained(desk.next)

        return change

    def bad(text: str = "", **state: Any) -> Callable[[], None]:
        def change() -> None:
            before = {name: getattr(desk, name) for name in state}
            for name, value in state.items():
                setattr(desk, name, value)
            desk.write(text)
            for name, value in before.items():
                setattr(desk, name, value)

        return change

    shadow = "shadow:\n  - {model: next, share: 0.2}\n"
    german = "  - {when: \"attributes.language == 'de'\", use: german}\n"
    for turn in range(2):
        yield "a new revision", True, retrain(turn)
        yield "broken YAML", False, bad("models: [")
        yield "the split moved", True, put(split={"stable": 50, "next": 50})
        yield "weights that do not load", False, bad(more={"bad": str(desk.broken)})
        yield "a route added", True, put(more={"german": desk.other}, rules=german)
        yield "a check that fails", False, bad(rest="checks: {german: {file: wrong.ndjson}}\n")
        yield "shadow on", True, put(rest=shadow)
        yield "shadow off", True, put(rest="")
        yield "a model removed", True, put(more={}, rules="")
        yield "the split moved back", True, put(split={"stable": 90, "next": 10})


def rss_mib(pid: int) -> float:
    """What a process holds of memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def message(n: int) -> Message:
    return Message(
        json.dumps({"inputs": f"where is my order {n}"}).encode(), {"language": "de" if n % 10 == 0 else "en"}
    )


def flags(desk: Desk) -> list[str]:
    return [f"--models={desk.file}", "--models_refresh_s=1", f"--metrics_file={desk.metrics}", "--dtype=float32"]


def quantile(values: list[float], share: float) -> float | None:
    return round(sorted(values)[int(share * (len(values) - 1))], 1) if values else None


def under_load(rate: float, pause_s: float, patience_s: float, folder: Path, most: int = 20) -> dict[str, Any]:
    """The job at ``rate`` messages a second through the changes, one every ``pause_s`` at the soonest."""
    desk, resources = Desk(folder), fresh("rollout")
    desk.write()
    made: list[dict[str, Any]] = []
    spans: list[tuple[float, float]] = []
    with job(resources, *flags(desk), log=desk.log) as process:
        assert waited(lambda: bool(desk.told()), patience_s), desk.log.read_text()[-3000:]
        with Load(resources.input_topic, rate, message) as load, Collector(resources) as collected:
            # What waits at the start is no part of the latency without changes.
            assert waited(lambda: load.sent and len(load.sent) - len(collected.results) < rate / 2, patience_s)
            steady = time.time()
            time.sleep(pause_s)
            for name, in_force, change in list(changes(desk))[:most]:
                before = desk.told()
                since = time.time()
                change()

                def done(before: dict[str, Any] = before, in_force: bool = in_force) -> bool:
                    now = desk.told()
                    if in_force:
                        return bool(now) and now["models_version"] != before["models_version"]
                    return bool(now) and now["refused"] is not None and now["refused"] != before["refused"]

                happened = waited(done, patience_s)
                spans.append((since, time.time()))
                time.sleep(pause_s)
                now = desk.told()
                made.append(
                    {
                        "change": name,
                        "as_it_should": happened and process.poll() is None,
                        "seconds": round(spans[-1][1] - since, 1),
                        "rss_mib": round(rss_mib(process.pid)),
                        "models": now["memory"]["models"],
                    }
                )
                print(json.dumps(made[-1]), flush=True)
            load.stop()
            collected.wait_for(load.sent, patience_s)
            code = drain(process, patience_s)
            found = account(resources, load.sent, collected).as_dict()
    rows = audit_rows(resources)
    during: list[float] = []
    apart: list[float] = []
    for row in rows:
        at = row["publish_time"].timestamp()
        if at < steady:
            continue
        (during if any(since <= at <= until for since, until in spans) else apart).append(row["total_ms"])
    versions = Counter(row["models_version"] for row in rows)
    return {
        "changes": made,
        **found,
        "exit_code": code,
        "p50_ms": {"during a change": quantile(during, 0.5), "without": quantile(apart, 0.5)},
        "p99_ms": {"during a change": quantile(during, 0.99), "without": quantile(apart, 0.99)},
        "rows": {"during a change": len(during), "without": len(apart)},
        "versions_in_force": len(desk.versions()),
        "rows_of_no_version_in_force": sum(n for each, n in versions.items() if each not in desk.versions()),
        "variants": dict(Counter(row["variant"] for row in rows)),
        "shadowed": sum(row["shadow"] is not None for row in rows),
    }


def killed_amid_swaps(kills: int, rate: float, patience_s: float, seed: int, folder: Path) -> dict[str, Any]:
    """``kills`` lives that each end by SIGKILL at a random moment after the file changed, then one in peace."""
    desk, resources, moments = Desk(folder), fresh("rollout-kills"), random.Random(seed)
    desk.write()
    plans = [change for name, _, change in changes(desk) if "new revision" in name or "split" in name]
    with Load(resources.input_topic, rate, message) as load, Collector(resources) as collected:
        for turn in range(kills):
            desk.metrics.unlink(missing_ok=True)
            with job(resources, *flags(desk), log=desk.log) as process:
                assert waited(lambda: bool(desk.told()), patience_s), desk.log.read_text()[-3000:]
                plans[turn % len(plans)]()
                time.sleep(moments.uniform(0, 2.5))
                process.send_signal(signal.SIGKILL)
                process.wait()
        load.stop()
        with job(resources, *flags(desk), log=desk.log) as process:
            # What a life had in work comes back when its leases end.
            collected.wait_for(load.sent, patience_s + 2 * leases.LEASE_S)
            code = drain(process, patience_s)
        found = account(resources, load.sent, collected).as_dict()
    versions = {row["models_version"] for row in audit_rows(resources)}
    return {"kills": kills, **found, "exit_code": code, "rows_of_no_version_in_force": len(versions - desk.versions())}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second")
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--pause_s", type=float, default=3.0, help="least time between two changes")
    parser.add_argument("--patience_s", type=float, default=120.0, help="longest that anything is waited for")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory() as folder, Servers.start(Path(folder) / "tables.duckdb"):
        for name in ("load", "kills"):
            Path(folder, name).mkdir()
        report["under load"] = under_load(
            args.rate, args.pause_s, args.patience_s, Path(folder, "load"), most=args.changes
        )
        print(json.dumps(report["under load"], indent=2), flush=True)
        if args.kills:
            where = Path(folder, "kills")
            report["killed amid swaps"] = killed_amid_swaps(args.kills, args.rate, args.patience_s, args.seed, where)
            print(json.dumps(report["killed amid swaps"], indent=2), flush=True)
    kept = all(found["kept"] and not found["rows_of_no_version_in_force"] for found in report.values())
    kept = kept and all(each["as_it_should"] for each in report["under load"]["changes"])
    print("the promise was kept" if kept else "the promise was BROKEN")
    return 0 if kept else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
