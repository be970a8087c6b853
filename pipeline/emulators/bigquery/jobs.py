"""Query jobs: run when they are inserted, and remembered so that their results can be fetched page by page."""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

import orjson

from pipeline.emulators.bigquery.destination import destination_of, write
from pipeline.emulators.bigquery.errors import BigQueryError, not_found
from pipeline.emulators.bigquery.loads import read_load
from pipeline.emulators.bigquery.query import LOCATION, Answer, Loaded, Statement, execute
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.bigquery.unsupported import check_job, not_here

#: Jobs remembered, and the size of all their results; beyond, the oldest are forgotten. The latest is always kept.
JOBS = 500
RESULT_BYTES = 256 * 1024 * 1024


#: Of a job's configuration: texts in the API, which takes numbers for them too. ``value`` is a query parameter's.
_TEXTS = ("value", "maximumBytesBilled")


@dataclass(frozen=True, slots=True)
class Job:
    """A finished query job: its answer or its error."""

    project: str
    id: str
    configuration: Mapping[str, Any]
    created: float
    ended: float
    answer: Answer | None = None
    error: BigQueryError | None = None
    location: str = LOCATION

    @property
    def reference(self) -> dict[str, str]:
        """The ``JobReference``."""
        return {"projectId": self.project, "jobId": self.id, "location": self.location}

    @property
    def result_bytes(self) -> int:
        """Memory that its rows hold."""
        return self.answer.rows.nbytes if self.answer and self.answer.rows is not None else 0

    def resource(self) -> dict[str, Any]:
        """The ``Job`` resource."""
        created, ended = (str(int(moment * 1000)) for moment in (self.created, self.ended))
        statistics: dict[str, Any] = {"creationTime": created, "startTime": created, "endTime": ended}
        status: dict[str, Any] = {"state": "DONE"}
        if self.error:
            status |= {"errorResult": self.error.proto(), "errors": [self.error.proto()]}
        if self.answer and self.answer.loaded:
            statistics["load"] = self.answer.loaded.resource()
        elif self.answer:
            statistics |= {"totalBytesProcessed": "0", "query": _statistics(self.answer)}
        return {
            "kind": "bigquery#job",
            "id": f"{self.project}:{self.location}.{self.id}",
            "jobReference": self.reference,
            "configuration": self.configuration,
            "statistics": statistics,
            "status": status,
            "user_email": "anonymous@localhost",
        }


def dml_statistics(answer: Answer) -> dict[str, str]:
    """How many rows were inserted, updated and deleted: the ``DmlStats``."""
    changed = answer.changed or {}
    named = {"insertedRowCount": "INSERT", "updatedRowCount": "UPDATE", "deletedRowCount": "DELETE"}
    return {name: str(changed[action]) for name, action in named.items() if changed.get(action)}


def _statistics(answer: Answer) -> dict[str, Any]:
    statistics: dict[str, Any] = {
        "statementType": answer.statement,
        "totalBytesProcessed": "0",
        "totalBytesBilled": "0",
        "cacheHit": False,
    }
    if answer.fields:
        statistics["schema"] = {"fields": [f.resource() for f in answer.fields]}
    if answer.affected is not None:
        statistics["numDmlAffectedRows"] = str(answer.affected)
        statistics["dmlStats"] = dml_statistics(answer)
    if answer.operation and answer.target:
        statistics["ddlOperationPerformed"] = answer.operation
        statistics["ddlTargetTable"] = {
            "projectId": answer.target.project,
            "datasetId": answer.target.dataset,
            "tableId": answer.target.table,
        }
    return statistics


@dataclass
class Jobs:
    """Runs jobs and remembers them."""

    store: Store
    _jobs: OrderedDict[tuple[str, str], Job] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    #: One lock a job id that is being run: two requests with one id are one after the other.
    _turns: WeakValueDictionary[tuple[str, str], Any] = field(default_factory=WeakValueDictionary)

    def run(
        self,
        project: str,
        configuration: Mapping[str, Any],
        job_id: str | None = None,
        media: bytes | None = None,
        location: str | None = None,
        again: bool = False,
    ) -> Job:
        """Runs a query or load job to its end. A failed one is a failed job; a dry run raises and is not remembered.

        A job id that was used before gives its job if it is asked for ``again``, and is not run twice. Raises
        ``duplicate`` for it otherwise, and ``notImplemented`` for jobs of other kinds.
        """
        kind = next((kind for kind in _RUNNERS if isinstance(configuration.get(kind), Mapping)), None)
        if kind is None:
            raise BigQueryError(
                "notImplemented", "the embedded BigQuery runs query and load jobs only, not copy or extract jobs"
            )
        check_job(configuration, kind)
        configuration = _told(configuration)
        job_id = job_id or f"job_{uuid.uuid4().hex}"
        with self._lock:
            turn = self._turns.setdefault((project, job_id), threading.Lock())
        with turn:
            old = self._jobs.get((project, job_id))
            if old and again:
                return old
            if old:
                raise BigQueryError("duplicate", f"Already Exists: Job {project}:{old.location}.{job_id}")
            begun = Job(project, job_id, configuration, time.time(), 0.0, location=location or LOCATION)
            return self._run(begun, kind, media)

    def _run(self, job: Job, kind: str, media: bytes | None) -> Job:
        configuration, dry_run = job.configuration, bool(job.configuration.get("dryRun"))
        answer, error = None, None
        try:
            answer = _RUNNERS[kind](self.store, job.project, configuration[kind], dry_run, media)
        except BigQueryError as failure:
            # What is the server's own fault is no job that failed: the request may be sent again.
            if dry_run or failure.code >= 500:
                raise
            error = failure
        configuration = {"jobType": kind.upper(), **configuration}
        job = replace(job, configuration=configuration, ended=time.time(), answer=answer, error=error)
        if not dry_run:
            with self._lock:
                self._jobs[job.project, job.id] = job
                held = sum(other.result_bytes for other in self._jobs.values())
                while len(self._jobs) > JOBS or (held > RESULT_BYTES and len(self._jobs) > 1):
                    _, oldest = self._jobs.popitem(last=False)
                    held -= oldest.result_bytes
        return job

    def get(self, project: str, job_id: str, location: str | None = None) -> Job:
        """A job by its id, and its location if one is named; raises ``notFound``."""
        job = self._jobs.get((project, job_id))
        if job is None or (location or job.location).upper() != job.location.upper():
            raise not_found("Job", f"{project}:{location or LOCATION}.{job_id}")
        return job

    def of(self, project: str) -> list[Job]:
        """The project's jobs, newest first."""
        with self._lock:
            return [job for job in reversed(self._jobs.values()) if job.project == project]

    def forget(self, job: Job) -> None:
        """Drops a job and its results."""
        with self._lock:
            self._jobs.pop((job.project, job.id), None)


def _told(value: Any, name: str = "") -> Any:
    """A configuration as the service tells it again: its 64-bit numbers, and the values of parameters, are texts."""
    if isinstance(value, Mapping):
        return {key: _told(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_told(inner, name) for inner in value]
    if name in _TEXTS and isinstance(value, int | float):
        return orjson.dumps(value).decode()
    return value


def _query(store: Store, project: str, configuration: Mapping[str, Any], dry_run: bool, media: bytes | None) -> Answer:
    target = destination_of(configuration)
    answer = execute(store, _statement(project, configuration), dry_run)
    if target is None or dry_run:
        return answer
    if answer.rows is None:
        raise BigQueryError("invalid", f"Cannot set destination table in jobs with {answer.statement} statements")
    write(store, target, {"default": "WRITE_EMPTY", **configuration}, answer.fields, answer.rows)
    return answer


def _load(store: Store, project: str, configuration: Mapping[str, Any], dry_run: bool, media: bytes | None) -> Answer:
    target = destination_of(configuration)
    if target is None:
        raise BigQueryError("invalid", "Required parameter is missing: destinationTable")
    if configuration.get("sourceUris") or media is None:
        raise not_here("sourceUris of a load job")
    table = store.tables.get(target)
    truncate = configuration.get("writeDisposition") == "WRITE_TRUNCATE"
    known = () if table is None or (truncate and configuration.get("autodetect")) else table.fields
    fields, rows, bad = read_load(configuration, known, media)
    written = write(store, target, {"default": "WRITE_APPEND", **configuration}, fields, rows)
    return Answer("LOAD", loaded=Loaded(len(media), rows.nbytes, written, bad))


_RUNNERS = {"query": _query, "load": _load}


def _statement(project: str, query: Mapping[str, Any]) -> Statement:
    """Reads ``configuration.query`` (or a ``jobs.query`` request, which has the same names)."""
    text = query.get("query")
    if not isinstance(text, str) or not text.strip():
        raise BigQueryError("invalid", "Required parameter is missing: query")
    if query.get("useLegacySql"):
        raise BigQueryError(
            "notImplemented", "legacy SQL is not supported by the embedded BigQuery: set useLegacySql to false"
        )
    default = query.get("defaultDataset") or {}
    return Statement(
        text, project, default.get("datasetId"), default.get("projectId"), query.get("queryParameters") or ()
    )
