# Topics and subscriptions. What the job cannot process, a message that kills workers included, it sends itself to its
# dead-letter topic.

locals {
  # Topics that the job writes.
  written = toset(concat(["output", "dead-letter"], var.summaries ? ["summary"] : []))
}

resource "google_pubsub_topic" "this" {
  for_each                   = setunion(["input"], local.written)
  name                       = "${var.name}-${each.key}"
  kms_key_name               = var.kms_key
  message_retention_duration = "${var.retention_days * 86400}s"
  dynamic "schema_settings" {
    for_each = each.key == "input" ? var.input_schema[*] : []
    content {
      schema   = "projects/${var.project}/schemas/${schema_settings.value.name}"
      encoding = schema_settings.value.encoding
    }
  }
  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

resource "google_pubsub_subscription" "input" {
  name  = "${var.name}-input"
  topic = google_pubsub_topic.this["input"].id
  # Dataflow renews leases as long as it works on a message; ten minutes spare a slow start its redeliveries.
  ack_deadline_seconds       = 600
  message_retention_duration = "${var.retention_days * 86400}s"
  # Dataflow does not keep the order of ordering keys, and ordered delivery would only slow it down.
  enable_message_ordering = false
  # Dataflow deduplicates by message id itself, and cannot read subscriptions that do.
  enable_exactly_once_delivery = false
  # No dead_letter_policy and no retry_policy: Dataflow acknowledges once it has a message in its own durable state and
  # retries from there, so neither does what its name says, and both are documented as unsupported:
  # https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub#unsupported-features

  expiration_policy {
    ttl = "" # never: a quiet month must not delete the input
  }
}

# Somebody must hold what is published there, or it is gone: topics without a subscription keep nothing for anyone.
resource "google_pubsub_subscription" "watch" {
  for_each = local.written
  name     = "${var.name}-${each.key}"
  topic    = google_pubsub_topic.this[each.key].id
  # Of the summaries, what asks for attention: the table has all.
  filter                     = each.key == "summary" ? "attributes.shifted = \"true\"" : null
  ack_deadline_seconds       = 60
  message_retention_duration = "${var.retention_days * 86400}s"
  expiration_policy {
    ttl = ""
  }
}
