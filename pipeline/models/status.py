"""``beam-hf-inference models status``: what serves since when, and how it does.

From a job's ``--metrics_file``, on its machine, or from the rows that any job, on Dataflow too, writes to its audit
table. Exit codes: 0 as the file says, 1 something is refused or cannot be told, 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import clients, flags
from pipeline.command import command
from pipeline.flags import Flag, UsageError
from pipeline.matchers import moment, path, table_name
from transforms.encode import rfc3339

_ABOUT = (
    "Says which models serve since when, with their shares, errors, checks and agreement: from the metrics file of"
    " a job on this machine, or from an audit table."
)
_GROUP = "Models"
STATUS_FLAGS = (
    Flag("metrics_file", "the job's --metrics_file", path, group=_GROUP),
    Flag("audit_table", "the job's --audit_table, PROJECT:DATASET.TABLE", table_name, group=_GROUP),
    Flag(
        "since", "with --audit_table, since when: 2030-01-31T12:00:00Z, or 15m, 2h, 3d ago", moment, "1h", group=_GROUP
    ),
    Flag("json", "print JSON, for a machine", switch=True, group=_GROUP),
)

#: By variant and version, from rows: the same figures that a job's own status has.
_QUERY = """
SELECT
  variant, models_version, ANY_VALUE(model) AS model, ANY_VALUE(model_revision) AS revision, COUNT(*) AS messages,
  COUNTIF(status = 'dead_letter') AS failures, COUNTIF(shadow IS NOT NULL) AS shadowed,
  COUNTIF(JSON_VALUE(shadow, '$.agrees') = 'true') AS agreed,
  COUNTIF(JSON_VALUE(shadow, '$.agrees') = 'false') AS disagreed,
  MIN(processed_time) AS first, MAX(processed_time) AS last
FROM `{table}`
WHERE processed_time >= @since AND models_version IS NOT NULL
GROUP BY variant, models_version
ORDER BY first
"""


@command
def main(argv: Sequence[str]) -> int:
    """Prints the status and returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("models status", "pipeline.models.status", _ABOUT, STATUS_FLAGS)
    try:
        given = flags.read(STATUS_FLAGS, argv)
        if (given["metrics_file"] is None) == (given["audit_table"] is None):
            raise UsageError("give one of --metrics_file (a job on this machine) and --audit_table (any job)")
        if given["metrics_file"] is not None:
            found = from_file(given["metrics_file"])
            lines = list(told(found))
        else:
            found = from_rows(given["audit_table"], given["since"])
            lines = [_row(row) for row in found["rows"]] or ["no row with a models_version since then"]
    except UsageError as error:
        return flags.wrong_usage(error)
    except clients.API_ERRORS as error:
        print(f"error: --audit_table {given['audit_table']}: {clients.words(error)}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2, default=str, ensure_ascii=False) if given["json"] else "\n".join(lines))
    return 1 if found.get("refused") else 0


def from_file(file: Path) -> dict[str, Any]:
    """What the job that writes ``file`` says of its models.

    Raises:
        UsageError: it says nothing of models.
    """
    try:
        value = json.loads(file.read_bytes())
        models: dict[str, Any] = value["models"]
    except FileNotFoundError:
        raise UsageError(f"--metrics_file {str(file)!r}: is not there; is the job running?") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"--metrics_file {str(file)!r}: says nothing of models; its job has no --models") from None
    return {**models, "told": value.get("time")}


def told(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines that say ``found`` to a person."""
    yield f"{found['file']} version {found['models_version']} since {rfc3339(found['since'])}"
    if found.get("told") and time.time() - found["told"] > 60:
        yield f"  told {int(time.time() - found['told'])} s ago: the job may have ended"
    memory = found["memory"]
    yield f"  in memory: {memory['models']} models, {memory['bytes']:,} of {memory['most']:,} bytes"
    for name, model in found["models"].items():
        yield f"  {name}: {', '.join(_about(model))}"
    for expression, raised in found.get("rule_errors", {}).items():
        yield f"  {expression!r} raised on {raised['errors']:,} messages and found nothing: {raised['error']}"
    if found["refused"]:
        yield f"  refused since {rfc3339(found['refused']['since'])}: {found['refused']['why']}"


def _about(model: Mapping[str, Any]) -> Iterator[str]:
    at = f" at {model['revision'][:14]}" if model.get("revision") else ""
    yield f"{model['model']}{at}"
    if model.get("share") is not None:
        yield f"{model['share']:.1%} of what no rule takes before"
    if model.get("shadow"):
        yield f"shadow of {model['shadow']:.1%}"
    yield f"{model.get('messages', 0):,} messages, {model.get('failures', 0):,} failed"
    compared = model.get("agreed", 0) + model.get("disagreed", 0)
    if compared:
        yield f"agrees on {model.get('agreed', 0) / compared:.1%} of {compared:,}"
    if model.get("checks") is not None:
        yield f"{model['checks']:.1%} of its checks hold"
    if model.get("loaded") is False:
        yield "not in memory"


def from_rows(table: Any, since: float) -> dict[str, Any]:
    """What the rows of ``table`` say since then."""
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(
        query_parameters=[bigquery.ScalarQueryParameter("since", "TIMESTAMP", rfc3339(since))]
    )
    rows = clients.bigquery_client(table.project).query(_QUERY.format(table=table), config).result()
    return {"rows": [dict(row) for row in rows]}


def _row(row: Mapping[str, Any]) -> str:
    compared = row["agreed"] + row["disagreed"]
    agreement = f", its shadow agrees on {row['agreed'] / compared:.1%} of {compared:,}" if compared else ""
    name = row["variant"] or "no route"
    return (
        f"{row['models_version']} {name}: {row['messages']:,} messages, {row['failures']:,} failed"
        f"{agreement}, from {row['first']:%Y-%m-%dT%H:%M:%SZ} to {row['last']:%Y-%m-%dT%H:%M:%SZ}"
    )


if __name__ == "__main__":
    sys.exit(main())
