-- What became of the dead letters that were replayed: a replay is a new message, whose attribute
-- `dead_letter_first_message_id` is the id under which it failed first, and `dead_letter_attempt` how often it had failed.
SELECT
  died.message_id, died.stage, died.error_type,
  again.message_id AS replayed_as, JSON_VALUE(again.attributes, '$.dead_letter_attempt') AS attempt, again.status,
  again.processed_time
FROM `my-project.inference.audit_latest` AS died
JOIN `my-project.inference.audit_latest` AS again
  ON JSON_VALUE(again.attributes, '$.dead_letter_first_message_id') = died.message_id AND again.job = died.job
WHERE died.status = 'dead_letter'
ORDER BY died.processed_time, again.processed_time
