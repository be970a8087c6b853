"""What the window summaries ask of the audit table; ``{audit}`` and ``{summary}`` are the tables."""

from __future__ import annotations

NEW = """
SELECT MIN(window_start) AS oldest FROM `{audit}` WHERE processed_time >= @since AND window_end <= @now
"""

MESSAGES = """
WITH touched AS (
  SELECT DISTINCT job, window_start, window_end FROM `{audit}` WHERE processed_time >= @since AND window_end <= @now
), messages AS (
  SELECT a.*, JSON_VALUE(a.prediction, '$[0].label') AS label,
    SAFE_CAST(JSON_VALUE(a.prediction, '$[0].score') AS FLOAT64) AS score
  FROM `{audit}` AS a
  JOIN touched AS t ON a.job = t.job AND a.window_start = t.window_start AND a.window_end = t.window_end
  WHERE a.processed_time >= @oldest
  QUALIFY ROW_NUMBER() OVER (PARTITION BY a.job, a.message_id ORDER BY a.processed_time DESC) = 1
)
"""

TOTALS = (
    MESSAGES
    + """
SELECT job, window_start, window_end, COUNT(*) AS messages, COUNTIF(status = 'ok') AS ok,
  COUNTIF(status != 'ok') AS dead_letters, COUNTIF(truncated) AS truncated,
  APPROX_QUANTILES(score, 100)[OFFSET(10)] AS score_p10, APPROX_QUANTILES(score, 100)[OFFSET(50)] AS score_p50,
  APPROX_QUANTILES(score, 100)[OFFSET(90)] AS score_p90,
  APPROX_QUANTILES(total_ms, 100)[OFFSET(50)] AS latency_p50_ms,
  APPROX_QUANTILES(total_ms, 100)[OFFSET(95)] AS latency_p95_ms,
  APPROX_QUANTILES(total_ms, 100)[OFFSET(99)] AS latency_p99_ms,
  APPROX_QUANTILES(input_bytes, 100)[OFFSET(50)] AS input_bytes_p50,
  APPROX_QUANTILES(input_bytes, 100)[OFFSET(95)] AS input_bytes_p95
FROM messages GROUP BY job, window_start, window_end
"""
)

COUNTS = (
    MESSAGES
    + """
SELECT job, window_start, window_end, 'labels' AS distribution, label AS name, COUNT(*) AS messages
FROM messages WHERE label IS NOT NULL GROUP BY job, window_start, window_end, name
UNION ALL
SELECT job, window_start, window_end, 'score_bins' AS distribution,
  CAST(CAST(LEAST(9, FLOOR(score * 10)) AS INT64) AS STRING) AS name, COUNT(*) AS messages
FROM messages WHERE score IS NOT NULL GROUP BY job, window_start, window_end, name
UNION ALL
SELECT job, window_start, window_end, 'input_bytes_bins' AS distribution,
  CAST(CAST(FLOOR(2 * LOG(GREATEST(input_bytes, 1), 2)) AS INT64) AS STRING) AS name, COUNT(*) AS messages
FROM messages GROUP BY job, window_start, window_end, name
"""
)

BEFORE = """
SELECT job, window_start, window_end, labels, score_bins, input_bytes_bins FROM `{summary}`
WHERE window_start < @last AND window_start >= @first
"""
