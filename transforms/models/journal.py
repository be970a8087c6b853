"""Who was in a forward when its process died: the way out for a message that kills whatever answers it.

Each process writes the messages that it has in work to a file of its own in a folder on the worker's disk, which
outlives the process. A lock on the file tells the living from the dead. What a dead process had in work is run alone
from then on, and a message that has killed ``max_deaths`` processes is not run again.

The first death blames everything that was in a forward; any later one only counts for a message that was alone.
A file is written twice a micro-batch, a few microseconds each; nothing is synchronised to the disk, since a write
outlives the process as it is, and a machine that dies takes its messages' acknowledgements with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from transforms.records import Message

_LOG = logging.getLogger(__name__)

#: Bytes at the head of a file that say which of its messages are in the forward now.
_HEAD = 8_192
#: Messages whose deaths are remembered, the latest ones.
_REMEMBERED = 10_000
#: Seconds between two looks for files of dead processes.
_LOOK_S = 1.0


def folder() -> Path:
    """Where this machine's journals are: one folder for all processes of a user, or what ``BEAM_HF_JOURNAL`` names."""
    named = os.environ.get("BEAM_HF_JOURNAL")
    if named:
        return Path(named)
    return Path(tempfile.gettempdir()) / f"beam-hf-inference-{os.getuid()}"


def identity(message: Message) -> str:
    """``message`` by what a second delivery of it has too; short, and nothing that it holds."""
    if message.message_id:
        return f"{message.message_id}@{message.publish_time:.6f}"
    return hashlib.sha256(message.data).hexdigest()[:32]


class Journal:
    """This process's part of the journal, and what the others left. Safe to use from several threads."""

    def __init__(self, where: Path | None = None, max_deaths: int = 2) -> None:
        self._where = where or folder()
        self.max_deaths = max_deaths
        self._lock = threading.Lock()
        self._free: list[Entry] = []
        self._deaths: dict[str, int] = {}
        self._read_at = -1
        self._looked_at = float("-inf")
        self._said: set[str] = set()
        self._usable = self._prepare()

    def _prepare(self) -> bool:
        try:
            self._where.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = self._where.stat()
            if about.st_uid == os.getuid() and not about.st_mode & 0o022:
                return True
            words = "it can be written by others"
        except OSError as error:
            words = str(error)
        _LOG.warning("no journal in %s (%s): a message that kills its process is delivered again", self._where, words)
        return False

    def deaths(self) -> dict[str, int]:
        """How many processes each message was blamed for, by :func:`identity`; empty on a worker without deaths."""
        if not self._usable:
            return {}
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at > _LOOK_S:
                self._looked_at = now
                with self._surviving():
                    self._bury()
                    self._read()
            return self._deaths

    def cleared(self, who: str) -> None:
        """``who`` has been answered alone, and is not what killed."""
        with self._lock, self._surviving(), self._exclusive():
            self._read()
            if self._deaths.pop(who, None) is not None:
                self._write()

    @contextlib.contextmanager
    def in_work(self, who: Sequence[str]) -> Iterator[Entry]:
        """The messages of one batch, in work while the block runs."""
        with self._lock:
            entry = self._free.pop() if self._free else self._new()
        entry.begin(who)
        try:
            yield entry
        finally:
            entry.end()
            with self._lock:
                self._free.append(entry)

    def _new(self) -> Entry:
        if self._usable:
            with self._surviving():
                return Entry.create(self._where)
        return Entry(None)

    def _bury(self) -> None:
        """Counts the deaths of the processes whose files nobody holds any more."""
        # In the order of their deaths: a message is blamed for the second one only if it was alone in that.
        for path in sorted(self._where.glob("*.work"), key=_touched):
            with self._surviving():  # one that cannot be read hides no other
                self._bury_one(path)

    def _bury_one(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # it lives
            blamed = _blamed(file.read())
            with self._exclusive():
                # It goes first: where the disk takes no count, the same death would be one more at every look. If it
                # is gone, another process was faster.
                path.unlink()
                self._read()
                for who in blamed:
                    if len(blamed) == 1 or who not in self._deaths:
                        self._deaths[who] = self._deaths.pop(who, 0) + 1
                if blamed:
                    _LOG.error("a process died with %d messages in a forward; each is now run alone", len(blamed))
                    self._write()

    def _read(self) -> None:
        path = self._where / "deaths.json"
        with contextlib.suppress(FileNotFoundError):
            changed = path.stat().st_mtime_ns
            if changed != self._read_at:
                self._deaths, self._read_at = _counts(path.read_bytes()), changed

    def _write(self) -> None:
        kept = dict(list(self._deaths.items())[-_REMEMBERED:])
        draft = self._where / f".deaths.{os.getpid()}"
        draft.write_text(json.dumps(kept), "utf-8")
        draft.replace(self._where / "deaths.json")
        self._deaths, self._read_at = kept, -1

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (self._where / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """A disk that is full or gone, or a file of whatever content, must not cost a message anything."""
        try:
            yield
        except Exception as error:
            if str(error) not in self._said:  # it is looked at every second
                self._said.add(str(error))
                _LOG.warning("the journal in %s: %s", self._where, error)


class Entry:
    """The file of one batch at a time: at its head the indices in a forward now, behind it all identities."""

    def __init__(self, file: int | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._running: list[Sequence[int]] = []

    @classmethod
    def create(cls, where: Path) -> Entry:
        file, path = tempfile.mkstemp(".work", f"{os.getpid()}-", where)
        fcntl.flock(file, fcntl.LOCK_EX)
        # Between the two another process may have taken the file for a dead one's and removed it.
        return cls(file) if Path(path).exists() else cls.create(where)

    def begin(self, who: Sequence[str]) -> None:
        """All of ``who`` are being prepared."""
        self._put(json.dumps(list(who)).encode(), _HEAD)
        self._say(None)

    def prepared(self) -> None:
        """None of them is in anything now."""
        self._say(())

    @contextlib.contextmanager
    def forward(self, indices: Sequence[int]) -> Iterator[None]:
        """Those at ``indices`` are in a forward while the block runs; others may be in theirs."""
        with self._lock:
            self._running.append(indices)
            self._say([index for each in self._running for index in each])
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(indices)
                self._say([index for each in self._running for index in each])

    def _say(self, indices: Sequence[int] | None) -> None:
        """Which of the batch may kill the process now; all of them for None."""
        head = b"null" if indices is None else json.dumps(list(indices)).encode()
        self._put(head.ljust(_HEAD) if len(head) <= _HEAD else b"null".ljust(_HEAD), 0)

    def end(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)

    def _put(self, data: bytes, at: int) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: this batch goes without a journal
                os.pwrite(self._file, data, at)


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process was faster
        return 0.0


def _counts(data: bytes) -> dict[str, int]:
    """Deaths by identity; none where the file is torn."""
    try:
        return {str(who): int(count) for who, count in json.loads(data).items()}
    except Exception:  # noqa: BLE001 (the file may be of any content, and so the error of any type)
        return {}


def _blamed(data: bytes) -> list[str]:
    """The identities that a dead process's file names."""
    try:
        who = json.loads(data[_HEAD:])
        indices = json.loads(data[:_HEAD].strip(b"\0 ") or b"null")
        return [str(who[index]) for index in (range(len(who)) if indices is None else indices)]
    except Exception:  # noqa: BLE001 (as above)
        return []
