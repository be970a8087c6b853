"""What the service does and this server does not: refused with 501 where it is asked for, not kept and unheeded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.emulators.bigquery.errors import BigQueryError

_DATASET = (
    *("defaultTableExpirationMs", "defaultPartitionExpirationMs", "defaultCollation", "defaultRoundingMode"),
    *("defaultEncryptionConfiguration", "isCaseInsensitive", "linkedDatasetSource", "externalDatasetReference"),
    *("maxTimeTravelHours", "externalCatalogDatasetOptions"),
)
_TABLE = (
    *("externalDataConfiguration", "biglakeConfiguration", "materializedView", "snapshotDefinition", "cloneDefinition"),
    *("expirationTime", "requirePartitionFilter", "timePartitioning.expirationMs", "encryptionConfiguration"),
    *("timePartitioning.requirePartitionFilter", "defaultCollation", "defaultRoundingMode", "maxStaleness"),
    *("view.userDefinedFunctionResources", "view.privacyPolicy", "externalCatalogTableOptions", "tableReplicationInfo"),
)
_FIELD = (
    *("defaultValueExpression", "maxLength", "precision", "scale", "collation", "roundingMode", "policyTags"),
    *("generatedColumn", "rangeElementType"),
    "timestampPrecision",
)
#: What of a job is done, or changes no answer here, where nothing is billed, queued, cached or thrown away early.
_JOB = {"query", "load", "jobType", "dryRun", "labels", "maxSlots", "reservation"}
_QUERY = {
    *("query", "useLegacySql", "defaultDataset", "queryParameters", "parameterMode", "destinationTable"),
    *("createDisposition", "writeDisposition", "priority", "useQueryCache", "maximumBytesBilled", "allowLargeResults"),
    *("maximumBillingTier", "flattenResults", "preserveNulls"),
}
_LOAD = {
    *(
        "sourceUris",
        "sourceFormat",
        "schema",
        "destinationTable",
        "createDisposition",
        "writeDisposition",
        "autodetect",
    ),
    *("fieldDelimiter", "quote", "encoding", "nullMarker", "skipLeadingRows", "allowQuotedNewlines", "allowJaggedRows"),
    *("maxBadRecords", "ignoreUnknownValues", "parquetOptions", "useAvroLogicalTypes"),
}
#: A ``jobs.query`` is both, and has what ``jobs.insert`` says elsewhere.
_QUERY_REQUEST = _QUERY | _JOB - {"query", "load"} | {"query", "kind", "maxResults", "timeoutMs", "formatOptions"}
_QUERY_REQUEST |= {"location", "requestId", "jobCreationMode"}


#: What asks for nothing.
_NOTHING: tuple[Any, ...] = (None, False, "", 0, "0", {}, [])


def not_here(what: str) -> BigQueryError:
    """A 501 that names it."""
    return BigQueryError("notImplemented", f"{what} is not supported by the embedded BigQuery: leave it out")


def check_dataset(resource: Mapping[str, Any]) -> None:
    """Raises ``notImplemented`` for a dataset that asks for what is not here."""
    _check(resource, _DATASET, "")


def check_table(resource: Mapping[str, Any]) -> None:
    """Raises ``notImplemented`` for a table, or a column of it, that asks for what is not here."""
    _check(resource, _TABLE, "")
    check_schema((resource.get("schema") or {}).get("fields") or ())


def check_job(configuration: Mapping[str, Any], kind: str) -> None:
    """The same for a job of ``kind``: its session, files, functions or timeout would be left out of account."""
    _check_known(configuration, _JOB, "configuration")
    _check_known(configuration[kind], {"query": _QUERY, "load": _LOAD}[kind], f"configuration.{kind}")
    _check_known(configuration[kind].get("parquetOptions") or {}, {"enableListInference"}, "parquetOptions")


def query_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the job that a ``jobs.query`` is; raises the same."""
    _check_known(request, _QUERY_REQUEST, "jobs.query")
    job = {name: request[name] for name in ("dryRun", "labels") if request.get(name)}
    return {"query": {name: value for name, value in request.items() if name in _QUERY}, **job}


def check_schema(fields: Any, where: str = "schema.fields.") -> None:
    """The same for the columns alone: of a table, or of what is loaded."""
    for field in fields:
        _check(field, _FIELD, f"{where}{field.get('name')}.")
        nested = field.get("fields")
        if isinstance(nested, list) and all(isinstance(item, dict) for item in nested):
            check_schema(nested, f"{where}{field.get('name')}.")


def _check(resource: Mapping[str, Any], paths: tuple[str, ...], where: str) -> None:
    for path in paths:
        value: Any = resource
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value not in _NOTHING and (path, str(value)) != ("timestampPrecision", "6"):
            raise not_here(where + path)


def _check_known(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for name, value in given.items():
        if name not in known and value not in _NOTHING:
            raise not_here(f"{where}.{name}")
