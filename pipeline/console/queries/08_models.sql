-- Which model and revision answered, from when to when:
SELECT model, model_revision, dtype, device, COUNT(*) AS messages, MIN(processed_time) AS first, MAX(processed_time) AS last
FROM `my-project.inference.audit_latest`
WHERE status = 'ok'
GROUP BY model, model_revision, dtype, device
ORDER BY first
