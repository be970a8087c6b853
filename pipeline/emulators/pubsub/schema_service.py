"""The methods of SchemaService: protos in, protos out, in front of :class:`Schemas`."""

from __future__ import annotations

from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from pipeline.emulators.pubsub.broker import Broker
from pipeline.emulators.pubsub.definitions import check_message, parse
from pipeline.emulators.pubsub.paging import page
from pipeline.emulators.pubsub.schemas import SchemaConfig


class SchemaService:
    """One method a method of the service."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.schemas = broker.schemas

    def create_schema(self, request: Any) -> Any:
        return self.schemas.create(f"{request.parent}/schemas/{request.schema_id}", request.schema)

    def get_schema(self, request: Any) -> Any:
        return _shown(self.schemas.get(request.name), request.view or types.SchemaView.FULL)

    def list_schemas(self, request: Any) -> Any:
        names, token = page(self.schemas.by_name, request, f"{request.parent}/")
        shown = [_shown(self.schemas.get(name), request.view) for name in names]
        return types.ListSchemasResponse.pb()(schemas=shown, next_page_token=token)

    def list_schema_revisions(self, request: Any) -> Any:
        """Newest first, as the service has it; never more than fit a page."""
        revisions = self.schemas.revisions(request.name)[::-1]
        shown = [_shown(schema, request.view) for schema in revisions]
        return types.ListSchemaRevisionsResponse.pb()(schemas=shown)

    def commit_schema(self, request: Any) -> Any:
        return self.schemas.commit(request.name, request.schema)

    def rollback_schema(self, request: Any) -> Any:
        return self.schemas.rollback(request.name, request.revision_id)

    def delete_schema_revision(self, request: Any) -> Any:
        return self.schemas.delete_revision(request.name)

    def delete_schema(self, request: Any) -> Any:
        self.broker.delete_schema(request.name)
        return Empty()

    def validate_schema(self, request: Any) -> Any:
        parse(request.schema)
        return types.ValidateSchemaResponse.pb()()

    def validate_message(self, request: Any) -> Any:
        if request.WhichOneof("schema_spec") == "name":
            definition = self.schemas.definition(self.schemas.get(request.name))
        else:
            definition = parse(request.schema)
        check_message(definition, request.message, request.encoding)
        return types.ValidateMessageResponse.pb()()


def _shown(schema: Any, view: int) -> Any:
    """The schema, with its definition only in the full view."""
    if view == types.SchemaView.FULL:
        return schema
    basic = SchemaConfig()
    basic.CopyFrom(schema)
    basic.ClearField("definition")
    return basic
