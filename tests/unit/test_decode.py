"""Decode: what a message's bytes mean, and what is refused."""

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.decode import InvalidBody, decode
from transforms.records import Message, Request


def test_a_body_is_what_an_inference_endpoint_takes():
    """Inputs and parameters come out of the JSON body, and the message rides beside."""
    message = Message(b'{"inputs": "hi", "parameters": {"top_k": 2}}')
    assert decode(message) == Request("hi", {"top_k": 2}, message)


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=utf-8", " Text/Plain "])
def test_plain_text_is_the_input_itself(kind):
    """With content type text/plain, whatever its case and parameters, the body is the input."""
    assert decode(Message(b'{"inputs": 1}', {"content-type": kind})).inputs == '{"inputs": 1}'


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "audio/wav"])
def test_images_and_audio_stay_bytes(kind):
    """Raw media reach the model as the bytes they are."""
    assert decode(Message(b"\x89PNG", {"content-type": kind})).inputs == b"\x89PNG"


def test_input_path_picks_the_input_out_of_any_json():
    """One pipeline's output is another's input."""
    path = jmespath.compile("prediction[0].label")
    assert decode(Message(b'{"prediction": [{"label": "refund"}]}'), path).inputs == "refund"


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"prediction": []}', b"null", b'{"prediction": 7}'])
def test_input_path_that_finds_nothing_is_an_error(body):
    """A body without what --input_path names is refused and the path is named."""
    with pytest.raises(InvalidBody, match=r"prediction\[0\].label"):
        decode(Message(body), jmespath.compile("prediction[0].label"))


def test_input_path_of_the_wrong_type_is_an_error():
    """A JMESPath function over the wrong type refuses the message, and does not crash the job."""
    with pytest.raises(InvalidBody, match="does not fit"):
        decode(Message(b'{"a": 1}'), jmespath.compile("length(a)"))


def test_errors_do_not_quote_the_body():
    """A message's content stays out of its error: errors are logged and audited."""
    with pytest.raises(InvalidBody) as error:
        decode(Message(b'{"inputs": "my secret is 1234'))
    assert "secret" not in str(error.value)


@given(st.binary(), st.dictionaries(st.sampled_from(["content-type", "x"]), st.text(max_size=20)))
def test_any_bytes_decode_or_are_refused(data, attributes):
    """Whatever arrives, decode answers with a request or the one error the step catches."""
    try:
        assert isinstance(decode(Message(data, attributes)), Request)
    except InvalidBody as error:
        assert str(error)
