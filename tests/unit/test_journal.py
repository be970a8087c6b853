"""The journal: who is blamed for a process's death, and what becomes of them."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tiny_models as tiny
from streams import ROOT

from transforms.models.answers import Answers
from transforms.models.journal import Journal, identity
from transforms.models.supervise import EXIT_CODE, Supervisor, end_process
from transforms.records import Message, ModelInfo, Prediction, Request


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def die_with(where: Path, who: list[str], *forwards: list[int], signum: int = signal.SIGKILL) -> None:
    """A process that has ``who`` in work, those of ``forwards`` in one each (or all in preparation), and is ended."""
    code = f"""
import contextlib, os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from transforms.models.journal import Journal
with Journal(Path({str(where)!r})).in_work({who!r}) as entry, contextlib.ExitStack() as running:
    for each in {list(forwards)!r}:
        running.enter_context(entry.forward(each))
    os.kill(os.getpid(), {int(signum)})
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signum


def test_the_dead_are_told_from_the_living(where: Path) -> None:
    """Only what a dead process had in a forward is blamed; what a living one has in work is not."""
    journal = Journal(where)
    with Journal(where).in_work(["alive"]):
        die_with(where, ["a", "b", "c", "d"], [1, 3])
        assert journal.deaths() == {"b": 1, "d": 1}
        assert Journal(where).deaths() == {"b": 1, "d": 1}, "another process knows it too"


def test_while_they_are_prepared_all_are_blamed(where: Path) -> None:
    """A picture may kill its decoder: before the first forward, everything in work may have done it."""
    die_with(where, ["a", "b"], signum=signal.SIGSEGV)
    assert Journal(where).deaths() == {"a": 1, "b": 1}


def test_between_forwards_nobody_is_blamed(where: Path) -> None:
    """A process that is killed from outside while it waits has no culprit."""
    die_with(where, ["a", "b"], [])
    assert Journal(where).deaths() == {}


def test_whoever_was_in_a_forward_is_blamed(where: Path) -> None:
    """Forwards that run side by side die together, and none of them is known to have done it."""
    die_with(where, ["a", "b", "c"], [0], [2])
    assert Journal(where).deaths() == {"a": 1, "c": 1}


def test_only_who_was_alone_is_blamed_twice(where: Path) -> None:
    """Two deaths among others are still one; a death alone counts, and an answer clears."""
    for forward in ([0, 1], [0, 1], [0]):
        die_with(where, ["a", "b"], forward)
    journal = Journal(where)
    assert journal.deaths() == {"a": 2, "b": 1}
    journal.cleared("b")
    assert Journal(where).deaths() == {"a": 2}


_TORN = {
    "empty": b"",
    "no JSON": b"x" * 20_000,
    "an index too many": b"[7]".ljust(8_192) + b'["a"]',
    "one of an older form": b"null".ljust(8_192) + b'{"a": 1}',
    "nested without end": b"null".ljust(8_192) + b"[" * 100_000,
}


@pytest.mark.parametrize("counts", [b"no json", b'{"a": 1e999}', b'{"a": ' * 100_000, b"[1]"])
def test_what_cannot_be_read_blames_nobody(where: Path, counts: bytes) -> None:
    """Files of whatever content are removed, one that cannot be read hides no other, and the journal goes on."""
    Journal(where)
    for name, data in _TORN.items():
        (where / f"{name}.work").write_bytes(data)
    (where / "a folder.work").mkdir()
    (where / "deaths.json").write_bytes(counts)
    journal = Journal(where)
    assert journal.deaths() == {} and [path.name for path in where.glob("*.work")] == ["a folder.work"]
    left_behind(where, "b", forward=[0])
    assert Journal(where).deaths() == {"b": 1}


def left_behind(where: Path, who: str, forward: list[int]) -> None:
    """The file of a process that is dead."""
    (where / f"{who}.work").write_bytes(json.dumps(forward).encode().ljust(8_192) + json.dumps([who]).encode())


def test_a_death_is_counted_once_on_a_full_disk(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not be written down; it is no second death at the next look."""
    monkeypatch.setattr("transforms.models.journal._LOOK_S", -1.0)
    journal = Journal(where)
    left_behind(where, "a", forward=[0])
    monkeypatch.setattr(Path, "write_text", full)
    for _ in range(3):
        assert journal.deaths() == {"a": 1}


def test_one_file_for_two_processes(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both look at it at once, the slower one finds it gone, and goes on."""
    journal = Journal(where)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [where / "gone.work"])
    assert journal.deaths() == {}


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_process_ends_though_its_log_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must not keep a process with a lost device alive."""
    handler = logging.NullHandler()
    monkeypatch.setattr(handler, "flush", full)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with contextlib.suppress(OSError):
        end_process("the device is lost")
    assert codes == [EXIT_CODE]


def test_a_folder_of_somebody_else_is_not_used(where: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where others may write, they could have any message dead-lettered: no journal then, and a warning."""
    where.mkdir()
    where.chmod(0o777)
    journal = Journal(where)
    with journal.in_work(["a"]):
        assert journal.deaths() == {} and not list(where.iterdir())
    assert "can be written by others" in caplog.text


def test_nothing_that_a_message_holds_is_written(where: Path) -> None:
    """The files hold ids alone, or a hash where there is none, and only their owner reads them."""
    messages = [Message(b"secret", {"k": "secret"}, "17", 5.0), Message(b"secret")]
    journal = Journal(where)
    with journal.in_work([identity(message) for message in messages]):
        (path,) = where.glob("*.work")
        assert b"secret" not in path.read_bytes() and b"17@5.0" in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(where.stat().st_mode) == 0o700


def test_what_kills_one_model_is_not_blamed_by_another(where: Path) -> None:
    """Two jobs on one machine may read the same topic, each with a model of its own."""
    request = Request("x", {}, Message(b"x", {}, "17", 5.0))
    die_with(where, ["one/17@5.000000"], [0])
    die_with(where, ["one/17@5.000000"], [0])
    info = ModelInfo("t", "m", "r", "cpu", "float32")
    prediction = Prediction(request, 1, info)
    for scope, ended in (("one/", "Failure"), ("other/", "Prediction")):
        supervisor = Supervisor(Journal(where), None, scope)
        answers = supervisor.answer(lambda requests: Answers([prediction]), [request], info)
        assert [type(one).__name__ for one in answers.outcomes] == [ended]


def test_memory_of_deaths_is_bounded(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest are kept."""
    monkeypatch.setattr("transforms.models.journal._REMEMBERED", 3)
    die_with(where, list("abcde"))
    journal = Journal(where)
    journal.deaths()
    assert len(json.loads((where / "deaths.json").read_bytes())) == 3


_KILLERS = {
    "segfault": "ctypes.string_at(0)",
    "out of memory": "os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "os.abort()",
    "hang": "time.sleep(600)",
    # Native code that keeps Python's lock, so that no thread of the process gets to end it.
    "hang that stops all threads": "re.match('(a+)+$', 'a' * 200 + 'b')",
}

_RUN = """
import ctypes, json, os, re, signal, sys, time
sys.path[:0] = [{root!r}, {support!r}]
import tiny_models as tiny
from transforms.models import supervise
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Failure, Message, Request
supervise._GRACE_S = 15.0
supervise.PREPARE_S = {prepare_s}
handler = HuggingFaceModelHandler(
    {model!r}, "text-classification", device="cpu", dtype="float32", max_forward_s={limit_s}
)
model = handler.load_model()
work = model.task.{step}
def killing(batch):
    if any("killer" in getattr(one, "ask", one).inputs for one in batch):
        {killer}
    return work(batch)
model.task.{step} = killing
def request(n):
    return Request("killer" if n == 617 else f"order number {{n}}", {{}}, Message(b"", {{}}, str(n), 1.0))
def ended(one):
    failed = isinstance(one, Failure)
    return (one.message.message_id, one.error_type) if failed else (one.request.message.message_id, "ok")
print(json.dumps([ended(one) for one in handler.run_inference([request(n) for n in range(1000)], model)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("killer", list(_KILLERS))
def test_one_killer_among_a_thousand(killer: str, tmp_path: Path) -> None:
    """Started again as a runner does, the process dies twice and then gives 999 results and one KilledWorker."""
    assert_killer_is_found(tmp_path, killer=_KILLERS[killer], step="forward", prepare_s=600.0)


@pytest.mark.slow
def test_one_killer_before_the_forward(tmp_path: Path) -> None:
    """Work on a message that hangs before its forward is ended too, and the message found."""
    assert_killer_is_found(tmp_path, killer="time.sleep(600)", step="prepare", prepare_s=20.0)


def assert_killer_is_found(tmp_path: Path, **how: object) -> None:
    # A healthy forward on a busy machine must not be taken for one that hangs: only where one does is there a limit.
    limit_s = 20.0 if any(word in str(how["killer"]) for word in ("sleep", "match")) else None
    code = _RUN.format(
        limit_s=limit_s, root=str(ROOT), support=str(ROOT / "tests" / "support"), model=tiny.sentiment(), **how
    )
    environment = {**os.environ, "BEAM_HF_JOURNAL": str(tmp_path / "journal")}
    deaths = 0
    while True:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=900
        )
        if done.returncode == 0:
            break
        deaths += 1
        assert deaths <= 2, done.stderr[-2_000:]
    outcomes = dict(json.loads(done.stdout.splitlines()[-1]))
    assert deaths == 2 and len(outcomes) == 1000
    assert Counter(outcomes.values()) == {"ok": 999, "KilledWorker": 1} and outcomes["617"] == "KilledWorker"
