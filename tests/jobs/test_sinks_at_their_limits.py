"""Results and dead letters of every size that a message can have go through Beam's own sink code, or past it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from apache_beam.io.gcp.pubsub import WriteToPubSub
from google.pubsub_v1.types import PubsubMessage
from streams import fresh, pull

from pipeline import clients
from pipeline.publish import _OutgoingFn, _PublishFn
from transforms.dead_letter import Source, dead_letter
from transforms.encode import TooLarge, encode
from transforms.records import Failure, Message, ModelInfo, Prediction, Request

_MODEL = ModelInfo("feature-extraction", "my-org/" + "m" * 200, "r" * 64, "cpu", "float32")

#: Attributes of a message: as many as it may have, as long as they may be, and in characters of several bytes.
_ATTRIBUTES = {
    "none": {},
    "a hundred": {f"k{n}": "v" for n in range(100)},
    "ninety-two": {f"k{n}": "v" for n in range(92)},
    "long": {f"{n:02}" + "k" * 254: "v" * 1_024 for n in range(92)},
    "wide": {f"{n:02}" + "é" * 127: "😀" * 256 for n in range(92)},
}
_BYTES = (0, 1, 6_490_000, 6_500_000, 9_900_000, 10_000_000)


def letter(size: int, attributes: dict[str, str]) -> Message:
    message = Message(b"x" * size, attributes, "1", 1.0, 1.0, "é" * 512)
    failure = Failure(message, "decode", "InvalidBody", "é" * 2_000, 1.0)
    return dead_letter(failure, clients.LIMITS, Source("j" * 500, "projects/p/subscriptions/" + "s" * 255))


@pytest.mark.parametrize(("attributes", "size"), product(_ATTRIBUTES, _BYTES))
def test_any_dead_letter_is_taken(attributes: str, size: int, servers) -> None:
    """Of any message that Pub/Sub takes, the dead letter passes Beam's sink, or goes by a request of our own."""
    own = _ATTRIBUTES[attributes]
    if size + sum(len(k.encode()) + len(v.encode()) for k, v in own.items()) > 10_000_000 or not (size or own):
        pytest.skip("no message that Pub/Sub takes")
    check(letter(size, own))


@pytest.mark.parametrize(("attributes", "numbers"), product(_ATTRIBUTES, (1, 300_000, 590_000, 900_000)))
def test_any_result_is_taken_or_refused(attributes: str, numbers: int, servers) -> None:
    """A result that the encoder lets through passes Beam's sink, or goes by a request of our own."""
    request = Request("x", {}, Message(b"x", _ATTRIBUTES[attributes], "1", 1.0, 1.0, "k" * 1_024))
    try:
        result = encode(Prediction(request, np.full(numbers, 0.12345678), _MODEL, time=1.0), clients.LIMITS)
    except TooLarge:
        assert numbers == 900_000 or len(_ATTRIBUTES[attributes]) > 93
    else:
        check(result)


def check(record) -> None:
    resources = fresh("sinks")
    small = [WriteToPubSub.message_to_proto_str(one) for one in _OutgoingFn(resources.output_topic).process(record)]
    large = pull(resources.output_subscription, 1 - len(small), 60)
    assert len(small) + len(large) == 1
    for one in (*map(PubsubMessage.deserialize, small), *large):
        assert one.data == record.data and dict(one.attributes) == dict(record.attributes)
    # The other runner's sink takes it too.
    direct = _PublishFn(resources.dead_letter_topic)
    direct.start_bundle()
    direct.process(record)
    assert list(direct.finish_bundle()) == []
    (one,) = pull(resources.dead_letter_subscription, 1, 60)
    assert one.data == record.data and one.ordering_key == record.ordering_key
