"""A subscription's or topic's settings: what the service fills in, refuses, and lets be changed."""

from __future__ import annotations

from typing import Any

from google.pubsub_v1 import types

from pipeline.emulators.pubsub import limits
from pipeline.emulators.pubsub.errors import InvalidArgument, Unimplemented

_UNSUPPORTED = (
    "bigquery_config.drop_unknown_fields",
    "bigquery_config.use_table_schema",
    "bigquery_config.use_topic_schema",
    "bigtable_config",
    "cloud_storage_config",
    "enable_exactly_once_delivery",
    "ingestion_data_source_settings",
    "kms_key_name",
    "message_storage_policy",
    "message_transforms",
    "push_config",
    "tags",
)
#: What the service itself says of a topic or subscription; said by a client, it is not heard.
_OUTPUT_ONLY = ("analytics_hub_subscription_info", "detached", "satisfies_pzs", "topic_message_retention_duration")
#: What is not here can be asked for by an update too, and is refused as that.
_REFUSED = {path.split(".")[0] for path in _UNSUPPORTED}
MUTABLE_TOPIC = {*_REFUSED, "labels", "message_retention_duration", "schema_settings"}
MUTABLE_SUBSCRIPTION = {
    *_REFUSED,
    "ack_deadline_seconds",
    "dead_letter_policy",
    "expiration_policy",
    "labels",
    "message_retention_duration",
    "retain_acked_messages",
    "retry_policy",
}


def merged(current: Any, change: Any, mask: Any, mutable: set[str]) -> Any:
    """A copy of ``current`` with the fields named by ``mask`` taken from ``change``."""
    if not mask.paths:
        raise InvalidArgument("The update_mask in the request must be set, and must contain a non-empty paths list.")
    for path in mask.paths:
        if path.split(".")[0] not in mutable:
            raise InvalidArgument(f"Invalid update_mask provided in the request: the {path} field is not mutable.")
    updated = type(current)()
    updated.CopyFrom(current)
    try:
        mask.MergeMessage(change, updated, replace_message_field=True, replace_repeated_field=True)
    except ValueError as error:
        raise InvalidArgument(f"Invalid update_mask provided in the request: {error}.") from error
    return updated


def complete(config: Any) -> None:
    """Fills in what the service does when a request leaves it open."""
    config.push_config.SetInParent()
    config.ack_deadline_seconds = config.ack_deadline_seconds or 10
    if not config.HasField("message_retention_duration"):
        config.message_retention_duration.seconds = 7 * 24 * 3600
    if not config.HasField("expiration_policy"):
        config.expiration_policy.ttl.seconds = 31 * 24 * 3600
    if config.HasField("dead_letter_policy"):
        policy = config.dead_letter_policy
        policy.max_delivery_attempts = policy.max_delivery_attempts or 5
    if config.HasField("retry_policy"):
        if not config.retry_policy.HasField("minimum_backoff"):
            config.retry_policy.minimum_backoff.seconds = 10
        if not config.retry_policy.HasField("maximum_backoff"):
            config.retry_policy.maximum_backoff.seconds = 600
    config.state = types.Subscription.State.ACTIVE


def as_asked(config: Any) -> Any:
    """``config``, cleared of what only the service says: a client that sends back what it got changes nothing by it."""
    for name in _OUTPUT_ONLY:
        if name in config.DESCRIPTOR.fields_by_name:
            config.ClearField(name)
    return config


def check_supported(config: Any) -> None:
    """Refuses a topic or subscription that asks for what is not here, rather than silently not doing it."""
    for path in _UNSUPPORTED:
        value = config
        for name in path.split("."):
            value = getattr(value, name, None)
        if value.ByteSize() if hasattr(value, "ByteSize") else value:
            raise Unimplemented(f"The embedded Pub/Sub has no {path}; leave it out.")


def check_topic(config: Any) -> None:
    """A topic that the service, and this server, would take."""
    check_supported(config)
    if config.HasField("message_retention_duration"):
        seconds = config.message_retention_duration.seconds
        limits.check_range(seconds, limits.RETENTION_SECONDS, "message_retention_duration")


def check(config: Any) -> None:
    """A subscription that the service, and this server, would take."""
    check_supported(config)
    limits.check_range(config.ack_deadline_seconds, limits.ACK_DEADLINE_SECONDS, "ack_deadline_seconds")
    limits.check_range(
        config.message_retention_duration.seconds, limits.RETENTION_SECONDS, "message_retention_duration"
    )
    if config.HasField("dead_letter_policy"):
        policy = config.dead_letter_policy
        limits.check_range(policy.max_delivery_attempts, limits.DELIVERY_ATTEMPTS, "max_delivery_attempts")
    if config.HasField("retry_policy"):
        low, high = config.retry_policy.minimum_backoff.seconds, config.retry_policy.maximum_backoff.seconds
        limits.check_range(low, limits.BACKOFF_SECONDS, "minimum_backoff")
        limits.check_range(high, limits.BACKOFF_SECONDS, "maximum_backoff")
        if low > high:
            raise InvalidArgument(f"Invalid retry policy: minimum_backoff {low} s is over maximum_backoff {high} s.")
