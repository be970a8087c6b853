-- Error rate by hour:
SELECT
  TIMESTAMP_TRUNC(processed_time, HOUR) AS hour,
  COUNT(*) AS messages,
  COUNTIF(status = 'dead_letter') AS dead_letters,
  ROUND(100 * COUNTIF(status = 'dead_letter') / COUNT(*), 2) AS percent
FROM `my-project.inference.audit_latest`
WHERE processed_time >= @since AND processed_time < @until
GROUP BY hour
ORDER BY hour
