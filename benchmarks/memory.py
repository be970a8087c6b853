"""``python -m benchmarks.memory``: what the job holds while 100,000 messages go through it, in each of its forms.

A small encoder of real arithmetic (two layers of 128) stands for the model, so that a form takes a minute or two. Each
tenth of the stream has other texts of mixed lengths; resident memory is read once its results and rows are there.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence

from benchmarks import slow
from benchmarks.__main__ import embedded_servers
from benchmarks.measure import Run
from benchmarks.workloads import model, texts

#: The flags of each form; ``slow`` services have answers made ahead of what waits for them.
FORMS: Mapping[str, Sequence[str]] = {
    "torch": ["--engine=torch"],
    "openvino": ["--engine=openvino"],
    "windows of a minute": ["--engine=torch", "--window=fixed:60"],
    "repeats dropped": ["--engine=torch", "--id_attribute=id"],
    "slow services": ["--engine=torch"],
    "null model": [],
}


def form(name: str, messages: int) -> list[float]:
    """MiB after each tenth of ``messages``."""
    tenth = messages // 10
    folder = "null" if name == "null model" else model("2x128")
    with Run.start("ours", folder, FORMS[name]) as run:
        run.warm_up(texts("mixed", 20))
        if name == "slow services":
            run.process.send_signal(slow.ON)
        found = []
        for turn in range(10):
            ids = [{"id": f"{turn}-{number}"} for number in range(tenth)]
            run.turn(texts("mixed", tenth, seed=turn), timeout=900, attributes=ids)
            found.append(run.resident_mib())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("forms", nargs="*", default=list(FORMS))
    parser.add_argument("--messages", type=int, default=100_000)
    args = parser.parse_args()
    os.environ.update(NO_GCE_CHECK="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    for name in args.forms:
        with embedded_servers():
            found = form(name, args.messages)
        print(f"| {name} | {' | '.join(f'{each:.0f}' for each in found)} |", flush=True)


if __name__ == "__main__":
    main()
