"""gRPC around the methods: parsing, and errors as status codes. The protos are the client library's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.pubsub_v1 import types

from pipeline.emulators.pubsub.errors import InvalidArgument, Refused
from pipeline.emulators.pubsub.methods import Method
from pipeline.emulators.pubsub.service import Context, Service


def handlers(service: Service, methods: Mapping[str, Method]) -> list[grpc.GenericRpcHandler]:
    """The gRPC handlers of all services; any other method is UNIMPLEMENTED."""

    def unary(method: Method) -> grpc.RpcMethodHandler:
        async def handle(raw: bytes, context: Context) -> bytes:
            try:
                response = await method.handle(_parse(method.request, raw), context)
            except Refused as error:
                await context.abort(error.code, str(error))
            service.broker.commit()
            encoded: bytes = response.SerializeToString()
            return encoded

        return grpc.unary_unary_rpc_method_handler(handle)

    async def streaming_pull(raws: AsyncIterator[bytes], context: Context) -> None:
        request_class = types.StreamingPullRequest.pb()
        try:
            await service.streaming_pull((_parse(request_class, raw) async for raw in raws), context)
        except Refused as error:
            await context.abort(error.code, str(error))

    by_service: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
    for name, method in methods.items():
        service_name, method_name = name.split("/")
        by_service.setdefault(service_name, {})[method_name] = unary(method)
    by_service["Subscriber"]["StreamingPull"] = grpc.stream_stream_rpc_method_handler(
        streaming_pull, response_serializer=types.StreamingPullResponse.pb().SerializeToString
    )
    served = [grpc.method_handlers_generic_handler(f"google.pubsub.v1.{name}", of) for name, of in by_service.items()]
    return [*served, _Missing()]


class _Missing(grpc.GenericRpcHandler):  # type: ignore[misc] # gRPC's own classes carry no types
    """Says of every other method that it is not here, and by name."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        message = f"The embedded Pub/Sub has no {handler_call_details.method}."

        async def refuse(raw: bytes, context: Context) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

        return grpc.unary_unary_rpc_method_handler(refuse)


def _parse(request_class: Any, raw: bytes) -> Any:
    """Here and not in gRPC's hands, which would call a request that no one can read an internal error."""
    try:
        return request_class.FromString(raw)
    except DecodeError as error:
        raise InvalidArgument(f"The request is not a valid {request_class.DESCRIPTOR.full_name}: {error}.") from error
