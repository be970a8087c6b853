"""Schemas and their revisions by name, and what they do to the messages of the topics that have one."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1 import types

from pipeline.emulators.pubsub import limits
from pipeline.emulators.pubsub.definitions import Definition, check_message, parse
from pipeline.emulators.pubsub.errors import FailedPrecondition, InvalidArgument, exists, missing
from pipeline.emulators.pubsub.journal import Journal

SchemaConfig = types.Schema.pb()

#: What a topic's schema reads after that schema was deleted.
DELETED_SCHEMA = "_deleted-schema_"
MAX_REVISIONS = 20


class Schemas:
    """Every schema, its revisions oldest first."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._definitions: dict[tuple[str, str], Definition] = {}
        self.by_name: dict[str, list[Any]] = {}
        kept = (SchemaConfig.FromString(config) for config in journal.configs("schemas"))
        for schema in sorted(kept, key=lambda schema: schema.revision_create_time.ToNanoseconds()):
            self.by_name.setdefault(schema.name, []).append(schema)

    def create(self, name: str, schema: Any) -> Any:
        limits.check_name(name, "schemas")
        if name in self.by_name:
            raise exists(name)
        definition = parse(schema)
        self.by_name[name] = []
        return self._add(name, schema, definition)

    def commit(self, name: str, schema: Any) -> Any:
        """Adds a revision."""
        newest = self.revisions(name)[-1]
        if schema.type_ != newest.type_:
            raise InvalidArgument("A revision must be of the same type as its schema.")
        if len(self.by_name[name]) >= MAX_REVISIONS:
            raise FailedPrecondition(f"The schema has {MAX_REVISIONS} revisions, which is the maximum; delete one.")
        return self._add(name, schema, parse(schema))

    def rollback(self, name: str, revision: str) -> Any:
        """Adds a revision that is as ``revision`` was."""
        return self.commit(name, self.get(f"{name}@{revision}"))

    def revisions(self, name: str) -> list[Any]:
        """Oldest first; never empty."""
        limits.check_name(name, "schemas")
        if name not in self.by_name:
            raise missing(name)
        return self.by_name[name]

    def get(self, name: str) -> Any:
        """The newest revision of ``NAME``, or the one of ``NAME@REVISION``."""
        name, _, revision = name.partition("@")
        found = [s for s in self.revisions(name) if revision in ("", s.revision_id)]
        if not found:
            raise missing(f"{name}@{revision}")
        return found[-1]

    def delete(self, name: str) -> None:
        for schema in self.revisions(name):
            self._forget(schema)
        del self.by_name[name]

    def delete_revision(self, name: str) -> Any:
        """Deletes ``NAME@REVISION``; a schema keeps at least one. Returns the newest left."""
        if "@" not in name:
            raise InvalidArgument(f"Invalid resource name given (name={name}): it names no revision (NAME@REVISION).")
        schema = self.get(name)
        revisions = self.by_name[schema.name]
        if len(revisions) == 1:
            raise FailedPrecondition("The only revision of a schema cannot be deleted; delete the schema.")
        revisions.remove(schema)
        self._forget(schema)
        return revisions[-1]

    def _add(self, name: str, given: Any, definition: Definition) -> Any:
        schema = SchemaConfig(name=name, definition=given.definition, revision_id=secrets.token_hex(4))
        schema.type_ = given.type_
        now = Timestamp()
        now.GetCurrentTime()
        schema.revision_create_time.CopyFrom(now)
        self.by_name[name].append(schema)
        self._definitions[name, schema.revision_id] = definition
        self._journal.save("schemas", _key(schema), schema.SerializeToString())
        return schema

    def _forget(self, schema: Any) -> None:
        self._definitions.pop((schema.name, schema.revision_id), None)
        self._journal.delete("schemas", _key(schema))

    def definition(self, schema: Any) -> Definition:
        """The parsed definition of a revision; after a restart it is parsed when it is first needed."""
        key = (schema.name, schema.revision_id)
        if key not in self._definitions:
            self._definitions[key] = parse(schema)
        return self._definitions[key]

    # Topics

    def check_settings(self, topic: Any) -> None:
        """The topic's schema, if it has one, is there, with an encoding."""
        settings = topic.schema_settings
        if not topic.HasField("schema_settings") or settings.schema == DELETED_SCHEMA:
            return
        if settings.encoding not in (types.Encoding.JSON, types.Encoding.BINARY):
            raise InvalidArgument("Invalid schema_settings: the encoding must be JSON or BINARY.")
        for revision in ("", settings.first_revision_id, settings.last_revision_id):
            self.get(f"{settings.schema}@{revision}" if revision else settings.schema)

    def stamp(self, topic: Any, messages: Iterable[Any]) -> None:
        """Says on every message which schema and revision it is of; one that is of none refuses them all."""
        settings = topic.schema_settings
        if settings.schema not in self.by_name:
            raise InvalidArgument(f"The schema of the topic was deleted (topic={topic.name}).")
        allowed = _between(self.by_name[settings.schema], settings.first_revision_id, settings.last_revision_id)
        encoding = types.Encoding(settings.encoding).name
        for message in messages:
            revision = self._fitting(allowed, message.data, settings.encoding)
            message.attributes["googclient_schemaname"] = settings.schema
            message.attributes["googclient_schemaencoding"] = encoding
            message.attributes["googclient_schemarevisionid"] = revision

    def _fitting(self, newest_first: list[Any], body: bytes, encoding: int) -> str:
        """The newest revision that ``body`` fits; raises what the newest of all says of it."""
        refused: InvalidArgument | None = None
        for schema in newest_first:
            try:
                check_message(self.definition(schema), body, encoding)
                return str(schema.revision_id)
            except InvalidArgument as error:
                refused = refused or error
        raise refused or InvalidArgument("Invalid schema_settings: no revision lies between the first and the last.")


def _between(revisions: list[Any], first: str, last: str) -> list[Any]:
    """The revisions that a topic allows, newest first; a bound that was deleted bounds nothing."""
    ids = [schema.revision_id for schema in revisions]
    start = ids.index(first) if first in ids else 0
    end = ids.index(last) + 1 if last in ids else len(ids)
    return revisions[start:end][::-1]


def _key(schema: Any) -> str:
    return f"{schema.name}@{schema.revision_id}"
