# GitHub Actions builds and launches through Workload Identity Federation: short-lived tokens, no key file anywhere.

locals {
  ci = var.github_repository == null ? {} : { github = var.github_repository }
  # Who submits builds: people, and CI, which acts as the builder itself.
  builders = merge(
    { for member in var.build_members : member => member },
    { for name in keys(local.ci) : name => google_service_account.builder.member },
  )
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
  # Without this any repository of GitHub could ask for a token here. By number, as a name can be given up and taken by
  # somebody else. The events are those that run what main itself holds; pull_request_target, which anybody can cause from
  # a fork and which also has main as its ref, is not among them.
  # https://docs.github.com/en/actions/reference/security/oidc
  attribute_condition = join(" && ", [
    "assertion.repository_id == '${each.value.id}'",
    "assertion.repository_owner_id == '${each.value.owner_id}'",
    "assertion.ref == 'refs/heads/main'",
    "assertion.event_name in ['push', 'schedule', 'workflow_dispatch']",
  ])
  attribute_mapping = {
    "google.subject"          = "assertion.sub"
    "attribute.repository_id" = "assertion.repository_id"
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
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[each.key].name}/attribute.repository_id/${each.value.id}"
}

# And it builds as the builder.
resource "google_service_account_iam_member" "ci_as_builder" {
  for_each           = local.ci
  service_account_id = google_service_account.builder.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[each.key].name}/attribute.repository_id/${each.value.id}"
}

# Builds run as an account of their own, which cannot launch.
resource "google_service_account" "builder" {
  account_id   = "${var.name}-builder"
  display_name = "Builds the images of ${var.name}"
  depends_on   = [google_project_service.needed]
}

# Push images.
resource "google_artifact_registry_repository_iam_member" "builder_pushes" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.builder.member
}

# Read the uploaded sources and write the build's log, both below build/.
resource "google_storage_bucket_iam_member" "builder_builds" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.objectUser"
  member = google_service_account.builder.member
  condition {
    title      = "build"
    expression = "resource.name.startsWith('${local.objects}/build/')"
  }
}

# See that the bucket for its log exists, which Cloud Build asks before it starts.
resource "google_storage_bucket_iam_member" "builder_sees_bucket" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.legacyBucketReader"
  member = google_service_account.builder.member
}

# Who submits a build that runs as the builder must be allowed to act as it.
resource "google_service_account_iam_member" "submits_as_builder" {
  for_each           = local.builders
  service_account_id = google_service_account.builder.name
  role               = "roles/iam.serviceAccountUser"
  member             = each.value
}

# And uploads the sources, and writes the template's container spec once the image is pushed.
resource "google_storage_bucket_iam_member" "submits_build" {
  for_each = local.builders
  bucket   = google_storage_bucket.job.name
  role     = "roles/storage.objectUser"
  member   = each.value
  condition {
    title      = "sources and templates"
    expression = "resource.name.startsWith('${local.objects}/build/') || resource.name.startsWith('${local.objects}/templates/')"
  }
}

# gcloud asks whether the bucket is there before it uploads.
resource "google_storage_bucket_iam_member" "submitter_sees_bucket" {
  for_each = { for member in var.build_members : member => member }
  bucket   = google_storage_bucket.job.name
  role     = "roles/storage.legacyBucketReader"
  member   = each.value
}
