# In a new project the provider cannot enable the first three by itself, as it asks them whether the project is there:
#   gcloud services enable cloudresourcemanager.googleapis.com serviceusage.googleapis.com iam.googleapis.com
locals {
  services = [
    "cloudresourcemanager", "serviceusage", "iam",
    "artifactregistry", "bigquery", "cloudbuild", "compute", "containeranalysis", "dataflow", "iamcredentials", "logging",
    "monitoring", "pubsub", "secretmanager", "storage", "sts",
  ]
}

resource "google_project_service" "needed" {
  for_each           = toset(local.services)
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}

data "google_project" "this" {
  depends_on = [google_project_service.needed]
}

locals {
  # Google's own accounts, which encrypt on the project's behalf and start its workers.
  agent = {
    for name, domain in {
      pubsub   = "gcp-sa-pubsub"
      storage  = "gs-project-accounts"
      dataflow = "dataflow-service-producer-prod"
      compute  = "compute-system"
      registry = "gcp-sa-artifactregistry"
      secrets  = "gcp-sa-secretmanager"
    } : name => "serviceAccount:service-${data.google_project.this.number}@${domain}.iam.gserviceaccount.com"
  }
  bigquery_agent = "serviceAccount:bq-${data.google_project.this.number}@bigquery-encryption.iam.gserviceaccount.com"
}
