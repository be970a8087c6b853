-- Everything about one customer, by an attribute of the messages:
SELECT message_id, processed_time, status, model_revision, prediction, error
FROM `my-project.inference.audit_latest`
WHERE JSON_VALUE(attributes, '$.customer') = @customer
ORDER BY processed_time
