-- Repeats after a crash, of the same message by the same job:
SELECT job, message_id, COUNT(*) AS times, MIN(processed_time) AS first, MAX(processed_time) AS last
FROM `my-project.inference.audit`
GROUP BY job, message_id
HAVING times > 1
ORDER BY last DESC
