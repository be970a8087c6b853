"""The table: every architecture that a task of ours maps, and what becomes of it. `make zoo` runs this.

Pairs of task and architecture go to worker processes; one that hangs is ended and said so. Each verdict goes to a
file as it comes, and what stands there is not judged again, so that a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue

ROOT = Path(__file__).parents[2]

#: Longest one pair may take, in seconds of CPU, so that a busy machine changes no verdict; one that waits takes none.
PATIENCE_S, HANGS_S = 60, 3600

VERDICTS = ("equal", "grouped", "alone", "refused", "not built", "not finished", "wrong")

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


def judge_all(todo: list[Pair], patience_s: float = PATIENCE_S) -> Iterator[Row]:
    """A verdict for each of ``todo``, from a process that is started anew when one of them hangs or kills it."""
    command = [sys.executable, "-m", "tests.zoo.worker", str(patience_s)]
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
                line = lines.get(timeout=HANGS_S)
            except Empty:
                yield (*todo.pop(0), "not finished", f"it hangs: nothing within {HANGS_S:,} s")
                break
            if not line:
                late = worker.wait() == -signal.SIGPROF
                why = f"within {patience_s:g} s of CPU" if late else f"the process died with {worker.returncode}"
                yield (*todo.pop(0), "not finished" if late else "wrong", why)
                break
            yield tuple(json.loads(line))
            todo.pop(0)
        worker.kill()
        worker.wait()


def _read(stream: object, lines: Queue[str]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        lines.put(line)
    lines.put("")


def stored(file: Path) -> dict[Pair, Row]:
    """The verdicts that stand in ``file``, the last of each pair."""
    if not file.exists():
        return {}
    rows = [tuple(line.split("\t")) for line in file.read_text("utf-8").splitlines()]
    return {(row[0], row[1]): row for row in rows if len(row) == 4}  # type: ignore[misc]


def counted(rows: Iterable[Row]) -> list[str]:
    """A table in Markdown: how many architectures of each task have which verdict."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for task, _, verdict, _ in rows:
        counts[task][verdict] += 1
    lines = [f"| task | {' | '.join(VERDICTS)} |", f"|---|{'---|' * len(VERDICTS)}"]
    return lines + [f"| {task} | {' | '.join(str(own[each]) for each in VERDICTS)} |" for task, own in counts.items()]


def main() -> int:
    """Prints a line for each pair, then the counts; returns 1 where any answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only architectures with one of these in their name")
    parser.add_argument("--task", action="append", default=[], help="only this task; may be given again")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--patience_s", type=float, default=PATIENCE_S, help="longest one pair may take, of CPU")
    parser.add_argument("--table", type=Path, help="file of verdicts; a pair that it has is not judged again")
    given = parser.parse_args()
    todo = pairs(given.task, given.names)
    known = stored(given.table) if given.table else {}
    rows = [known[pair] for pair in todo if pair in known]
    left = [pair for pair in todo if pair not in known]
    printing = threading.Lock()

    def work(share: list[Pair]) -> None:
        begun = time.monotonic()
        for row in judge_all(share, given.patience_s):
            row = (*row[:3], " ".join(row[3].split()))
            took, begun = time.monotonic() - begun, time.monotonic()
            with printing:
                rows.append(row)
                print("{:26} {:48} {:12} {:5.1f} s  {}".format(*row[:3], took, row[3]), flush=True)
                if given.table:
                    with given.table.open("a", encoding="utf-8") as file:
                        file.write("\t".join(row) + "\n")

    shares = [left[i :: given.processes] for i in range(given.processes)]
    with ThreadPoolExecutor(given.processes) as pool:
        list(pool.map(work, [share for share in shares if share]))
    print("", *counted(sorted(rows)), sep="\n")
    wrong = sum(verdict == "wrong" for _, _, verdict, _ in rows)
    print(f"\n{len(rows)} pairs of task and architecture, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "support")]
    sys.exit(main())
