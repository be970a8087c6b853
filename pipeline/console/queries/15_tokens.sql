-- Tokens and their cost by model and day, with your own prices of a million tokens read and written:
SELECT
  DATE(processed_time) AS day, model, COUNT(*) AS messages, SUM(tokens) AS tokens_read, SUM(tokens_generated) AS tokens_written,
  ROUND((COALESCE(SUM(tokens), 0) * CAST(@price_read AS FLOAT64)
    + COALESCE(SUM(tokens_generated), 0) * CAST(@price_written AS FLOAT64)) / 1000000, 4) AS cost
FROM `my-project.inference.audit_latest`
WHERE status = 'ok' AND processed_time >= @since AND processed_time < @until
GROUP BY day, model
ORDER BY day, model
