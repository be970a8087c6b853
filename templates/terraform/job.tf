locals {
  # Every flag that names a resource; the others are in var.job.flags.
  resource_flags = merge(
    {
      input_subscription = google_pubsub_subscription.input.id
      output_topic       = google_pubsub_topic.this["output"].id
      dead_letter_topic  = google_pubsub_topic.this["dead-letter"].id
      audit_table        = "${var.project}:${google_bigquery_table.audit.dataset_id}.${google_bigquery_table.audit.table_id}"
    },
    { for secret in google_secret_manager_secret.hf_token : "hf_token_source" => "secret:${secret.id}/versions/latest" },
  )
}

resource "google_dataflow_flex_template_job" "inference" {
  provider                = google-beta
  for_each                = var.job == null ? {} : { inference = var.job }
  name                    = var.name
  region                  = var.region
  container_spec_gcs_path = each.value.template
  parameters              = merge(each.value.flags, local.resource_flags)
  sdk_container_image     = each.value.image
  service_account_email   = google_service_account.worker.email
  staging_location        = "gs://${google_storage_bucket.job.name}/staging"
  temp_location           = "gs://${google_storage_bucket.job.name}/temp"
  enable_streaming_engine = true
  machine_type            = each.value.machine_type
  max_workers             = each.value.max_workers
  kms_key_name            = var.kms_key
  subnetwork              = one([for subnetwork in google_compute_subnetwork.workers : subnetwork.self_link])
  ip_configuration        = var.private_network ? "WORKER_IP_PRIVATE" : null
  additional_pipeline_options = [
    for service in concat(
      each.value.accelerator == null ? [] : ["worker_accelerator=type:${each.value.accelerator};count:1;install-nvidia-driver"],
      each.value.additional_services,
    ) : "dataflow_service_options=${service}"
  ]
  # What is in work is finished, and nothing is lost, when Terraform stops or replaces the job.
  on_delete                    = "drain"
  skip_wait_on_job_termination = false

  depends_on = [
    google_project_iam_member.worker,
    google_pubsub_subscription_iam_member.worker_reads,
    google_pubsub_subscription_iam_member.worker_sees_input,
    google_pubsub_topic_iam_member.worker_publishes,
    google_pubsub_topic_iam_member.worker_sees_topics,
    google_bigquery_table_iam_member.worker_audits,
    google_storage_bucket_iam_member.worker_stages,
    google_storage_bucket_iam_member.worker_sees_bucket,
    google_artifact_registry_repository_iam_member.worker_pulls,
    google_secret_manager_secret_iam_member.worker_reads_token,
    google_compute_subnetwork_iam_member.worker_uses_subnetwork,
  ]
}
