"""DeadLetter: the message untouched, what went wrong beside it, and never over the quotas."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients import LIMITS
from transforms.dead_letter import (
    PREFIX,
    Source,
    attempts,
    dead_letter,
    input_subscription,
    is_dead_letter,
    restore,
    stage,
)
from transforms.encode import encode
from transforms.records import Failure, Message, ModelInfo, Prediction, Request

SOURCE = Source("tickets", "projects/p/subscriptions/tickets")
NOTES = (
    *("stage", "message_id", "error_type", "attempt", "time", "error"),
    *("job", "subscription", "first_message_id"),
)


def failure(message: Message, error: str = "the body is empty") -> Failure:
    return Failure(message, "decode", "InvalidBody", error, 1_700_000_000.0)


def test_a_dead_letter_is_the_message_with_notes():
    """Bytes, attributes and ordering key are as they came; the dead_letter_* attributes say what happened."""
    message = Message(b"\xff", {"customer": "c-1"}, "42", ordering_key="k")
    letter = dead_letter(failure(message), LIMITS, SOURCE)
    assert (letter.data, letter.ordering_key, letter.attributes["customer"]) == (b"\xff", "k", "c-1")
    assert {key.removeprefix(PREFIX) for key in letter.attributes if key.startswith(PREFIX)} == set(NOTES)
    assert letter.attributes["dead_letter_message_id"] == "42"
    assert letter.attributes["dead_letter_time"] == "2023-11-14T22:13:20.000000Z"
    assert letter.attributes["dead_letter_job"] == "tickets"
    assert letter.attributes["dead_letter_subscription"] == SOURCE.subscription == input_subscription(letter)
    assert letter.attributes["dead_letter_first_message_id"] == "42"


def test_attempts_count_up():
    """A message that fails again after a replay says so."""
    once = dead_letter(failure(Message(b"x")), LIMITS)
    assert attempts(once) == 1
    assert attempts(dead_letter(failure(once), LIMITS)) == 2


@given(st.text(max_size=40))
def test_any_attempt_attribute_is_read(text):
    """Whatever a stranger wrote into dead_letter_attempt, a count comes out."""
    assert attempts(Message(b"x", {"dead_letter_attempt": text})) >= 0


@given(st.text(min_size=300, max_size=3000))
def test_a_long_error_is_cut_to_the_quota(text):
    """The error fits its attribute in bytes, whole characters only."""
    assert len(dead_letter(failure(Message(b"x"), text), LIMITS).attributes["dead_letter_error"].encode()) <= 1024


def test_a_message_without_room_arrives_as_it_came():
    """With a hundred attributes of its own, the dead letter is the message itself."""
    message = Message(b"x", {f"k{n}": "v" for n in range(100)})
    assert dead_letter(failure(message), LIMITS).attributes == message.attributes


@given(st.integers(85, 100))
def test_the_most_telling_notes_come_first(count):
    """Notes are added in the order of their worth, as many as the attributes leave room for."""
    own = {f"k{n}": "v" for n in range(count)}
    letter = dead_letter(failure(Message(b"x", own, "7")), LIMITS, SOURCE)
    assert len(letter.attributes) <= 100
    assert set(letter.attributes) - set(own) == {PREFIX + name for name in NOTES[: 100 - count]}


@given(st.text(max_size=2_000), st.text(max_size=2_000), st.text(max_size=300))
def test_no_note_is_over_a_quota(job, subscription, error_type):
    """Whatever a job is called and an error says, each note is within a value's bytes."""
    found = dead_letter(Failure(Message(b"x"), "decode", error_type, "e", 0.0), LIMITS, Source(job, subscription))
    assert all(0 < len(value.encode()) <= LIMITS.attribute_value_bytes for value in found.attributes.values())


def test_the_first_id_goes_through_replays():
    """However often a message dies and is replayed under a new id, the first one stays with it."""
    message = Message(b"x", {}, "1")
    for new_id in ("2", "3", "4"):
        letter = dead_letter(failure(message), LIMITS, SOURCE)
        assert letter.attributes["dead_letter_first_message_id"] == "1"
        again = restore(letter, LIMITS)
        assert set(again.attributes) == {"dead_letter_attempt", "dead_letter_first_message_id"}
        message = Message(again.data, again.attributes, new_id)
    assert message.attributes["dead_letter_first_message_id"] == "1"


def test_an_older_dead_letter_keeps_its_id_too():
    """A dead letter from before there was a first id gives the id that it died under."""
    old = {"dead_letter_stage": "decode", "dead_letter_message_id": "1", "dead_letter_attempt": "1"}
    assert restore(Message(b"x", old), LIMITS).attributes["dead_letter_first_message_id"] == "1"


@given(st.integers(80, 100))
def test_what_is_replayed_can_become_a_result(count):
    """A replay's attributes are left out where they would take the room that the result's own need."""
    own = {f"k{n}": "v" for n in range(count)}
    again = restore(dead_letter(failure(Message(b"x", own, "7")), LIMITS, SOURCE), LIMITS)
    assert {key: value for key, value in again.attributes.items() if key in own} == own
    answer = Prediction(Request("x", {}, again), 1, ModelInfo("t", "m", "r", "cpu", "float32"))
    if count <= 94:  # six are the result's own
        assert len(encode(answer, LIMITS).attributes) <= 100


def test_what_is_no_dead_letter_is_known():
    """A result, also of a replayed message, and a stage that nobody has are none; what Pub/Sub gave up is one."""
    theirs = {"Subscription": "s", "SubscriptionProject": "p", "DeliveryCount": "5"}
    given_up = Message(b"x", {f"CloudPubSubDeadLetterSource{key}": value for key, value in theirs.items()})
    replayed = restore(dead_letter(failure(Message(b"x", {}, "1")), LIMITS, SOURCE), LIMITS)
    result = encode(
        Prediction(Request("x", {}, replayed), 1, ModelInfo("t", "m", "r", "cpu", "float32")), LIMITS
    ).attributes
    assert is_dead_letter(given_up) and stage(given_up) == "pubsub"
    assert input_subscription(given_up) == "projects/p/subscriptions/s"
    assert is_dead_letter(dead_letter(failure(Message(b"x")), LIMITS))
    for attributes in ({}, result, {"dead_letter_stage": "nowhere"}, {"dead_letter_attempt": "1"}):
        assert not is_dead_letter(Message(b"x", attributes)), attributes


def test_a_result_is_no_dead_letter_whatever_its_message_was():
    """One that was published again as it was, with its notes, by hand or by Pub/Sub, makes a result like any other."""
    for again in (
        dead_letter(failure(Message(b"x", {"k": "v"}, "1")), LIMITS, SOURCE),
        Message(b"x", {"k": "v", "CloudPubSubDeadLetterSourceSubscription": "s"}),
    ):
        answer = Prediction(Request("x", {}, again), 1, ModelInfo("t", "m", "r", "cpu", "float32"))
        result = encode(answer, LIMITS)
        assert not is_dead_letter(Message(result.data, result.attributes)) and result.attributes["k"] == "v"


def test_a_full_message_stays_under_the_size_limit():
    """A body at the limit leaves no room for notes, and still arrives."""
    message = Message(bytes(LIMITS.message_bytes))
    assert dead_letter(failure(message), LIMITS).attributes == {}
