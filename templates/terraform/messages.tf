# Topics and subscriptions. What the job itself cannot process goes to its dead-letter topic; the subscription's own
# dead-letter policy is for what never gets that far, such as a message that keeps killing workers.

resource "google_pubsub_topic" "this" {
  for_each                   = toset(["input", "output", "dead-letter", "undeliverable"])
  name                       = "${var.name}-${each.key}"
  kms_key_name               = var.kms_key
  message_retention_duration = "${var.retention_days * 86400}s"
  depends_on                 = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
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

  expiration_policy {
    ttl = "" # never: a quiet month must not delete the input
  }
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }
  dead_letter_policy {
    dead_letter_topic = google_pubsub_topic.this["undeliverable"].id
    # Dataflow fails and retries whole bundles, so innocent messages are delivered again too: the most that is allowed.
    max_delivery_attempts = 100
  }
}

# Somebody must hold what is published there, or it is gone: topics without a subscription keep nothing for anyone.
resource "google_pubsub_subscription" "watch" {
  for_each                   = toset(["output", "dead-letter", "undeliverable"])
  name                       = "${var.name}-${each.key}"
  topic                      = google_pubsub_topic.this[each.key].id
  ack_deadline_seconds       = 60
  message_retention_duration = "${var.retention_days * 86400}s"
  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub itself forwards what is undeliverable.
resource "google_pubsub_topic_iam_member" "forward" {
  topic  = google_pubsub_topic.this["undeliverable"].id
  role   = "roles/pubsub.publisher"
  member = local.agent.pubsub
}

# And acknowledges it in the input.
resource "google_pubsub_subscription_iam_member" "forward" {
  subscription = google_pubsub_subscription.input.id
  role         = "roles/pubsub.subscriber"
  member       = local.agent.pubsub
}
