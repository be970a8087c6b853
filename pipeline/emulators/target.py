"""Which emulators the commands beside the servers talk to, and the flags that they share."""

from __future__ import annotations

import os
import socket

from pipeline import clients
from pipeline.command import Failed
from pipeline.emulators.setup import DEFAULTS
from pipeline.flags import Flag
from pipeline.matchers import NAME, PROJECT

#: Where the servers listen unless they are told otherwise.
_USUAL = {"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085", "BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:9050"}
_TIMEOUT_S = 2.0

NAMES = "Names left out"
NAMED = (
    Flag("project", "project of the names left out", PROJECT, DEFAULTS["project"], group=NAMES),
    Flag("name", "beginning of the names left out", NAME, DEFAULTS["name"], group=NAMES),
)


def find(*variables: str) -> None:
    """Points this process to the emulators of ``variables``: those of the environment, or where they usually listen.

    Raises:
        Failed: nothing listens there.
    """
    for variable in variables:
        address = clients.emulator(variable) or _USUAL[variable]
        host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S).close()
        except (OSError, ValueError, OverflowError):
            if variable in os.environ:
                raise Failed(
                    f"{variable}={address!r}: nothing listens there; start `beam-hf-inference emulators`, or export "
                    "the lines that it has printed"
                ) from None
            raise Failed(
                f"no emulator at {address}, where one usually listens; start `beam-hf-inference emulators`, and export "
                f"the lines that it prints where it has another port"
            ) from None
        os.environ[variable] = address
