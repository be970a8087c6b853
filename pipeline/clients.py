"""The Pub/Sub and BigQuery clients of a process, with the services' quotas and what is tried again.

``PUBSUB_EMULATOR_HOST`` and ``BIGQUERY_EMULATOR_HOST`` are honoured everywhere.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import grpc
import requests.exceptions
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SchemaServiceClient, SubscriberClient

from pipeline.flags import UsageError
from transforms import metrics
from transforms.records import Limits

#: https://cloud.google.com/pubsub/quotas#resource_limits
LIMITS = Limits(message_bytes=10_000_000, attributes=100, attribute_value_bytes=1_024)
#: What Beam's own sink is given at the most, attributes included. Dataflow commits an element with its framing and
#: refuses more than some 10 MB a second time and for ever (reports name results from about 7 MB on).
NATIVE_BYTES = 6_500_000
PUBLISH_MESSAGES = 1_000
PUBLISH_BYTES = 9_000_000
#: https://cloud.google.com/bigquery/quotas#streaming_inserts: 10 MB a request
INSERT_BYTES = 10_000_000

#: How long a sink that is down holds the work before the bundle fails and its messages are delivered again.
PATIENCE_S = 600.0
#: How long one request of that may take.
ATTEMPT_S = 60.0
#: How long a command waits for a BigQuery that is away, before it says so.
QUERY_PATIENCE_S = 15.0

_TRANSIENT = (
    api.Aborted,
    api.DeadlineExceeded,
    api.GatewayTimeout,
    api.InternalServerError,
    api.BadGateway,
    api.ServiceUnavailable,
    api.TooManyRequests,
    api.Unknown,
    ConnectionError,
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.Timeout,
    TransportError,
)


#: What a client raises when a service refuses, is away, or does not know who asks.
API_ERRORS = (api.GoogleAPIError, GoogleAuthError, ConnectionError, requests.exceptions.RequestException)


def transient(error: BaseException) -> bool:
    """Whether waiting may mend ``error``; a quota answers 403 with its reason."""
    if isinstance(error, api.Forbidden):
        return any(
            e.get("reason") in ("rateLimitExceeded", "quotaExceeded") for e in error.errors if isinstance(e, dict)
        )
    return isinstance(error, _TRANSIENT) and not isinstance(error, requests.exceptions.SSLError)


def words(error: Exception, most: int = 300) -> str:
    """What a client's ``error`` says, on one line of at most ``most`` characters."""
    if isinstance(error, api.RetryError) and error.cause is not None:
        error = error.cause  # which says what, where the other says how often
    said = " ".join(str(getattr(error, "message", None) or error).split())
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"BigQuery cannot be reached: {said}"[:most]
    return said[:most] or type(error).__name__


def retry(sink: str, told: Callable[[BaseException], None] = lambda error: None) -> Retry:
    """Exponential back-off with full jitter, from 0.1 to 10 seconds; counted among the metrics of ``sink``.

    ``told`` hears each error that is tried again.
    """

    def on_error(error: Exception) -> None:
        metrics.retried(sink)
        told(error)

    return Retry(
        predicate=transient,
        initial=0.1,
        maximum=10.0,
        multiplier=2.0,
        timeout=PATIENCE_S,
        on_error=on_error,
    )


#: For a look before a launch: what fails is told, and not tried again.
ONCE = Retry(predicate=lambda _: False)

_Client = TypeVar("_Client", PublisherClient, SchemaServiceClient, SubscriberClient)


#: What points clients to an emulator, and how that is written.
EMULATORS = {
    "PUBSUB_EMULATOR_HOST": (re.compile(r"[^\s/@:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}"), "HOST:PORT"),
    "BIGQUERY_EMULATOR_HOST": (re.compile(r"https?://[^\s/@:]+(:\d{1,5})?/?"), "http://HOST:PORT"),
}


def emulator(name: str) -> str | None:
    """The address that the variable ``name`` points clients to, if it is set.

    Raises:
        UsageError: it is none; its value is not shown, as it may hold a password.
    """
    address = os.environ.get(name)
    form, shown = EMULATORS[name]
    if address and not form.fullmatch(address):
        raise UsageError(f"{name}: is no address; set it to {shown}, as `beam-hf-inference emulators` prints it")
    return address or None


@functools.cache
def pubsub(kind: type[_Client]) -> _Client:
    """The process's one Pub/Sub client of ``kind``, on the emulator if there is one."""
    address = emulator("PUBSUB_EMULATOR_HOST")
    if not address:
        return _with_credentials(kind)
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # By default up to two minutes: an emulator that has come back should not be waited for.
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    transport = kind.get_transport_class("grpc")
    return kind(transport=transport(channel=grpc.insecure_channel(address, options)))


def query(project: str, sql: str, parameters: Iterable[Any] = ()) -> Any:
    """The rows of ``sql``, with its query ``parameters``.

    Raises:
        google.api_core.exceptions.GoogleAPIError: it cannot be answered.
        requests.exceptions.RequestException: BigQuery could not be reached for :data:`QUERY_PATIENCE_S` seconds.
    """
    patient = Retry(predicate=transient, initial=0.2, maximum=5.0, timeout=QUERY_PATIENCE_S)
    config = bigquery.QueryJobConfig(query_parameters=list(parameters))
    # With a job_retry the client begins the job again and again, for ten minutes, whatever `retry` says.
    job = bigquery_client(project).query(sql, job_config=config, retry=patient, job_retry=None, timeout=ATTEMPT_S)
    return job.result(retry=patient, job_retry=None)


@functools.cache
def bigquery_client(project: str) -> bigquery.Client:
    """The process's one BigQuery client for ``project``, on the emulator if there is one."""
    if emulator("BIGQUERY_EMULATOR_HOST"):
        return bigquery.Client(project, credentials=AnonymousCredentials())
    return _with_credentials(lambda: bigquery.Client(project))


_Made = TypeVar("_Made")


def _with_credentials(make: Callable[[], _Made]) -> _Made:
    """A client that looks for credentials, of which a file that cannot be read is one way to have none."""
    try:
        return make()
    except OSError as error:
        raise DefaultCredentialsError(str(error)) from None
