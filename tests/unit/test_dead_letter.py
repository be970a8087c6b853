"""DeadLetter: the message untouched, what went wrong beside it, and never over the quotas."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients import LIMITS
from transforms.dead_letter import PREFIX, attempts, dead_letter
from transforms.records import Failure, Message

NOTES = {"stage", "message_id", "error_type", "attempt", "time", "error"}


def failure(message: Message, error: str = "the body is empty") -> Failure:
    return Failure(message, "decode", "InvalidBody", error, 1_700_000_000.0)


def test_a_dead_letter_is_the_message_with_notes():
    """Bytes, attributes and ordering key are as they came; the dead_letter_* attributes say what happened."""
    message = Message(b"\xff", {"customer": "c-1"}, "42", ordering_key="k")
    letter = dead_letter(failure(message), LIMITS)
    assert (letter.data, letter.ordering_key, letter.attributes["customer"]) == (b"\xff", "k", "c-1")
    assert {key.removeprefix(PREFIX) for key in letter.attributes if key.startswith(PREFIX)} == NOTES
    assert letter.attributes["dead_letter_message_id"] == "42"
    assert letter.attributes["dead_letter_time"] == "2023-11-14T22:13:20.000000Z"


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


def test_the_most_telling_notes_come_first():
    """With room for two, they are the stage and the message id."""
    letter = dead_letter(failure(Message(b"x", {f"k{n}": "v" for n in range(98)}, "7")), LIMITS)
    assert set(letter.attributes) - {f"k{n}" for n in range(98)} == {"dead_letter_stage", "dead_letter_message_id"}


def test_a_full_message_stays_under_the_size_limit():
    """A body at the limit leaves no room for notes, and still arrives."""
    message = Message(bytes(LIMITS.message_bytes))
    assert dead_letter(failure(message), LIMITS).attributes == {}
