-- Disagreements to look at, the latest first:
SELECT
  processed_time, message_id, variant, JSON_VALUE(prediction, '$[0].label') AS served,
  JSON_VALUE(shadow, '$.variant') AS by_shadow, JSON_VALUE(shadow, '$.prediction[0].label') AS would_have_said
FROM `my-project.inference.audit_latest`
WHERE JSON_VALUE(shadow, '$.agrees') = 'false' AND processed_time >= @since AND processed_time < @until
ORDER BY processed_time DESC
LIMIT 100
