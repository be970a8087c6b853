"""The page's filter as a query of the audit table, to go on from where the console's memory ends."""

from __future__ import annotations

import datetime
import time

from sqlglot import exp

from pipeline.console.actions import Refused
from pipeline.console.filters import Term
from pipeline.console.story import LABEL
from pipeline.matchers import TableName

_LABEL = "COALESCE(JSON_VALUE(prediction, '$[0].label'), JSON_VALUE(prediction, '$.label'))"
_SCORE = "CAST(COALESCE(JSON_VALUE(prediction, '$[0].score'), JSON_VALUE(prediction, '$.score')) AS FLOAT64)"
_COLUMNS = {
    "label": _LABEL,
    "stage": "stage",
    "error": "error_type",
    "id": "message_id",
    "task": "task",
    "model": "model",
    "revision": "model_revision",
    "variant": "variant",
}
_STATUS = {"result": "ok", "dead-letter": "dead_letter"}


def select(table: TableName, terms: list[Term]) -> str:
    """The newest hundred rows that fit ``terms``.

    Raises:
        Refused: a term is about what the console alone knows.
    """
    wheres = [f"NOT COALESCE({_where(term)}, FALSE)" if term.negated else _where(term) for term in terms]
    where = f"\nWHERE {' AND '.join(wheres)}" if wheres else ""
    return (
        f"SELECT message_id, processed_time, status, {_LABEL} AS label, stage, error_type, error, total_ms\n"
        f"FROM `{table}`{where}\nORDER BY processed_time DESC\nLIMIT 100"
    )


def _where(term: Term) -> str:
    if not term.op:
        return f"CONTAINS_SUBSTR(CONCAT(COALESCE(error, ''), ' ', COALESCE({_LABEL}, '')), {_text(term.value)})"
    if term.op == "=":
        return f"JSON_VALUE(attributes, {_text(_path(term.key))}) = {_text(term.value)}"
    if term.key in ("since", "until"):
        return f"processed_time {'>=' if term.key == 'since' else '<'} {_moment(term.number)}"
    if term.key == "age" and term.number is not None:
        turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}[term.op]
        return f"processed_time {turned} {_moment(time.time() - term.number)}"
    if term.key in ("score", "latency"):
        return f"{_SCORE if term.key == 'score' else 'total_ms'} {term.op} {term.number!r}"
    if term.key == "status":
        return f"status = {_text(_STATUS.get(term.value.lower(), term.value))}"
    if term.key == "label" and len(term.value) == LABEL:  # what the console keeps of a longer one
        return f"STARTS_WITH(LOWER({_LABEL}), {_text(term.value.lower())})"
    if term.key in _COLUMNS:
        return f"LOWER({_COLUMNS[term.key]}) = {_text(term.value.lower())}"
    raise Refused(f"{term.key}: only this console knows that, the audit table does not")


def _path(key: str) -> str:
    """An attribute's JSON path. BigQuery's paths cannot quote a quotation mark."""
    if '"' in key or "\\" in key:
        raise Refused(f"{key}: an attribute of that name cannot be asked for in SQL")
    return f'$."{key}"'


def _text(value: str) -> str:
    return str(exp.Literal.string(value).sql("bigquery"))


def _moment(seconds: float | None) -> str:
    try:
        when = datetime.datetime.fromtimestamp(seconds or 0.0, datetime.timezone.utc)
    except (ValueError, OverflowError):
        raise Refused("a time of the filter is not within SQL's years, 1 to 9999") from None
    return f"TIMESTAMP {_text(when.isoformat(timespec='milliseconds'))}"
