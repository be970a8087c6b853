"""The methods of BigQuery's REST API v2 that the embedded server has, and the shape of what they take.

``METHODS`` is the one list of them: requests are routed by it, and the discovery document that the ``bq`` command line
asks for is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.refs import DatasetRef, TableRef
from pipeline.emulators.bigquery.unsupported import not_here

_PROJECT = "projects/{projectId}"
_DATASET = _PROJECT + "/datasets/{datasetId}"
_TABLE = _DATASET + "/tables/{tableId}"
_PAGING = ("maxResults", "pageToken")
_ROWS = (*_PAGING, "startIndex", "formatOptions.useInt64Timestamp", "formatOptions.timestampOutputFormat")
_JOBS = ("allUsers", "projection", "stateFilter", "minCreationTime", "maxCreationTime", "parentJobId")
#: Parameters of every Google API, which change the form of an answer at most.
SYSTEM = (
    *("alt", "fields", "key", "oauth_token", "access_token", "prettyPrint", "quotaUser", "trace", "userIp"),
    *("$.xgafv", "callback", "uploadType", "upload_protocol"),
)

#: name: (HTTP method, path, query parameters); each of these is heeded, or changes no answer here
METHODS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "projects.list": ("GET", "projects", _PAGING),
    "datasets.list": ("GET", _PROJECT + "/datasets", (*_PAGING, "all", "filter")),
    "datasets.insert": ("POST", _PROJECT + "/datasets", ("accessPolicyVersion",)),
    "datasets.get": ("GET", _DATASET, ("accessPolicyVersion", "datasetView")),
    "datasets.patch": ("PATCH", _DATASET, ("accessPolicyVersion", "updateMode")),
    "datasets.update": ("PUT", _DATASET, ("accessPolicyVersion", "updateMode")),
    "datasets.delete": ("DELETE", _DATASET, ("deleteContents",)),
    "tables.list": ("GET", _DATASET + "/tables", _PAGING),
    "tables.insert": ("POST", _DATASET + "/tables", ()),
    "tables.get": ("GET", _TABLE, ("selectedFields", "view")),
    "tables.patch": ("PATCH", _TABLE, ("autodetect_schema",)),
    "tables.update": ("PUT", _TABLE, ("autodetect_schema",)),
    "tables.delete": ("DELETE", _TABLE, ()),
    "tabledata.insertAll": ("POST", _TABLE + "/insertAll", ()),
    "tabledata.list": ("GET", _TABLE + "/data", (*_ROWS, "selectedFields")),
    "jobs.list": ("GET", _PROJECT + "/jobs", (*_PAGING, *_JOBS)),
    "jobs.insert": ("POST", _PROJECT + "/jobs", ()),
    "jobs.query": ("POST", _PROJECT + "/queries", ()),
    "jobs.getQueryResults": ("GET", _PROJECT + "/queries/{jobId}", (*_ROWS, "timeoutMs", "location")),
    "jobs.get": ("GET", _PROJECT + "/jobs/{jobId}", ("location", "projection")),
    "jobs.cancel": ("POST", _PROJECT + "/jobs/{jobId}/cancel", ("location", "projection")),
    "jobs.delete": ("DELETE", _PROJECT + "/jobs/{jobId}/delete", ("location",)),
}

_DATASET_BODY = {"datasetReference": {"datasetId": ""}}
_TABLE_BODY = {
    "tableReference": {"tableId": ""},
    "schema": {"fields": [{}]},
    "timePartitioning": {"field": ""},
    "clustering": {"fields": [""]},
    "view": {"query": ""},
}
_QUERY_BODY = {
    "query": "",
    "defaultDataset": {"projectId": "", "datasetId": ""},
    "labels": {},
    "location": "",
    "requestId": "",
    "queryParameters": [{"name": "", "parameterType": {}, "parameterValue": {}}],
    "formatOptions": {},
    "destinationTable": {},
}
_LOAD_BODY = {"destinationTable": {}, "schema": {"fields": [{}]}, "fieldDelimiter": "", "quote": "", "encoding": ""}

#: Examples of the bodies, as far as the server reads them: an object, an array of one, a string.
_BODIES: dict[str, dict[str, Any]] = {
    "datasets.insert": _DATASET_BODY,
    "datasets.patch": _DATASET_BODY,
    "datasets.update": _DATASET_BODY,
    "tables.insert": _TABLE_BODY,
    "tables.patch": _TABLE_BODY,
    "tables.update": _TABLE_BODY,
    "tabledata.insertAll": {"rows": [{"json": {}}]},
    "jobs.insert": {
        "jobReference": {"jobId": "", "location": ""},
        "configuration": {"query": _QUERY_BODY, "load": _LOAD_BODY},
    },
    "jobs.query": _QUERY_BODY,
}
_KINDS: dict[type, str] = {dict: "an object", list: "an array", str: "a string"}


def check_body(method: str, body: Any) -> Mapping[str, Any]:
    """``body`` if it has the shape that ``method`` takes; raises ``invalid`` naming the place that has not."""
    _check_shape(body, _BODIES.get(method, {}), "")
    checked: Mapping[str, Any] = body
    return checked


def check_parameters(method: str, query: Mapping[str, str]) -> None:
    """Raises ``notImplemented`` for a query parameter that would be left out of account."""
    for name in query:
        if name not in METHODS[method][2] and name not in SYSTEM:
            raise not_here(f"the parameter {name} of {method}")


def _check_shape(value: Any, example: Any, path: str) -> None:
    if not isinstance(value, type(example)):
        where = f"Invalid value at '{path}'" if path else "Parse Error"
        raise BigQueryError("invalid", f"{where}: expected {_KINDS[type(example)]}, got {type(value).__name__}")
    if isinstance(example, dict):
        for name, item in example.items():
            if value.get(name) is not None:
                _check_shape(value[name], item, f"{path}.{name}" if path else name)
    elif isinstance(example, list):
        for index, item in enumerate(value):
            _check_shape(item, example[0], f"{path}[{index}]")


@dataclass(frozen=True, slots=True)
class Request:
    """One call: the parameters of its path and query string, its body and size, ``If-Match``, and an uploaded file."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    size: int = 0
    if_match: str | None = None
    media: bytes | None = None

    @property
    def project(self) -> str:
        """The project in the path."""
        return self.path["projectId"]

    @property
    def dataset(self) -> DatasetRef:
        """The dataset in the path."""
        return DatasetRef(self.project, self.path["datasetId"])

    @property
    def table(self) -> TableRef:
        """The table in the path."""
        return TableRef(*self.dataset, self.path["tableId"])

    def flag(self, name: str) -> bool:
        """A boolean of the query string."""
        return self.query.get(name, "").lower() == "true"

    def number(self, name: str, default: int) -> int:
        """A count in the query string; raises ``invalid``."""
        text = self.query.get(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise BigQueryError("invalid", f"Invalid value for {name}: {text!r} is not a count")
        return int(text)
