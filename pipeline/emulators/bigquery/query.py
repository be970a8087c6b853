"""Running a statement: queries, DML, and the DDL that makes and drops tables and views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from pipeline.emulators.bigquery import sql
from pipeline.emulators.bigquery.ddl import column_resource, table_resource
from pipeline.emulators.bigquery.errors import BigQueryError, not_found, query_error
from pipeline.emulators.bigquery.parameters import read_parameters
from pipeline.emulators.bigquery.refs import Table, TableRef
from pipeline.emulators.bigquery.result_values import check_values
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.bigquery.types import Field, field_of, parse_schema

#: Where the embedded server says its data is.
LOCATION = "US"

_DML: dict[type[exp.Expr], str] = {exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Delete: "DELETE", exp.Merge: "MERGE"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load job did."""

    input_bytes: int
    output_bytes: int
    rows: int
    bad: int

    def resource(self) -> dict[str, str]:
        """The ``JobStatistics3``."""
        read = {"inputFiles": "1", "inputFileBytes": str(self.input_bytes), "badRecords": str(self.bad)}
        return {**read, "outputRows": str(self.rows), "outputBytes": str(self.output_bytes)}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job gave: rows, or how many it changed or loaded, or the table that it made or dropped."""

    statement: str
    fields: tuple[Field, ...] = ()
    rows: pa.Table | None = None
    affected: int | None = None
    changed: Mapping[str, int] | None = None
    loaded: Loaded | None = None
    target: TableRef | None = None
    operation: str | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as a job carries it. ``parameters`` are the API's ``queryParameters``."""

    text: str
    project: str
    dataset: str | None = None
    dataset_project: str | None = None
    parameters: Sequence[Mapping[str, Any]] = ()


def execute(store: Store, statement: Statement, dry_run: bool = False) -> Answer:
    """Runs ``statement``, or only checks it. Raises ``invalidQuery``, ``notFound`` and the like."""
    tree = sql.parse(statement.text)
    runner = _Runner(store, statement, dry_run)
    try:
        if isinstance(tree, exp.Query):
            return runner.select(tree)
        if type(tree) in _DML:
            return runner.change(tree, _DML[type(tree)])
        if isinstance(tree, exp.TruncateTable):
            return runner.truncate(tree)
        if isinstance(tree, exp.Create) and tree.kind in ("VIEW", "TABLE"):
            return runner.create(tree)
        if isinstance(tree, exp.Drop) and tree.args["kind"] in ("VIEW", "TABLE"):
            return runner.drop(tree)
    except duckdb.Error as error:
        if isinstance(error, duckdb.FatalException):
            store.recover()
        raise query_error(error) from error
    except RecursionError:
        raise BigQueryError("invalidQuery", "the statement is too deeply nested", "query") from None
    if isinstance(tree, exp.Condition | exp.Alias | exp.Tuple):
        raise BigQueryError("invalidQuery", "Syntax error: Unexpected expression, a statement is expected", "query")
    raise BigQueryError(
        "notImplemented",
        f"{tree.key.upper()} is not supported by the embedded BigQuery: it runs queries, INSERT, UPDATE, DELETE, "
        "MERGE, TRUNCATE TABLE, and CREATE and DROP of tables and views",
        "query",
    )


def view_fields(store: Store, query: str, project: str) -> tuple[Field, ...]:
    """The columns of a view; raises what its query would."""
    return execute(store, Statement(query, project), dry_run=True).fields


class _Runner:
    def __init__(self, store: Store, statement: Statement, dry_run: bool) -> None:
        self.store = store
        self.statement = statement
        self.dry_run = dry_run
        self.fields, self.values = read_parameters(statement.parameters)
        self.json_columns: set[str] = set()

    def select(self, tree: exp.Query) -> Answer:
        text, values = self._translate(sql.name_columns(tree))
        relation = self.store.cursor.sql(text, params=values)
        twice = [name for name, count in Counter(map(str.lower, relation.columns)).items() if count > 1]
        if twice:
            words = f"Duplicate column names in the result are not supported. Found duplicate(s): {', '.join(twice)}"
            raise BigQueryError("invalidQuery", words, "query")
        fields = tuple(field_of(*column) for column in zip(relation.columns, relation.types, strict=True))
        if self.dry_run:
            return Answer("SELECT", fields)
        rows = relation.to_arrow_table()
        check_values(rows)
        return Answer("SELECT", fields, rows)

    def change(self, tree: exp.Expr, kind: str) -> Answer:
        target = self._target(tree.find(exp.Table))
        table = self.store.table(target)
        if table.view_query is not None:
            raise BigQueryError("invalidQuery", f"{target} is a view and cannot be changed by {kind}", "query")
        text, values = self._translate(tree)
        if self.dry_run:
            self.store.cursor.execute(f"EXPLAIN {text}", values).fetchall()
            return Answer(kind, target=target)
        if kind == "MERGE":
            text += " RETURNING merge_action"
        with self.store.writing() as cursor:
            rows = cursor.execute(text, values).fetchall()
        changed = Counter(action for (action,) in rows) if kind == "MERGE" else Counter({kind: rows[0][0]})
        return Answer(kind, affected=changed.total(), changed=changed, target=target)

    def truncate(self, tree: exp.TruncateTable) -> Answer:
        target = self._target(tree.expressions[0])
        table = self.store.table(target)
        affected = self.store.count(table)
        if not self.dry_run:
            with self.store.writing() as cursor:
                cursor.execute(f"TRUNCATE {target.duckdb}")
        return Answer("TRUNCATE_TABLE", affected=affected, changed={"DELETE": affected}, target=target)

    def create(self, tree: exp.Create) -> Answer:
        target = self._target(tree.find(exp.Table))
        query = tree.expression
        kind = f"CREATE_{tree.kind}" + ("_AS_SELECT" if query is not None and tree.kind == "TABLE" else "")
        exists = target in self.store.tables
        if exists and tree.args.get("exists"):
            return Answer(kind, target=target, operation="SKIP")
        resource: dict[str, Any] = table_resource(tree)
        select, described = None, None
        if tree.kind == "VIEW":
            resource["view"] = {"query": query.sql(dialect="bigquery"), "useLegacySql": False}
            fields = view_fields(self.store, resource["view"]["query"], target.project)
        elif isinstance(tree.this, exp.Schema):
            described = [column_resource(column) for column in tree.this.expressions]
            fields = parse_schema(described)
        elif query is not None:
            fields = _Runner(self.store, self.statement, True).select(query.copy()).fields
        else:
            raise BigQueryError("invalidQuery", f"CREATE TABLE {target} has neither columns nor a query", "query")
        if tree.kind == "TABLE" and query is not None:
            select = self._translate(sql.name_columns(query))
        resource["schema"] = {"fields": described or [field.resource() for field in fields]}
        if not self.dry_run:
            self.store.create_table(target, resource, select, replace=bool(tree.args.get("replace")))
        return Answer(kind, target=target, operation="REPLACE" if exists else "CREATE")

    def drop(self, tree: exp.Drop) -> Answer:
        target = self._target(tree.find(exp.Table))
        kind = f"DROP_{tree.args['kind']}"
        if target not in self.store.tables and tree.args.get("exists"):
            return Answer(kind, target=target, operation="SKIP")
        table = self._table(target)
        if (table.view_query is not None) != (kind == "DROP_VIEW"):
            raise BigQueryError("invalidQuery", f"Cannot drop {target} with {kind}: it is of another kind", "query")
        if not self.dry_run:
            self.store.delete_table(target)
        return Answer(kind, target=target, operation="DROP")

    def _target(self, node: exp.Table | None) -> TableRef:
        assert node is not None
        default = self.statement.dataset
        ref = sql.table_ref(node, self.statement.dataset_project or self.statement.project, default)
        if node.catalog or (default and not node.db):
            return ref
        return ref._replace(project=self.statement.project)

    def _table(self, ref: TableRef) -> Table:
        if ref.parent not in self.store.datasets:
            raise not_found("Dataset", str(ref.parent), LOCATION)
        if ref not in self.store.tables:
            raise not_found("Table", str(ref), LOCATION)
        return self.store.tables[ref]

    def _resolve(self, node: exp.Table) -> TableRef | exp.Query:
        table = self._table(self._target(node))
        self.json_columns |= {field.name.lower() for field in table.fields if field.type == "JSON"}
        if table.view_query is None:
            return table.ref
        inner = sql.parse(table.view_query)
        assert isinstance(inner, exp.Query)
        owner = _Runner(self.store, Statement(table.view_query, table.ref.project), self.dry_run)
        inner = sql.replace_tables(sql.name_columns(inner), owner._resolve)
        self.json_columns |= owner.json_columns
        return inner

    def _translate(self, tree: exp.Expr) -> tuple[str, dict[str, Any]]:
        used = {node.name.lower() for node in tree.find_all(exp.Parameter)}
        tree = sql.replace_tables(sql.bind(tree, self.fields), self._resolve)
        sql.index_json(tree, self.json_columns)
        return sql.to_duckdb(tree), {
            sql.parameter_name(name): self.values[name] for name in used if name in self.values
        }
