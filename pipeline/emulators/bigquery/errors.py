"""Errors of the embedded BigQuery, in the envelope in which the service returns them."""

from __future__ import annotations

import re
from typing import Any

import duckdb

#: HTTP status of every reason used here: https://cloud.google.com/bigquery/docs/error-messages
HTTP_STATUS = {
    "invalid": 400,
    "invalidQuery": 400,
    "accessDenied": 403,
    "resourceInUse": 400,
    "notFound": 404,
    "duplicate": 409,
    "conditionNotMet": 412,
    "requestTooLarge": 413,
    "internalError": 500,
    "notImplemented": 501,
    "backendError": 503,
}

_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}


class BigQueryError(Exception):
    """A request that failed, by the service's reason and words; ``location`` says where, if the service would."""

    def __init__(self, reason: str, message: str, location: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.location = location

    @property
    def code(self) -> int:
        """The HTTP status."""
        return HTTP_STATUS[self.reason]

    def proto(self) -> dict[str, str]:
        """The ``ErrorProto`` that a job or a rejected row carries."""
        location = {"location": self.location} if self.location else {}
        return {"reason": self.reason, **location, "message": self.message}

    def envelope(self) -> dict[str, Any]:
        """The body of the HTTP response."""
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.location:
            detail |= {"location": self.location, "locationType": "parameter"}
        status = _STATUS_NAMES[self.code]
        return {"error": {"code": self.code, "message": self.message, "errors": [detail], "status": status}}


def not_found(kind: str, name: str, location: str = "") -> BigQueryError:
    """``Not found: Table project:dataset.table``; queries add the location in which they looked."""
    where = f" was not found in location {location}" if location else ""
    return BigQueryError("notFound", f"Not found: {kind} {name}{where}")


#: What a client's own statement can be at fault for. All else that DuckDB raises is the server's: a full disk comes as
#: an error of the transaction, of input and output, or of a database that it has given up.
_FAULTS_OF_A_STATEMENT = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
    duckdb.OutOfRangeException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
    duckdb.TypeMismatchException,
)


#: Families of GoogleSQL's functions of which DuckDB has none, or others.
_NOT_HERE = ("ST_", "S2_", "HLL_COUNT", "KLL_QUANTILES", "NET.", "KEYS.", "AEAD.", "ML.", "AI.")


def query_error(error: duckdb.Error) -> BigQueryError:
    """DuckDB's error at a client's statement as the service's."""
    unknown = re.search(r"Function with name (\S+) does not exist", str(error))
    if unknown:
        name = unknown[1].upper()
        if name.startswith(_NOT_HERE):
            return BigQueryError("notImplemented", f"{name} is not supported by the embedded BigQuery", "query")
        return BigQueryError("invalidQuery", f"Function not found: {name}", "query")
    # DuckDB says several things without a class of their own, a sequence's end and ``error()`` among them.
    if isinstance(error, _FAULTS_OF_A_STATEMENT) or type(error) is duckdb.Error:
        return BigQueryError("invalidQuery", str(error), "query")
    return storage_error(error)


def storage_error(error: duckdb.Error) -> BigQueryError:
    """DuckDB's error at what the server itself asked for: nobody's request is to blame, and it may be tried again."""
    return BigQueryError("backendError", f"The embedded BigQuery could not store or read: {error}")
