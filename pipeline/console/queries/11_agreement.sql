-- How far a shadow agrees with what was served, by the label that was served:
SELECT
  variant, JSON_VALUE(shadow, '$.variant') AS by_shadow, JSON_VALUE(prediction, '$[0].label') AS label, COUNT(*) AS messages,
  COUNTIF(JSON_VALUE(shadow, '$.agrees') = 'true') AS agreed,
  ROUND(100 * COUNTIF(JSON_VALUE(shadow, '$.agrees') = 'true') / COUNT(*), 2) AS percent
FROM `my-project.inference.audit_latest`
WHERE shadow IS NOT NULL AND processed_time >= @since AND processed_time < @until
GROUP BY variant, by_shadow, label
ORDER BY messages DESC
