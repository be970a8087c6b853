-- Each message once: after a crash a message may have several rows, all with the same job and message_id.
SELECT *
FROM `${table}`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY job, message_id ORDER BY processed_time DESC) = 1
