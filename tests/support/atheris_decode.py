"""Coverage-guided fuzzing of decode: ``python tests/support/atheris_decode.py -atheris_runs=100000``.

Ends with a crash file and an exit code other than 0 where decode raises anything but ``InvalidBody``.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["transforms.decode", "jmespath"]):
    import jmespath

    from transforms.decode import InvalidBody, decode
from transforms.records import Message  # noqa: E402

_TYPES = ("", "application/json", "text/plain", "image/png")
_PATHS = (
    None,
    None,
    *map(jmespath.compile, ("text", "a.b[0]", "length(@)", "sort_by(@, &n)", "*.inputs | [0]", "max(@)")),
)


def one(data: bytes) -> None:
    """Decodes ``data``; its first two bytes pick the content type and the path."""
    if len(data) < 2:
        return
    message = Message(data[2:], {"content-type": _TYPES[data[0] % len(_TYPES)]})
    try:
        request = decode(message, _PATHS[data[1] % len(_PATHS)])
    except InvalidBody as error:
        assert str(error) and "\n" not in str(error), error
    else:
        # Whatever is handed on may have to travel between workers.
        pickle.dumps(request)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
