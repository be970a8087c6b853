# The audit table, its columns from the project's own schema: python -m transforms.records > audit_schema.json

resource "google_bigquery_dataset" "audit" {
  dataset_id                 = replace(var.name, "-", "_")
  location                   = var.region
  delete_contents_on_destroy = var.throwaway
  dynamic "default_encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = default_encryption_configuration.value
    }
  }
  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

resource "google_bigquery_table" "audit" {
  #checkov:skip=CKV_GCP_121:Protected unless var.throwaway, whose default checkov does not follow through a negation.
  dataset_id          = google_bigquery_dataset.audit.dataset_id
  table_id            = "audit"
  schema              = file("${path.module}/audit_schema.json")
  clustering          = ["model", "status"]
  deletion_protection = !var.throwaway
  time_partitioning {
    type          = "DAY"
    field         = "processed_time"
    expiration_ms = var.audit_expiration_days == null ? null : var.audit_expiration_days * 86400000
  }
  dynamic "encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = encryption_configuration.value
    }
  }
}

# One row a message: after a crash the same message may have two.
resource "google_bigquery_table" "audit_latest" {
  #checkov:skip=CKV_GCP_80:A view holds no data to encrypt.
  #checkov:skip=CKV_GCP_121:A view holds no data to lose, and is made anew when its query changes.
  dataset_id          = google_bigquery_dataset.audit.dataset_id
  table_id            = "audit_latest"
  deletion_protection = false
  view {
    use_legacy_sql = false
    query = templatefile("${path.module}/../../pipeline/audit_latest.sql", {
      table = "${var.project}.${google_bigquery_dataset.audit.dataset_id}.${google_bigquery_table.audit.table_id}"
    })
  }
}
