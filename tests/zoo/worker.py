"""Judges the pairs of task and architecture that it reads, one a line, and prints a verdict for each as JSON.

Its argument is how many seconds of CPU a pair may take: SIGPROF ends the process then, whatever native code it is in.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path


def main() -> None:
    """Reads ``task architecture`` lines from stdin until it ends."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    warnings.simplefilter("ignore")
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "support")]
    import torch

    from zoo.build import NotBuilt, build
    from zoo.judge import Verdict, judge

    torch.set_num_threads(1)
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no verdict
    for line in sys.stdin:
        task, architecture = line.split()
        signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))
        with tempfile.TemporaryDirectory(prefix="zoo-") as place:
            try:
                build(Path(place), task, architecture)
                verdict = judge(Path(place), task)
            except NotBuilt as error:
                verdict = Verdict("not built", str(error))
            except Exception as error:
                traceback.print_exc()
                verdict = Verdict("wrong", f"the zoo itself raised {type(error).__name__}: {str(error)[:150]}")
        print(json.dumps([task, architecture, verdict.verdict, verdict.why]), file=out, flush=True)


if __name__ == "__main__":
    main()
