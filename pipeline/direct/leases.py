"""Leases: messages of a subscription, kept from others until they are done with or given back.

A thread renews them; whoever dies keeps its messages from others for as long as one lease lasts, and no longer.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from google.api_core import exceptions as api
from google.pubsub_v1 import SubscriberClient

from pipeline import outage

_LOGGER = logging.getLogger(__name__)

#: How long a lease lasts, and how often all are renewed (https://cloud.google.com/pubsub/docs/lease-management).
LEASE_S = 60
RENEW_S = 20

#: Of one request (https://cloud.google.com/pubsub/quotas: 512 KiB a request), with room for its other fields.
ACK_IDS = 1_000
ACK_BYTES = 480_000

#: How long one request may take.
_ATTEMPT_S = 30.0
_RENEW_ATTEMPT_S = 10.0

#: Errors that waiting may mend; of a stream, that ask for a new one.
TRANSIENT = (
    api.Aborted,
    api.Cancelled,
    api.DeadlineExceeded,
    api.InternalServerError,
    api.ResourceExhausted,
    api.ServiceUnavailable,
    api.TooManyRequests,
    api.Unknown,
)


class Leases:
    """The messages of ``subscription`` that this process holds, by message id; safe to use from several threads.

    ``watch`` is called before each round of renewals.
    """

    def __init__(self, subscription: str, client: SubscriberClient, watch: Callable[[], None] = lambda: None):
        self._subscription = subscription
        self._client = client
        self._watch = watch
        self._service = outage.service(f"subscription {subscription}", "messages")
        self._lock = threading.Lock()
        self._held: dict[str, str] = {}
        self._ending: set[str] = set()
        self._ended: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._closed = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="renew", daemon=True)

    def start(self) -> None:
        """Renews from now on."""
        self._renewing.start()

    def close(self) -> None:
        """Renews no more: what is still held is delivered again when its leases end."""
        self._closed.set()
        if self._renewing.ident is not None:
            self._renewing.join(_RENEW_ATTEMPT_S)

    def add(self, message_id: str, ack_id: str) -> bool | None:
        """Holds a message that was delivered: True if it is new, False if it is held already, under its newer ack id.

        None if it is done with: an acknowledgement was lost, and is to be sent again with this ``ack_id``.
        """
        with self._lock:
            if message_id in self._ending or message_id in self._ended:
                return None
            new = message_id not in self._held
            self._held[message_id] = ack_id
            return new

    def end(self, message_ids: Iterable[str]) -> dict[str, str]:
        """Holds the messages no longer, and returns what :meth:`acknowledge` needs: their ack ids by message id."""
        with self._lock:
            ended = {message_id: self._held.pop(message_id) for message_id in message_ids}
            self._ending |= ended.keys()
        return ended

    def acknowledge(self, ended: Mapping[str, str], patience: Callable[[], float]) -> None:
        """Acknowledges messages that are done with; tries for ``patience()`` seconds where waiting may mend it.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: they will be delivered again.
        """
        try:
            for ack_ids in requests(ended.values()):
                self._acknowledge(ack_ids, patience)
        finally:
            # A delivery may be on its way although the service has said yes: it comes before another lease has ended.
            with self._lock:
                self._ending -= ended.keys()
                self._ended.update(dict.fromkeys(ended, time.monotonic() + 2 * LEASE_S))

    def _acknowledge(self, ack_ids: list[str], patience: Callable[[], float]) -> None:
        started, pause = time.monotonic(), 0.1
        while True:
            try:
                self._client.acknowledge(
                    subscription=self._subscription, ack_ids=ack_ids, retry=None, timeout=_ATTEMPT_S
                )
                return
            except TRANSIENT:
                if time.monotonic() - started > patience():
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    def give_back(self, message_ids: Iterable[str] | None = None) -> None:
        """Lets others have the messages at once, or all that are held. To the service that is a failed delivery."""
        with self._lock:
            ids = list(self._held) if message_ids is None else list(message_ids)
            ack_ids = [self._held.pop(message_id) for message_id in ids]
        for chunk in requests(ack_ids):
            try:
                self._set(chunk, 0)
            except Exception as error:  # any of the client's: nothing is lost by it
                _LOGGER.warning("%d messages come back only when their leases end: %s", len(chunk), error)

    def extend(self, ack_ids: Iterable[str]) -> None:
        """Has leases last ``LEASE_S`` seconds from now on."""
        for chunk in requests(ack_ids):
            try:
                self._set(chunk, LEASE_S)
                self._service.worked()
            except Exception as error:  # any of the client's: the next round may do better
                self._service.failed(str(getattr(error, "message", error)))

    def _set(self, ack_ids: list[str], seconds: int) -> None:
        self._client.modify_ack_deadline(
            subscription=self._subscription,
            ack_ids=ack_ids,
            ack_deadline_seconds=seconds,
            retry=None,
            timeout=_RENEW_ATTEMPT_S,
        )

    def _renew(self) -> None:
        while not self._closed.wait(RENEW_S):
            self._watch()
            now = time.monotonic()
            with self._lock:
                ack_ids = list(self._held.values())
                while self._ended and next(iter(self._ended.values())) < now:
                    self._ended.popitem(last=False)
            self.extend(ack_ids)


def requests(ack_ids: Iterable[str]) -> Iterator[list[str]]:
    """Cuts ``ack_ids`` into what one request may hold: their length is the service's affair."""
    chunk: list[str] = []
    size = 0
    for ack_id in ack_ids:
        needs = len(ack_id.encode()) + 4
        if chunk and (len(chunk) == ACK_IDS or size + needs > ACK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(ack_id)
        size += needs
    if chunk:
        yield chunk
