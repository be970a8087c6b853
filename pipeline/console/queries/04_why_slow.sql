-- Why the 95th percentile grew, by hour:
SELECT
  hour, COUNT(*) AS messages, MIN(total_ms) AS p95,
  ROUND(AVG(waiting_ms)) AS waiting, ROUND(AVG(batch_ms)) AS batch, ROUND(AVG(inference_ms)) AS forward,
  ROUND(AVG(sink_ms)) AS sink
FROM (
  SELECT
    TIMESTAMP_TRUNC(processed_time, HOUR) AS hour, total_ms, waiting_ms, batch_ms, inference_ms, sink_ms,
    PERCENT_RANK() OVER (PARTITION BY TIMESTAMP_TRUNC(processed_time, HOUR) ORDER BY total_ms) AS place
  FROM `my-project.inference.audit_latest`
  WHERE status = 'ok' AND processed_time >= @since AND processed_time < @until
)
WHERE place >= 0.95
GROUP BY hour
ORDER BY hour
