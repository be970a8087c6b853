"""Vitals: whether the job seems to be at work, from what the topics and its metrics file say."""

from __future__ import annotations

from typing import Any

#: Seconds without a result while messages wait, or without a new metrics file, after which a job is not at work.
SILENT_S = 10.0
#: The job writes its metrics every two seconds.
STALE_S = 15.0


def job(
    now: float,
    last_end: float | None,
    waiting: int | None,
    oldest: float | None,
    metrics_age_s: float | None,
    away: bool = False,
) -> dict[str, Any]:
    """``{"state", "words"}`` of the job: ``working``, ``idle``, ``waiting``, ``silent``, ``gone`` or ``unknown``.

    ``last_end`` is when its last result or dead letter was published, ``waiting`` how many messages are on their way
    (None where the input is not watched), ``oldest`` when the first of them was published. While Pub/Sub is ``away``
    nobody knows what waits there.
    """
    since = None if last_end is None else max(0.0, now - last_end)
    comes = since is not None and since <= SILENT_S
    last = "results come" if comes else "no result yet" if since is None else f"no result for {_span(since)}"
    waits = _waits(waiting, away)
    if metrics_age_s is not None and metrics_age_s > STALE_S:
        return {"state": "gone", "words": f"no metrics for {_span(metrics_age_s)}; {last}{waits}"}
    if comes:
        return {"state": "working", "words": last}
    if away or (not waiting and metrics_age_s is None):
        state = "unknown"
    elif not waiting:
        state = "idle"
    else:
        state = "silent" if oldest is not None and now - oldest > SILENT_S else "waiting"
    return {"state": state, "words": last + waits}


def _waits(waiting: int | None, away: bool) -> str:
    if away:
        return "; what waits is not known"
    if waiting is None:
        return "; the input is not watched"
    return f", {waiting:,} waiting" if waiting else ", nothing waits"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
