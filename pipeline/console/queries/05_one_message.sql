-- Everything about one message, repeats included:
SELECT *
FROM `my-project.inference.audit`
WHERE message_id = @message_id
ORDER BY processed_time
