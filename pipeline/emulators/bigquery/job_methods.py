"""``jobs`` of the API: running statements and paging through their rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.emulators.bigquery.jobs import Job, Jobs, dml_statistics
from pipeline.emulators.bigquery.methods import Request
from pipeline.emulators.bigquery.results import PAGE_ROWS, page_of, rows_page
from pipeline.emulators.bigquery.store import Store


class JobMethods:
    def __init__(self, store: Store) -> None:
        self.jobs = Jobs(store)

    def list(self, request: Request) -> dict[str, Any]:
        page, token = page_of(self.jobs.of(request.project), request)
        return {"kind": "bigquery#jobList", "jobs": [{**job.resource(), "state": "DONE"} for job in page], **token}

    def insert(self, request: Request) -> dict[str, Any]:
        job_id = (request.body.get("jobReference") or {}).get("jobId")
        configuration = request.body.get("configuration") or {}
        return self.jobs.run(request.project, configuration, job_id, request.media).resource()

    def get(self, request: Request) -> dict[str, Any]:
        return self.jobs.get(request.project, request.path["jobId"]).resource()

    def cancel(self, request: Request) -> dict[str, Any]:
        """Jobs are over when ``jobs.insert`` returns: there is never anything left to cancel."""
        return {"kind": "bigquery#jobCancelResponse", "job": self.get(request)}

    def delete(self, request: Request) -> dict[str, Any]:
        self.jobs.forget(request.project, request.path["jobId"])
        return {}

    def query(self, request: Request) -> dict[str, Any]:
        """``jobs.insert`` and ``jobs.getQueryResults`` in one."""
        body = request.body
        job = self.jobs.run(request.project, {"query": body, "dryRun": bool(body.get("dryRun"))})
        options = {f"formatOptions.{name}": str(value) for name, value in (body.get("formatOptions") or {}).items()}
        if body.get("maxResults") is not None:
            options["maxResults"] = str(body["maxResults"])
        return {**_results(job, Request(request.path, options, {})), "kind": "bigquery#queryResponse"}

    def getQueryResults(self, request: Request) -> dict[str, Any]:
        return _results(self.jobs.get(request.project, request.path["jobId"]), request)


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
