# The table of window summaries, its columns from the project's own schema: python -m transforms.summary_row > summary_schema.json

resource "google_bigquery_table" "summary" {
  #checkov:skip=CKV_GCP_121:Protected unless var.throwaway, whose default checkov does not follow through a negation.
  for_each            = toset(var.summaries ? ["this"] : [])
  dataset_id          = google_bigquery_dataset.audit.dataset_id
  table_id            = "summary"
  schema              = file("${path.module}/summary_schema.json")
  deletion_protection = !var.throwaway
  time_partitioning {
    type  = "DAY"
    field = "window_start"
  }
  dynamic "encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = encryption_configuration.value
    }
  }
}
