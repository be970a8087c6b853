"""What a ``CREATE`` says of a table, as the API's resource."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from pipeline.emulators.bigquery.types import ALIASES
from pipeline.emulators.bigquery.unsupported import not_here


def column_resource(column: exp.Expr) -> dict[str, Any]:
    """A column of ``CREATE TABLE`` as a ``TableFieldSchema``."""
    if not isinstance(column, exp.ColumnDef) or column.kind is None:
        raise not_here(f"CREATE TABLE with {column.sql(dialect='bigquery')}")
    kind, mode = column.kind, "NULLABLE"
    if kind.is_type("array"):
        kind, mode = kind.expressions[0], "REPEATED"
    described: dict[str, Any] = {}
    for constraint in column.constraints:
        if isinstance(constraint.kind, exp.NotNullColumnConstraint):
            mode = "REQUIRED"
        elif isinstance(constraint.kind, exp.Properties):
            described |= _named_options(constraint.kind.expressions, ("description",))
        else:
            raise not_here(f"column {column.name}: {constraint.sql(dialect='bigquery')}")
    if kind.expressions and not kind.is_type("struct"):
        raise not_here(f"column {column.name}: a length or precision, {kind.sql(dialect='bigquery')},")
    resource = {"name": column.name, "mode": mode, **described}
    if kind.is_type("struct"):
        return {**resource, "type": "RECORD", "fields": [column_resource(field) for field in kind.expressions]}
    name = exp.DataType(this=kind.this).sql(dialect="bigquery")
    return {**resource, "type": ALIASES.get(name, name)}


def table_resource(tree: exp.Create) -> dict[str, Any]:
    """``PARTITION BY``, ``CLUSTER BY`` and the description of a ``CREATE`` as the API's table resource."""
    resource: dict[str, Any] = {}
    properties = tree.args.get("properties")
    for item in properties.expressions if properties else ():
        if isinstance(item, exp.PartitionedByProperty):
            column = item.find(exp.Column)
            unit = item.find(exp.Var)
            resource["timePartitioning"] = {
                "type": unit.name.upper() if unit else "DAY",
                **({"field": column.name} if column and not column.name.startswith("_PARTITION") else {}),
            }
        elif isinstance(item, exp.ClusterProperty):
            resource["clustering"] = {"fields": [column.name for column in item.find_all(exp.Column)]}
        elif type(item) is exp.Property:
            resource |= _named_options([item], ("description", "friendly_name", "labels"))
        else:
            raise not_here(item.sql(dialect="bigquery") or type(item).__name__)
    if tree.args.get("clone"):
        raise not_here(tree.args["clone"].sql(dialect="bigquery"))
    return resource


def _named_options(options: list[exp.Expr], known: tuple[str, ...]) -> dict[str, Any]:
    """``OPTIONS (…)`` as the API has them; raises ``notImplemented`` for one that is not ``known``."""
    resource: dict[str, Any] = {}
    for option in options:
        value = option.args["value"]
        if option.name not in known:
            raise not_here(f"option {option.name}")
        if option.name == "labels":
            resource["labels"] = {pair.expressions[0].name: pair.expressions[1].name for pair in value.expressions}
        else:
            resource["friendlyName" if option.name == "friendly_name" else option.name] = value.name
    return resource
