resource "google_storage_bucket" "job" {
  #checkov:skip=CKV_GCP_62:Access logs would need a second bucket; Cloud Audit Logs tell who read what.
  #checkov:skip=CKV_GCP_78:Staged files are made anew by every launch; versions of them would only cost.
  name                        = "${var.project}-${var.name}"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.throwaway
  # Dataflow warns of soft-deleted temporary files, which are paid for.
  soft_delete_policy {
    retention_duration_seconds = 0
  }
  lifecycle_rule {
    condition {
      age            = 30
      matches_prefix = ["temp/", "build/"]
    }
    action {
      type = "Delete"
    }
  }
  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:Encrypted with var.kms_key where one is given; Google's own key is the documented default.
  repository_id = var.name
  location      = var.region
  format        = "DOCKER"
  kms_key_name  = var.kms_key
  docker_config {
    immutable_tags = true
  }
  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

resource "google_secret_manager_secret" "hf_token" {
  count     = var.hf_token ? 1 : 0
  secret_id = "${var.name}-hf-token"
  replication {
    user_managed {
      replicas {
        location = var.region
        dynamic "customer_managed_encryption" {
          for_each = var.kms_key[*]
          content {
            kms_key_name = customer_managed_encryption.value
          }
        }
      }
    }
  }
  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

# Services encrypt with the key themselves; none of our own accounts may use it.
resource "google_kms_crypto_key_iam_member" "agents" {
  for_each      = var.kms_key == null ? {} : merge(local.agent, { bigquery = local.bigquery_agent })
  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value
}
