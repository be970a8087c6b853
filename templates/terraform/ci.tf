# GitHub Actions builds and launches through Workload Identity Federation: short-lived tokens, no key file anywhere.

locals {
  ci = toset(var.github_repository[*])
}

resource "google_iam_workload_identity_pool" "github" {
  for_each                  = local.ci
  workload_identity_pool_id = "${var.name}-github"
  depends_on                = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  #checkov:skip=CKV_GCP_125:The condition names one repository and one branch, from a variable that checkov does not follow.
  for_each                           = local.ci
  workload_identity_pool_id          = google_iam_workload_identity_pool.github[each.key].workload_identity_pool_id
  workload_identity_pool_provider_id = "actions"
  # Without this any repository of GitHub could ask for a token here.
  attribute_condition = "assertion.repository == '${each.key}' && assertion.ref == 'refs/heads/main'"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }
  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

# The one repository acts as the launcher.
resource "google_service_account_iam_member" "ci_as_launcher" {
  for_each           = local.ci
  service_account_id = google_service_account.launcher.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[each.key].name}/attribute.repository/${each.key}"
}

# And it builds as the builder.
resource "google_service_account_iam_member" "ci_as_builder" {
  for_each           = local.ci
  service_account_id = google_service_account.builder.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[each.key].name}/attribute.repository/${each.key}"
}

# Builds run as an account of their own, which cannot launch.
resource "google_service_account" "builder" {
  account_id   = "${var.name}-builder"
  display_name = "Builds the images of ${var.name}"
}

# Push images.
resource "google_artifact_registry_repository_iam_member" "builder_pushes" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.builder.member
}

# Read the uploaded sources; write the template's container spec and the build's log.
resource "google_storage_bucket_iam_member" "builder_writes_template" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.objectUser"
  member = google_service_account.builder.member
}

# See that the bucket for its log exists, which Cloud Build asks before it starts.
resource "google_storage_bucket_iam_member" "builder_sees_bucket" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.legacyBucketReader"
  member = google_service_account.builder.member
}
