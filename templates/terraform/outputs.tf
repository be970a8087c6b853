output "deploy_env" {
  description = "What templates/deploy.sh reads, ready for eval."
  value = join("\n", concat(
    [
      "export PROJECT=${var.project} REGION=${var.region} NAME=${var.name}",
      "export BUCKET=${google_storage_bucket.job.name} REPOSITORY=${google_artifact_registry_repository.images.name}",
      "export WORKER_SERVICE_ACCOUNT=${google_service_account.worker.email}",
      "export BUILD_SERVICE_ACCOUNT=${google_service_account.builder.email}",
    ],
    [for subnetwork in local.subnetwork[*] : "export SUBNETWORK=${subnetwork}"],
    [for key in var.kms_key[*] : "export KMS_KEY=${key}"],
  ))
}

output "flags" {
  description = "The flags of python -m pipeline.main and pipeline.doctor that name resources."
  value       = join(" ", [for name, value in local.resource_flags : "--${name}=${value}"])
}

output "launcher_service_account" {
  description = "The account to act as: gcloud config set auth/impersonate_service_account."
  value       = google_service_account.launcher.email
}

output "workload_identity_provider" {
  description = "For google-github-actions/auth; null without github_repository."
  value       = one([for provider in google_iam_workload_identity_pool_provider.github : provider.name])
}
