"""An embedded Pub/Sub: the pull side of ``google.pubsub.v1`` in one small process, for development and tests.

``python -m pipeline.emulators.pubsub`` runs it; the unmodified ``google-cloud-pubsub`` client finds it through
``PUBSUB_EMULATOR_HOST``. The same port speaks gRPC and REST (v1), so that ``curl`` and ``gcloud pubsub`` work too. It
keeps the service's rules: leases, redelivery, ordering keys, dead-letter policies, filters, schemas (Avro and Protocol
Buffers), quotas, error codes. It has no push or Cloud Storage subscriptions, no exactly-once delivery and no
snapshots: asked for one, it answers UNIMPLEMENTED. There is no access control (web pages are refused), and
unacknowledged messages never grow too old. All is in memory; with ``--state FILE`` what is not acknowledged outlives
the process, however that ends.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.emulators.process import Server, spawn


def start(port: int = 0, state: Path | str | None = None) -> Server:
    """Starts the server as a process of its own, on any free port if ``port`` is 0, and waits until it answers.

    With ``state``, a file, schemas, topics, subscriptions and unacknowledged messages outlive it. The result is a
    context manager; its ``address`` is what ``PUBSUB_EMULATOR_HOST`` should hold.
    """
    args = ["--port", str(port)]
    if state is not None:
        args += ["--state", str(state)]
    return spawn("pipeline.emulators.pubsub", *args)
