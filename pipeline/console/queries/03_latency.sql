-- Latency percentiles by hour, in milliseconds from publish to processed:
SELECT
  TIMESTAMP_TRUNC(processed_time, HOUR) AS hour,
  APPROX_QUANTILES(total_ms, 100)[OFFSET(50)] AS p50,
  APPROX_QUANTILES(total_ms, 100)[OFFSET(95)] AS p95,
  APPROX_QUANTILES(total_ms, 100)[OFFSET(99)] AS p99
FROM `my-project.inference.audit_latest`
WHERE status = 'ok' AND processed_time >= @since AND processed_time < @until
GROUP BY hour
ORDER BY hour
