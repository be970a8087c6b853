-- What failed, most frequent first, with one message to look at:
SELECT stage, error_type, COUNT(*) AS messages, MAX(processed_time) AS last, ANY_VALUE(error) AS error, MIN(message_id) AS example
FROM `my-project.inference.audit_latest`
WHERE status = 'dead_letter' AND processed_time >= @since AND processed_time < @until
GROUP BY stage, error_type
ORDER BY messages DESC
