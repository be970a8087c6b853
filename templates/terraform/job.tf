locals {
  # Every flag that names a resource; the others are in var.job.flags.
  resource_flags = merge(
    {
      input_subscription = google_pubsub_subscription.input.id
      output_topic       = google_pubsub_topic.this["output"].id
      dead_letter_topic  = google_pubsub_topic.this["dead-letter"].id
      audit_table        = "${var.project}:${google_bigquery_table.audit.dataset_id}.${google_bigquery_table.audit.table_id}"
    },
    { for table in google_bigquery_table.summary : "summary_table" => "${var.project}:${table.dataset_id}.${table.table_id}" },
    { for name in local.written : "summary_topic" => google_pubsub_topic.this[name].id if name == "summary" },
    { for secret in google_secret_manager_secret.hf_token : "hf_token_source" => "secret:${secret.id}/versions/latest" },
  )

  # Flags whose presence adds or removes steps: there Dataflow finds no home for the running job's state, and an update
  # is refused.
  graph_flags = ["max_batch_latency_ms", "summary_table", "summary_topic"]

  # Raised by a release whose steps differ from those of the one before (tests/cases/step_names.txt): 2 has Spread.
  graph_version = 2
}

# Changes where the graph does, and with it the job is drained and started anew rather than updated in place.
resource "terraform_data" "graph" {
  for_each = var.job == null ? {} : { inference = var.job }
  input = {
    flags      = concat([for flag in local.graph_flags : flag if contains(keys(each.value.flags), flag)], var.summaries ? ["summaries"] : [])
    version    = local.graph_version
    mode       = each.value.mode
    generation = each.value.generation
  }
}

# A change of name, region, project, worker counts or the streaming engine drains the job and starts a new one; any other
# is an update of the running one, which may fail where the graph does not fit.
# https://github.com/hashicorp/terraform-provider-google-beta/blob/main/google-beta/services/dataflow/resource_dataflow_flex_template_job.go
resource "google_dataflow_flex_template_job" "inference" {
  provider                = google-beta
  for_each                = var.job == null ? {} : { inference = var.job }
  name                    = var.name
  region                  = var.region
  container_spec_gcs_path = each.value.template
  parameters              = merge(each.value.flags, local.resource_flags)
  transform_name_mapping  = jsondecode(file("${path.module}/../flex/transform_name_mapping.json"))
  sdk_container_image     = each.value.image
  service_account_email   = google_service_account.worker.email
  staging_location        = "gs://${google_storage_bucket.job.name}/staging"
  temp_location           = "gs://${google_storage_bucket.job.name}/temp"
  enable_streaming_engine = true
  additional_experiments  = ["streaming_mode_${each.value.mode}"]
  machine_type            = each.value.machine_type
  launcher_machine_type   = each.value.launcher_machine_type
  max_workers             = each.value.max_workers
  kms_key_name            = var.kms_key
  subnetwork              = local.subnetwork
  ip_configuration        = local.subnetwork == null ? null : "WORKER_IP_PRIVATE"
  additional_pipeline_options = concat(
    ["disk_size_gb=${each.value.disk_gb}"],
    each.value.beam_options,
    [for service in concat(
      each.value.accelerator == null ? [] : ["worker_accelerator=type:${each.value.accelerator};count:1;install-nvidia-driver:${each.value.driver}"],
      [for count in each.value.min_workers[*] : "min_num_workers=${count}"],
      [for hint in each.value.utilization[*] : "worker_utilization_hint=${hint}"],
      each.value.additional_services,
    ) : "dataflow_service_options=${service}"],
  )
  # What is in work is finished, and nothing is lost, when Terraform stops or replaces the job.
  on_delete                    = "drain"
  skip_wait_on_job_termination = false

  lifecycle {
    replace_triggered_by = [terraform_data.graph]
  }
  depends_on = [
    google_project_iam_member.worker,
    google_pubsub_subscription_iam_member.worker_reads,
    google_pubsub_subscription_iam_member.worker_sees_input,
    google_pubsub_topic_iam_member.worker_publishes,
    google_pubsub_topic_iam_member.worker_sees_topics,
    google_pubsub_schema_iam_member.worker_reads_schema,
    google_bigquery_table_iam_member.worker_audits,
    google_bigquery_table_iam_member.worker_sums_up,
    google_bigquery_dataset_iam_member.worker_sees_dataset,
    google_storage_bucket_iam_member.worker_stages,
    google_storage_bucket_iam_member.worker_reads_models,
    google_storage_bucket_iam_member.worker_sees_bucket,
    google_artifact_registry_repository_iam_member.worker_pulls,
    google_secret_manager_secret_iam_member.worker_reads_token,
    google_vertex_ai_endpoint_iam_member.worker_predicts,
    google_cloud_run_v2_service_iam_member.worker_invokes,
    google_compute_subnetwork_iam_member.dataflow_uses_subnetwork,
  ]
}
