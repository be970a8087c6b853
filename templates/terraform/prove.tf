# A second record of the input topic, which Pub/Sub writes itself and the job knows nothing of: beam-hf-inference audit prove.

resource "google_bigquery_table" "inputs" {
  #checkov:skip=CKV_GCP_121:A record of some days, which expires by itself.
  for_each            = var.prove ? { this = var.prove_days } : {}
  dataset_id          = google_bigquery_dataset.audit.dataset_id
  table_id            = "inputs"
  deletion_protection = false
  schema = jsonencode([
    { name = "subscription_name", type = "STRING" },
    { name = "message_id", type = "STRING" },
    { name = "publish_time", type = "TIMESTAMP" },
    { name = "data", type = "BYTES" },
    { name = "attributes", type = "JSON" },
  ])
  time_partitioning {
    type          = "DAY"
    field         = "publish_time"
    expiration_ms = each.value * 86400000
  }
  dynamic "encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = encryption_configuration.value
    }
  }
}

data "google_project" "prove" {
  for_each = google_bigquery_table.inputs
}

# Pub/Sub's own account writes the rows and sees the table; dataEditor, which its page names, could delete it too
# (https://cloud.google.com/pubsub/docs/create-bigquery-subscription).
resource "google_bigquery_table_iam_member" "prove" {
  for_each   = google_bigquery_table.inputs
  dataset_id = each.value.dataset_id
  table_id   = each.value.table_id
  role       = google_project_iam_custom_role.audit_writer.name
  member     = "serviceAccount:service-${data.google_project.prove[each.key].number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_subscription" "record" {
  for_each = google_bigquery_table.inputs
  name     = "${var.name}-record"
  topic    = google_pubsub_topic.this["input"].id
  bigquery_config {
    table          = "${var.project}.${each.value.dataset_id}.${each.value.table_id}"
    write_metadata = true
  }
  expiration_policy {
    ttl = ""
  }
  depends_on = [google_bigquery_table_iam_member.prove]
}
