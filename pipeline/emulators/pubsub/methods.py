"""The methods that this server has, by name: what gRPC and REST serve alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from google.pubsub_v1 import types

from pipeline.emulators.pubsub.broker import Broker
from pipeline.emulators.pubsub.schema_service import SchemaService
from pipeline.emulators.pubsub.service import Context, Service

Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]


class Method(NamedTuple):
    """``request`` is the class of the request's proto; ``handle`` answers with a proto or raises ``Refused``."""

    request: Any
    handle: Handler


def methods_of(service: Service) -> dict[str, Method]:
    """Every method but StreamingPull, by ``Service/Method``."""
    broker: Broker = service.broker
    schemas = SchemaService(broker)
    at_once: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "Publisher/CreateTopic": (types.Topic, service.create_topic),
        "Publisher/GetTopic": (types.GetTopicRequest, service.get_topic),
        "Publisher/UpdateTopic": (types.UpdateTopicRequest, service.update_topic),
        "Publisher/DeleteTopic": (types.DeleteTopicRequest, service.delete_topic),
        "Publisher/ListTopics": (types.ListTopicsRequest, service.list_topics),
        "Publisher/ListTopicSubscriptions": (types.ListTopicSubscriptionsRequest, service.list_topic_subscriptions),
        "Publisher/ListTopicSnapshots": (types.ListTopicSnapshotsRequest, service.list_topic_snapshots),
        "Publisher/DetachSubscription": (types.DetachSubscriptionRequest, service.detach_subscription),
        "Publisher/Publish": (types.PublishRequest, service.publish),
        "Subscriber/CreateSubscription": (types.Subscription, service.create_subscription),
        "Subscriber/GetSubscription": (types.GetSubscriptionRequest, service.get_subscription),
        "Subscriber/UpdateSubscription": (types.UpdateSubscriptionRequest, service.update_subscription),
        "Subscriber/DeleteSubscription": (types.DeleteSubscriptionRequest, service.delete_subscription),
        "Subscriber/ListSubscriptions": (types.ListSubscriptionsRequest, service.list_subscriptions),
        "Subscriber/ListSnapshots": (types.ListSnapshotsRequest, service.list_snapshots),
        "Subscriber/ModifyPushConfig": (types.ModifyPushConfigRequest, service.modify_push_config),
        "Subscriber/Seek": (types.SeekRequest, service.seek),
        "Subscriber/Acknowledge": (types.AcknowledgeRequest, service.acknowledge),
        "Subscriber/ModifyAckDeadline": (types.ModifyAckDeadlineRequest, service.modify_ack_deadline),
        "SchemaService/CreateSchema": (types.CreateSchemaRequest, schemas.create_schema),
        "SchemaService/GetSchema": (types.GetSchemaRequest, schemas.get_schema),
        "SchemaService/ListSchemas": (types.ListSchemasRequest, schemas.list_schemas),
        "SchemaService/ListSchemaRevisions": (types.ListSchemaRevisionsRequest, schemas.list_schema_revisions),
        "SchemaService/CommitSchema": (types.CommitSchemaRequest, schemas.commit_schema),
        "SchemaService/RollbackSchema": (types.RollbackSchemaRequest, schemas.rollback_schema),
        "SchemaService/DeleteSchemaRevision": (types.DeleteSchemaRevisionRequest, schemas.delete_schema_revision),
        "SchemaService/DeleteSchema": (types.DeleteSchemaRequest, schemas.delete_schema),
        "SchemaService/ValidateSchema": (types.ValidateSchemaRequest, schemas.validate_schema),
        "SchemaService/ValidateMessage": (types.ValidateMessageRequest, schemas.validate_message),
    }
    methods = {name: Method(request.pb(), _later(handle)) for name, (request, handle) in at_once.items()}
    return {**methods, "Subscriber/Pull": Method(types.PullRequest.pb(), service.pull)}


def _later(handle: Callable[[Any], Any]) -> Handler:
    async def answer(request: Any, context: Context) -> Any:
        return handle(request)

    return answer
