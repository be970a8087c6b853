"""``jobs`` of the API: running statements and paging through their rows."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from pipeline.emulators.bigquery.jobs import Job, Jobs, dml_statistics
from pipeline.emulators.bigquery.methods import Request
from pipeline.emulators.bigquery.results import PAGE_ROWS, page_of, rows_page
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.bigquery.unsupported import query_of

_END_OF_TIME = 10**17


class JobMethods:
    def __init__(self, store: Store) -> None:
        self.jobs = Jobs(store)

    def list(self, request: Request) -> dict[str, Any]:
        """Newest first. All jobs are over, and all are one user's; none has children."""
        states = request.query.get("stateFilter", "done").lower().split(",")
        first, last = request.number("minCreationTime", 0), request.number("maxCreationTime", _END_OF_TIME)
        over = "done" in states and not request.query.get("parentJobId")
        jobs = [job for job in self.jobs.of(request.project) if over and first <= int(job.created * 1000) <= last]
        page, token = page_of(jobs, request)
        full = request.query.get("projection", "").lower() == "full"
        shown = [{**job.resource(), "state": "DONE"} for job in page]
        if not full:
            shown = [{name: value for name, value in job.items() if name != "configuration"} for job in shown]
        return {"kind": "bigquery#jobList", "jobs": shown, **token}

    def insert(self, request: Request) -> dict[str, Any]:
        reference = request.body.get("jobReference") or {}
        configuration = request.body.get("configuration") or {}
        job_id, location = reference.get("jobId"), reference.get("location")
        return self.jobs.run(request.project, configuration, job_id, request.media, location).resource()

    def get(self, request: Request) -> dict[str, Any]:
        return self._job(request).resource()

    def cancel(self, request: Request) -> dict[str, Any]:
        """Jobs are over when ``jobs.insert`` returns: there is never anything left to cancel."""
        return {"kind": "bigquery#jobCancelResponse", "job": self.get(request)}

    def delete(self, request: Request) -> dict[str, Any]:
        self.jobs.forget(self._job(request))
        return {}

    def query(self, request: Request) -> dict[str, Any]:
        """``jobs.insert`` and ``jobs.getQueryResults`` in one; the same again for the same ``requestId``."""
        body = request.body
        named = body.get("requestId")
        job_id = named and f"job_{hashlib.sha256(named.encode()).hexdigest()[:32]}"
        job = self.jobs.run(request.project, query_of(body), job_id, location=body.get("location"), again=True)
        options = {f"formatOptions.{name}": str(value) for name, value in (body.get("formatOptions") or {}).items()}
        if body.get("maxResults") is not None:
            options["maxResults"] = str(body["maxResults"])
        return {**_results(job, Request(request.path, options, {})), "kind": "bigquery#queryResponse"}

    def getQueryResults(self, request: Request) -> dict[str, Any]:
        return _results(self._job(request), request)

    def _job(self, request: Request) -> Job:
        return self.jobs.get(request.project, request.path["jobId"], request.query.get("location"))


def _results(job: Job, request: Request) -> dict[str, Any]:
    """A page of a job's rows; raises the job's error."""
    if job.error:
        raise job.error
    answer = job.answer
    assert answer is not None
    rows = pa.table({}) if answer.rows is None else answer.rows
    start = request.number("pageToken", request.number("startIndex", 0))
    page = rows.slice(start, min(request.number("maxResults", PAGE_ROWS), PAGE_ROWS))
    result: dict[str, Any] = {
        "kind": "bigquery#getQueryResultsResponse",
        "jobReference": job.reference,
        "jobComplete": True,
        "cacheHit": False,
        "totalBytesProcessed": "0",
        "totalRows": str(rows.num_rows),
    }
    if answer.fields:
        result["schema"] = {"fields": [field.resource() for field in answer.fields]}
    if answer.rows is not None:
        result |= rows_page(answer.fields, page, start, rows.num_rows, request)
    if answer.affected is not None:
        result["numDmlAffectedRows"] = str(answer.affected)
        result["dmlStats"] = dml_statistics(answer)
    return result
