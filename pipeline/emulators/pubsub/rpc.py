"""gRPC around a :class:`Service`: parsing, and errors as status codes. The protos are the client library's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.api_core.exceptions import GoogleAPICallError, InvalidArgument
from google.protobuf.message import DecodeError, Message
from google.pubsub_v1 import types

from pipeline.emulators.pubsub.service import Context, Service


def handlers(service: Service) -> list[grpc.GenericRpcHandler]:
    """The gRPC handlers of both services; any other method is UNIMPLEMENTED."""

    def unary(request: Any, method: Callable[[Any], Message]) -> grpc.RpcMethodHandler:
        async def answer(request: Any, context: Context) -> Message:
            return method(request)

        return waiting(request, answer)

    def waiting(request: Any, method: Callable[[Any, Context], Awaitable[Message]]) -> grpc.RpcMethodHandler:
        async def handle(raw: bytes, context: Context) -> bytes:
            try:
                response = await method(_parse(request.pb(), raw), context)
            except GoogleAPICallError as error:
                return await context.abort(error.grpc_status_code, error.message)
            service.broker.commit()
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    async def streaming_pull(raws: AsyncIterator[bytes], context: Context) -> None:
        request_class = types.StreamingPullRequest.pb()
        try:
            await service.streaming_pull((_parse(request_class, raw) async for raw in raws), context)
        except GoogleAPICallError as error:
            await context.abort(error.grpc_status_code, error.message)

    publisher = {
        "CreateTopic": unary(types.Topic, service.create_topic),
        "GetTopic": unary(types.GetTopicRequest, service.get_topic),
        "UpdateTopic": unary(types.UpdateTopicRequest, service.update_topic),
        "DeleteTopic": unary(types.DeleteTopicRequest, service.delete_topic),
        "ListTopics": unary(types.ListTopicsRequest, service.list_topics),
        "ListTopicSubscriptions": unary(types.ListTopicSubscriptionsRequest, service.list_topic_subscriptions),
        "DetachSubscription": unary(types.DetachSubscriptionRequest, service.detach_subscription),
        "Publish": unary(types.PublishRequest, service.publish),
    }
    subscriber = {
        "CreateSubscription": unary(types.Subscription, service.create_subscription),
        "GetSubscription": unary(types.GetSubscriptionRequest, service.get_subscription),
        "UpdateSubscription": unary(types.UpdateSubscriptionRequest, service.update_subscription),
        "DeleteSubscription": unary(types.DeleteSubscriptionRequest, service.delete_subscription),
        "ListSubscriptions": unary(types.ListSubscriptionsRequest, service.list_subscriptions),
        "Seek": unary(types.SeekRequest, service.seek),
        "Acknowledge": unary(types.AcknowledgeRequest, service.acknowledge),
        "ModifyAckDeadline": unary(types.ModifyAckDeadlineRequest, service.modify_ack_deadline),
        "Pull": waiting(types.PullRequest, service.pull),
        "StreamingPull": grpc.stream_stream_rpc_method_handler(
            streaming_pull, response_serializer=types.StreamingPullResponse.pb().SerializeToString
        ),
    }
    return [
        grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", publisher),
        grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", subscriber),
        _Missing(),
    ]


class _Missing(grpc.GenericRpcHandler):
    """Says of every other method that it is not here, and by name."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        message = f"The embedded Pub/Sub has no {handler_call_details.method}."

        async def refuse(raw: bytes, context: Context) -> bytes:
            return await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

        return grpc.unary_unary_rpc_method_handler(refuse)


def _parse(request_class: Any, raw: bytes) -> Any:
    """Here and not in gRPC's hands, which would call a request that no one can read an internal error."""
    try:
        return request_class.FromString(raw)
    except DecodeError as error:
        raise InvalidArgument(f"The request is not a valid {request_class.DESCRIPTOR.full_name}: {error}.") from error
