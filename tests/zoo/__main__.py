"""The table: every architecture that a task of ours maps, and what becomes of it. `make zoo` runs this.

Pairs of task and architecture go to worker processes, a family at a time; one that hangs is ended and said so.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue

ROOT = Path(__file__).parents[2]

#: Longest one pair may take, in seconds; the first of a process also imports torch and transformers.
PATIENCE_S = 90

Pair = tuple[str, str]
Row = tuple[str, str, str, str]


def pairs(tasks: list[str], names: list[str]) -> list[Pair]:
    """Every pair of a task (all for none given) and an architecture that it maps, whose name has one of ``names``."""
    from transformers.models.auto import modeling_auto

    from transforms.models.tasks.adapters import ADAPTERS
    from zoo.judge import INPUTS

    found: list[Pair] = []
    for task in tasks or list(ADAPTERS):
        architectures = ADAPTERS[task].architectures()
        if not architectures:  # any body that reads text embeds
            every = modeling_auto.MODEL_MAPPING_NAMES.values()
            architectures = {name for value in every for name in ([value] if isinstance(value, str) else value)}
            architectures = {name for name in architectures if _reads(name, task)}
        found += [(task, name) for name in sorted(architectures)]
    return [pair for pair in found if pair[0] in INPUTS and (not names or any(name in pair[1] for name in names))]


def _reads(name: str, task: str) -> bool:
    import transformers

    try:
        names = inspect.signature(getattr(transformers, name).forward).parameters
    except (AttributeError, ImportError):  # mapped, and not there: said so in the table
        return True
    if task == "image-feature-extraction":
        return "pixel_values" in names and not {"input_ids", "decoder_input_ids"} & names.keys()
    return "input_ids" in names and not {"pixel_values", "input_features", "input_values"} & names.keys()


def judge_all(todo: list[Pair]) -> Iterator[Row]:
    """A verdict for each of ``todo``, from a process that is started anew when one of them hangs or kills it."""
    command = [sys.executable, "-m", "tests.zoo.worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    while todo:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=environment,
        )  # fmt: skip
        lines: Queue[str] = Queue()
        assert worker.stdin is not None and worker.stdout is not None
        reader = threading.Thread(target=_read, args=(worker.stdout, lines), daemon=True)
        reader.start()
        try:
            worker.stdin.write("".join(f"{task} {name}\n" for task, name in todo))
            worker.stdin.close()
        except BrokenPipeError:
            pass
        while todo:
            try:
                line = lines.get(timeout=PATIENCE_S)
            except Empty:
                line = ""
            if not line:
                why = "the process died" if worker.poll() is not None else f"took longer than {PATIENCE_S} s"
                yield (*todo.pop(0), "not built", why)
                break
            yield tuple(json.loads(line))
            todo.pop(0)
        worker.kill()
        worker.wait()


def _read(stream: object, lines: Queue[str]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        lines.put(line)
    lines.put("")


def main() -> int:
    """Prints a line for each pair, then the counts; returns 1 where any answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only architectures with one of these in their name")
    parser.add_argument("--task", action="append", default=[], help="only this task; may be given again")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", help="file to write all rows to")
    given = parser.parse_args()
    todo = pairs(given.task, given.names)
    shares = [todo[i :: given.processes] for i in range(given.processes)]
    rows: list[Row] = []
    printing = threading.Lock()

    def work(share: list[Pair]) -> None:
        for row in judge_all(share):
            with printing:
                rows.append(row)
                task, name, verdict, why = row
                print(f"{task:26} {name:48} {verdict:10} {why}", flush=True)

    with ThreadPoolExecutor(given.processes) as pool:
        list(pool.map(work, [share for share in shares if share]))
    if given.json:
        Path(given.json).write_text(json.dumps(sorted(rows), indent=0))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for task, _, verdict, _ in rows:
        counts[task][verdict] += 1
    verdicts = ("equal", "grouped", "alone", "refused", "not built", "wrong")
    print(f"\n| task | {' | '.join(verdicts)} |\n|---|{'---|' * len(verdicts)}")
    for task, own in counts.items():
        print(f"| {task} | {' | '.join(str(own[verdict]) for verdict in verdicts)} |")
    wrong = sum(own["wrong"] for own in counts.values())
    print(f"\n{len(rows)} pairs of task and architecture, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "support")]
    sys.exit(main())
