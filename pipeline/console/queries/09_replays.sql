-- What became of the dead letters that were replayed: a replay is a new message with the same bytes, whose attribute
-- `dead_letter_attempt` says how often it had failed before.
SELECT died.message_id, died.stage, died.error_type, again.message_id AS replayed_as, again.status, again.processed_time
FROM `my-project.inference.audit_latest` AS died
JOIN `my-project.inference.audit_latest` AS again
  ON again.input_sha256 = died.input_sha256
  AND JSON_VALUE(again.attributes, '$.dead_letter_attempt') IS NOT NULL
  AND again.processed_time > died.processed_time
WHERE died.status = 'dead_letter'
ORDER BY died.processed_time, again.processed_time
