-- Each variant's messages, errors and milliseconds, and those of its answers as a shadow:
SELECT
  variant, models_version, COUNT(*) AS messages, COUNTIF(status = 'dead_letter') AS dead_letters,
  APPROX_QUANTILES(inference_ms, 100)[OFFSET(50)] AS p50, APPROX_QUANTILES(inference_ms, 100)[OFFSET(99)] AS p99,
  APPROX_QUANTILES(CAST(JSON_VALUE(shadow, '$.inference_ms') AS FLOAT64), 100)[OFFSET(50)] AS shadow_p50,
  MIN(processed_time) AS first, MAX(processed_time) AS last
FROM `my-project.inference.audit_latest`
WHERE processed_time >= @since AND processed_time < @until
GROUP BY variant, models_version
ORDER BY first
