"""One SDK process of a worker: ``python shared_models.py FILE OUT`` asks the shared models until OUT.stop is there.

The models are shared as RunInference shares them: whichever process comes first holds them for all.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from apache_beam.utils import multi_process_shared

from transforms.models.fleet.handler import ModelsHandler
from transforms.models.fleet.options import Options
from transforms.records import Message, Request

WEIGHTS = (("device", "cpu"), ("dtype", "float32"), ("engine", "torch"))


def main(file: str, out: str) -> None:
    handler = ModelsHandler(Options(file, refresh_s=0.5, weights=WEIGHTS))
    assert handler.share_model_across_processes()
    models = multi_process_shared.MultiProcessShared(handler.load_model, tag=file, always_proxy=True).acquire()
    turn = 0
    with Path(out).open("a") as told:
        while not Path(f"{out}.stop").exists():
            requests = [Request("my order", {}, Message(b"{}", {}, f"{out}-{turn}-{n}")) for n in range(8)]
            try:
                answers = models.answer(requests)
            except (EOFError, OSError):
                if Path(f"{out}.stop").exists():
                    return  # the process that held the models has ended before
                raise
            infos = [outcome.model for outcome in answers.outcomes]
            line = {
                "versions": sorted({info.models_version for info in infos if info and info.models_version}),
                "variants": sorted({info.variant for info in infos if info and info.variant}),
                "told": dict(answers.told),
            }
            told.write(json.dumps(line) + "\n")
            told.flush()
            turn += 1
            time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
