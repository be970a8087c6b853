"""What the service does and this server does not: refused with 501 where it is asked for, not kept and unheeded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.emulators.bigquery.errors import BigQueryError

_DATASET = (
    *("defaultTableExpirationMs", "defaultPartitionExpirationMs", "defaultCollation", "defaultRoundingMode"),
    *("defaultEncryptionConfiguration", "isCaseInsensitive", "linkedDatasetSource", "externalDatasetReference"),
    "maxTimeTravelHours",
)
_TABLE = (
    *("externalDataConfiguration", "biglakeConfiguration", "materializedView", "snapshotDefinition", "cloneDefinition"),
    *("expirationTime", "requirePartitionFilter", "timePartitioning.expirationMs", "encryptionConfiguration"),
    *("timePartitioning.requirePartitionFilter", "defaultCollation", "defaultRoundingMode", "maxStaleness"),
)
_FIELD = (
    *("defaultValueExpression", "maxLength", "precision", "scale", "collation", "roundingMode", "policyTags"),
    *("generatedColumn", "rangeElementType"),
    "timestampPrecision",
)
_QUERY = (
    *("createSession", "connectionProperties", "tableDefinitions", "userDefinedFunctionResources", "continuous"),
    *("schemaUpdateOptions", "timePartitioning", "rangePartitioning", "clustering", "writeIncrementalResults"),
    "destinationEncryptionConfiguration",
)


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


def check_query(configuration: Mapping[str, Any]) -> None:
    """The same for a query job, whose session, files or functions would be left out of account."""
    _check(configuration, _QUERY, "")


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
        if value not in (None, False, "", 0, "0", {}, []) and (path, str(value)) != ("timestampPrecision", "6"):
            raise not_here(where + path)
