# Who may do what. Two roles are granted on the project, as Dataflow has them only there; all others on one resource.

# Runs the launcher VM and the workers.
resource "google_service_account" "worker" {
  account_id   = "${var.name}-worker"
  display_name = "Workers of ${var.name}"
  depends_on   = [google_project_service.needed]
}

# Asks for the job: a person or CI acts as it, and it can read no message.
resource "google_service_account" "launcher" {
  account_id   = "${var.name}-launcher"
  display_name = "Launches ${var.name}"
  depends_on   = [google_project_service.needed]
}

locals {
  worker   = google_service_account.worker.member
  launcher = google_service_account.launcher.member
  # What resource.name begins with in a condition on the bucket's objects; listing needs a right on the bucket itself.
  objects = "projects/_/buckets/${google_storage_bucket.job.name}/objects"
}

# A worker takes work items from the Dataflow service; granted on projects only.
resource "google_project_iam_member" "worker" {
  project = var.project
  role    = "roles/dataflow.worker"
  member  = local.worker
}

# The launcher creates, updates and drains jobs; granted on projects only.
resource "google_project_iam_member" "launcher" {
  #checkov:skip=CKV_GCP_49:The role lets nobody act as another account; who may is said for each account below.
  project = var.project
  role    = "roles/dataflow.developer"
  member  = local.launcher
}

# The launcher starts VMs that run as the worker account.
resource "google_service_account_iam_member" "launcher_as_worker" {
  service_account_id = google_service_account.worker.name
  role               = "roles/iam.serviceAccountUser"
  member             = local.launcher
}

# People act as the launcher, without a key of it.
resource "google_service_account_iam_member" "people_as_launcher" {
  for_each           = toset(var.launch_members)
  service_account_id = google_service_account.launcher.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.key
}

# Pull, acknowledge and renew the leases of the one input.
resource "google_pubsub_subscription_iam_member" "worker_reads" {
  subscription = google_pubsub_subscription.input.id
  role         = "roles/pubsub.subscriber"
  member       = local.worker
}

# See the input's topic and settings: Dataflow asks for them when the job starts, and so does the job's own check.
resource "google_pubsub_subscription_iam_member" "worker_sees_input" {
  subscription = google_pubsub_subscription.input.id
  role         = "roles/pubsub.viewer"
  member       = local.worker
}

# Publish results, dead letters and summaries, and nothing anywhere else.
resource "google_pubsub_topic_iam_member" "worker_publishes" {
  for_each = local.written
  topic    = google_pubsub_topic.this[each.key].id
  role     = "roles/pubsub.publisher"
  member   = local.worker
}

# See that the topics exist before the job starts, and which schema the input's has.
resource "google_pubsub_topic_iam_member" "worker_sees_topics" {
  for_each = setunion(local.written, var.input_schema == null ? [] : ["input"])
  topic    = google_pubsub_topic.this[each.key].id
  role     = "roles/pubsub.viewer"
  member   = local.worker
}

# Read the definitions of the one schema that the input's messages name.
resource "google_project_iam_custom_role" "schema_reader" {
  role_id     = "${replace(var.name, "-", "_")}_schema_reader"
  title       = "Reads the schema of ${var.name}"
  permissions = ["pubsub.schemas.get"]
  depends_on  = [google_project_service.needed]
}

# Of that schema alone.
resource "google_pubsub_schema_iam_member" "worker_reads_schema" {
  for_each = { for schema in var.input_schema[*] : "input" => schema.name }
  schema   = each.value
  role     = google_project_iam_custom_role.schema_reader.name
  member   = local.worker
}

# What inserting takes, and no more: tables.getData would read the rows, tables.delete and tables.update are in dataEditor.
# https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll#iam-permissions
resource "google_project_iam_custom_role" "audit_writer" {
  role_id     = "${replace(var.name, "-", "_")}_audit_writer"
  title       = "Inserts audit rows of ${var.name}"
  permissions = ["bigquery.tables.get", "bigquery.tables.updateData"]
  depends_on  = [google_project_service.needed]
}

# The third that inserting asks for is of the dataset: to see that it is there.
resource "google_project_iam_custom_role" "dataset_viewer" {
  role_id     = "${replace(var.name, "-", "_")}_dataset_viewer"
  title       = "Sees the dataset of ${var.name}"
  permissions = ["bigquery.datasets.get"]
  depends_on  = [google_project_service.needed]
}

# Insert audit rows, and see the table's schema; neither read, change nor delete what is there.
resource "google_bigquery_table_iam_member" "worker_audits" {
  dataset_id = google_bigquery_table.audit.dataset_id
  table_id   = google_bigquery_table.audit.table_id
  role       = google_project_iam_custom_role.audit_writer.name
  member     = local.worker
}

# Insert summaries, and see their table.
resource "google_bigquery_table_iam_member" "worker_sums_up" {
  for_each   = google_bigquery_table.summary
  dataset_id = each.value.dataset_id
  table_id   = each.value.table_id
  role       = google_project_iam_custom_role.audit_writer.name
  member     = local.worker
}

# See the dataset that the tables are in.
resource "google_bigquery_dataset_iam_member" "worker_sees_dataset" {
  dataset_id = google_bigquery_dataset.audit.dataset_id
  role       = google_project_iam_custom_role.dataset_viewer.name
  member     = local.worker
}

# Stage the graph and write temporary files: nothing else of the bucket, so that no worker can rewrite a template.
resource "google_storage_bucket_iam_member" "worker_stages" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.objectUser"
  member = local.worker
  condition {
    title      = "staging and temp"
    expression = "resource.name.startsWith('${local.objects}/staging/') || resource.name.startsWith('${local.objects}/temp/')"
  }
}

# Read the template's container spec, and models that are kept in this bucket.
resource "google_storage_bucket_iam_member" "worker_reads_models" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.objectViewer"
  member = local.worker
  condition {
    title      = "templates and models"
    expression = "resource.name.startsWith('${local.objects}/templates/') || resource.name.startsWith('${local.objects}/models/')"
  }
}

# See that the staging bucket exists, which Beam asks before it uploads.
resource "google_storage_bucket_iam_member" "worker_sees_bucket" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.legacyBucketReader"
  member = local.worker
}

# Read the template's container spec.
resource "google_storage_bucket_iam_member" "launcher_reads_template" {
  bucket = google_storage_bucket.job.name
  role   = "roles/storage.objectViewer"
  member = local.launcher
  condition {
    title      = "templates"
    expression = "resource.name.startsWith('${local.objects}/templates/')"
  }
}

# Workers start containers of the image.
resource "google_artifact_registry_repository_iam_member" "worker_pulls" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = local.worker
}

# Read the Hugging Face token when a worker starts.
resource "google_secret_manager_secret_iam_member" "worker_reads_token" {
  for_each  = { for secret in google_secret_manager_secret.hf_token : "hf_token" => secret.id }
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = local.worker
}

# Ask the one Vertex AI endpoint for predictions, and see what runs behind it.
# https://cloud.google.com/vertex-ai/docs/general/endpoint-access-control
resource "google_vertex_ai_endpoint_iam_member" "worker_predicts" {
  provider = google-beta
  for_each = { for endpoint in var.vertex_endpoint[*] : "endpoint" => split("/", endpoint) }
  project  = each.value[1]
  location = each.value[3]
  endpoint = each.value[5]
  role     = "roles/aiplatform.user"
  member   = local.worker
}

# Call the one Cloud Run service.
resource "google_cloud_run_v2_service_iam_member" "worker_invokes" {
  for_each = { for service in var.cloud_run_service[*] : "service" => split("/", service) }
  project  = each.value[1]
  location = each.value[3]
  name     = each.value[5]
  role     = "roles/run.invoker"
  member   = local.worker
}

# On a Shared VPC it is Dataflow's own account that puts workers into the host project's subnetwork; in a network of this
# project it may already. https://cloud.google.com/dataflow/docs/guides/specifying-networks#shared
resource "google_compute_subnetwork_iam_member" "dataflow_uses_subnetwork" {
  for_each   = { for subnetwork in var.shared_subnetwork[*] : "shared" => split("/", subnetwork) }
  project    = each.value[1]
  region     = each.value[3]
  subnetwork = each.value[5]
  role       = "roles/compute.networkUser"
  member     = local.agent.dataflow
}
