-- Whether this very input was seen, by the hash that `sha256sum FILE` gives, and what was said of it:
SELECT message_id, processed_time, status, model, model_revision, prediction
FROM `my-project.inference.audit_latest`
WHERE input_sha256 = @input_sha256
ORDER BY processed_time
