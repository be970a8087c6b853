"""``python -m pipeline.local``: embedded Pub/Sub and BigQuery with everything a job needs, until interrupted."""

from __future__ import annotations

import argparse
import base64
import os
import signal
import threading
from pathlib import Path

from pipeline.local import setup
from pipeline.local.process import spawn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.local", description=__doc__)
    parser.add_argument("--project", default="my-project", help="project id of everything made (default my-project)")
    parser.add_argument("--name", default="inference", help="beginning of every name (default inference)")
    parser.add_argument("--pubsub_port", type=int, default=8085, help="0 takes any free one (default 8085)")
    parser.add_argument("--bigquery_port", type=int, default=9050, help="0 takes any free one (default 9050)")
    parser.add_argument(
        "--data", default=".cache/bigquery.duckdb", help="file of the tables (default .cache/bigquery.duckdb)"
    )
    args = parser.parse_args()
    Path(args.data).parent.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with (
        spawn("pipeline.local.pubsub", "--port", str(args.pubsub_port)) as pubsub,
        spawn("pipeline.local.bigquery", "--port", str(args.bigquery_port), "--data", args.data) as bigquery,
    ):
        os.environ.update({server.name: server.address for server in (pubsub, bigquery)})
        resources = setup.Resources.named(args.project, args.name)
        setup.create(resources)
        for server in (pubsub, bigquery):
            print(f"export {server.name}={server.address}")
        print("\n# In another terminal, with those two lines:")
        print("python -m pipeline.main --runner=DirectRunner --model=MODEL \\")
        print(" \\\n".join(f"  {flag}" for flag in resources.flags()))
        body = base64.b64encode(b'{"inputs": "Where is my parcel?"}').decode()
        print("\n# A message from a shell (gcloud pubsub works too: see docs/emulators.md):")
        print(f"curl http://{pubsub.address}/v1/{resources.input_topic}:publish", end=" ")
        print(f'--json \'{{"messages": [{{"data": "{body}"}}]}}\'')
        print(f"\n# Publish to {resources.input_topic}; results arrive at {resources.output_subscription},")
        print(f"# dead letters at {resources.dead_letter_subscription}. Ctrl-C stops.", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
