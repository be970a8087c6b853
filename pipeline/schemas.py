"""The definitions of messages' schemas, from Pub/Sub's schema service: asked for once a revision and process."""

from __future__ import annotations

import functools
import time

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1 import SchemaServiceClient
from google.pubsub_v1.types import Schema as PubsubSchema

from pipeline import clients
from transforms.body import Unreadable
from transforms.envelopes.schemas import Schema, SchemaUnavailable

#: How long it is believed that a schema is not there, or that a revision is the newest.
_BELIEVED_S = 60.0

#: Refusals that are about the schema that a message names, and not about who asks or when: a message can name any.
_OF_THE_NAME = (api.NotFound, api.Forbidden, api.InvalidArgument, api.MethodNotImplemented)


def definition(name: str) -> Schema:
    """The schema ``projects/PROJECT/schemas/SCHEMA@REVISION``, or the newest revision where none is named.

    A service that is away is waited for, as the sinks are.

    Raises:
        Unreadable: there is none of that name, or it may not be read.
        SchemaUnavailable: the service stayed away.
    """
    return _revision(name) if "@" in name else _now(name)


@functools.lru_cache(maxsize=256)
def _revision(name: str) -> Schema:
    return _now(name)


def _now(name: str) -> Schema:
    found = _asked(name, int(time.monotonic() / _BELIEVED_S))
    if isinstance(found, str):
        raise Unreadable(f"schema {name!r} {found}")
    return found


@functools.lru_cache(maxsize=1024)
def _asked(name: str, at: int) -> Schema | str:
    """The schema, or why there is none, as it is during the minute ``at``."""
    try:
        request = {"name": name, "view": "FULL"}
        found = clients.pubsub(SchemaServiceClient).get_schema(
            request=request, retry=clients.retry("schema"), timeout=clients.ATTEMPT_S
        )
    except _OF_THE_NAME as error:
        return f"cannot be had, for which the job needs pubsub.schemas.get on it: {clients.words(error)}"
    except (api.GoogleAPIError, GoogleAuthError) as error:
        raise SchemaUnavailable(f"schema {name!r} could not be read: {clients.words(error)}") from error
    return Schema(PubsubSchema.Type(found.type_).name, found.definition)
