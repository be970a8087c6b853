"""BigQuery subscriptions: what a topic gets, as rows of a table of the embedded BigQuery, with their metadata.

As far as a second record of what was published needs it: no schemas of topics or tables. A row that the table refuses
is delivered again, as by the service.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from typing import Any

from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.pubsub_v1 import types

from pipeline.emulators.pubsub.broker import Broker
from pipeline.emulators.pubsub.delivery import Message
from pipeline.emulators.pubsub.subscription import Subscription

_LOGGER = logging.getLogger(__name__)
_EVERY_S = 0.2
_ROWS, _BYTES, _LEASE_S, _ATTEMPT_S = 500, 5_000_000, 600.0, 30.0

State = types.BigQueryConfig.State


class Exports:
    """Moves messages of all BigQuery subscriptions, for as long as the server runs."""

    def __init__(self, broker: Broker, address: str):
        self._broker = broker
        self._address = address

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            for subscription in list(self._broker.subscriptions.values()):
                if subscription.config.bigquery_config.table:
                    await self._export(subscription)

    async def _export(self, subscription: Subscription) -> None:
        deliveries = subscription.take(_ROWS, _BYTES, time.time(), lease=_LEASE_S)
        if not deliveries:
            return
        config = subscription.config
        try:
            messages = [delivery.message for delivery in deliveries]
            refused = await asyncio.to_thread(insert, self._address, config.name, config.bigquery_config, messages)
            state = State.SCHEMA_MISMATCH if refused else State.ACTIVE
        except Exception as error:
            _LOGGER.warning("%s: %s", config.name, error)
            refused = set(range(len(deliveries)))
            state = State.NOT_FOUND if isinstance(error, api.NotFound) else State.STATE_UNSPECIFIED
        config.bigquery_config.state = state
        ids = [subscription.ack_id(delivery) for delivery in deliveries]
        subscription.acknowledge(ack_id for index, ack_id in enumerate(ids) if index not in refused)
        back = [ack_id for index, ack_id in enumerate(ids) if index in refused]
        subscription.modify(back, [0] * len(back), time.time())
        if back:
            await asyncio.sleep(1.0)


def insert(address: str, name: str, config: Any, messages: list[Message]) -> set[int]:
    """Writes ``messages`` of the subscription ``name`` as rows; returns the indices of those refused.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the table is missing, or the server away.
    """
    table_id = config.table.replace(":", ".")
    options = {"api_endpoint": address}
    client = bigquery.Client(table_id.split(".")[0], credentials=AnonymousCredentials(), client_options=options)
    kinds = {field.name: field.field_type for field in client.get_table(table_id, timeout=_ATTEMPT_S).schema}
    rows = [row(name, each, kinds, config.write_metadata) for each in messages]
    ids = [str(each.seq) for each in messages]
    errors = client.insert_rows_json(table_id, rows, row_ids=ids, skip_invalid_rows=True, timeout=_ATTEMPT_S)
    return {error["index"] for error in errors}


def row(name: str, message: Message, kinds: dict[str, str], write_metadata: bool) -> dict[str, Any]:
    """https://cloud.google.com/pubsub/docs/bigquery#properties_subscription"""
    proto = types.PubsubMessage.pb().FromString(message.data)
    data = proto.data
    if kinds.get("data") == "BYTES":
        found: dict[str, Any] = {"data": base64.b64encode(data).decode()}
    else:
        found = {"data": data.decode("utf-8", "replace")}
    if write_metadata:
        found |= {
            "subscription_name": name,
            "message_id": proto.message_id,
            "publish_time": proto.publish_time.ToJsonString(),
            "attributes": json.dumps(dict(proto.attributes)),
        }
    return found
