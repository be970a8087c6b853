-- Each message once for every job and model revision, as it ended last: after a crash it may have several rows.
SELECT *
FROM `${table}`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY job, message_id, model, model_revision ORDER BY processed_time DESC) = 1
