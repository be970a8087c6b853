"""Records as they may be in flight, written by the release whose code is imported: ``python in_flight.py FILE``.

``tests/cases/in_flight/`` has what each release wrote; a release adds its own file, and changes no other.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam import coders

from transforms.records import Failure, Message, ModelInfo, Prediction, Request, Result

MODEL = ModelInfo("text-classification", "my-org/tickets", "c3a5", "cpu", "float32")


def message(data: bytes, **attributes: str) -> Message:
    """A message with everything set that each release knows."""
    return Message(data, attributes, "17", 1_700_000_000.25, 1_700_000_001.5, "customer-1")


def records() -> dict[str, Any]:
    """One record of each kind that waits in the shuffle or in the state of a step, by name."""
    body = (
        b'{"inputs": "Where is my parcel, and why was I not told that it was sent back?", "parameters": {"top_k": 2}}'
    )
    text = json.loads(body)
    chat = [{"role": "user", "content": "Is it \u201chere\u201d?\n" * 5}]
    asked = Request(text["inputs"], text["parameters"], message(body, source="shop"))
    answer = b'[{"label":"refund","score":0.98}]'
    published = {"message_id": "17", "task": MODEL.task}
    vector = np.array([0.5, -2.0], np.float32)
    return {
        "message": message(b"\x00\xff", **{"content-type": "image/png"}),
        "request": asked,
        "request of a picture": Request(b"\x89PNG" + bytes(100), {}, message(b"\x89PNG" + bytes(100))),
        "request of a chat": Request(chat, {}, message(json.dumps({"inputs": chat}).encode())),
        "request of one's own": Request([17, 1.5, None], {}),
        "failure": Failure(message(body), "predict", "InvalidInput", "'inputs' is a number", 1_700_000_002.0, MODEL),
        "result": Result(
            Prediction(asked, [{"label": "refund", "score": 0.98}], MODEL, 7, True, 3, 12.5, 1_700_000_002.0),
            answer, b'{"prediction":' + answer + b"}", published, "customer-1",
        ),
        "result of an array": Result(
            Prediction(asked, vector, MODEL), b"[0.5,-2.0]", b'{"prediction":[0.5,-2.0]}', published, ""
        ),
    }  # fmt: skip


def main(file: str) -> None:
    coder = coders.FastPrimitivesCoder()
    written = {name: base64.b64encode(coder.encode(record)).decode() for name, record in records().items()}
    try:
        from transforms.coder import RecordCoder
    except ImportError:  # 0.1.0 had no coder of its own
        pass
    else:
        own = {f"{name}, by its coder": RecordCoder().encode(record) for name, record in records().items()}
        written |= {name: base64.b64encode(data).decode() for name, data in own.items()}
    Path(file).write_text(json.dumps(written, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
