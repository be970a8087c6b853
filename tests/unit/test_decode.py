"""Decode: what a message's bytes mean, and what is refused."""

import gzip
import json
import warnings

import jmespath
import orjson
import pytest
from failing_messages import case, message
from hypothesis import given
from hypothesis import strategies as st

from transforms import body
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


JMESPATHS = ["ceil", "compares-text-and-number", "contains", "max_by", "merge"]


@pytest.mark.parametrize("name", JMESPATHS)
def test_an_expression_that_does_not_fit_refuses_its_message(name):
    """Whatever JMESPath raises, the message is refused; the error names the expression and none of the data."""
    flag = case(f"jmespath-{name}")["flags"][0].removeprefix("--input_path=")
    with pytest.raises(InvalidBody, match="does not fit") as caught:
        decode(message(f"jmespath-{name}"), jmespath.compile(flag))
    assert repr(flag) in str(caught.value)
    assert "high" not in str(caught.value) and "999" not in str(caught.value)


EXPRESSIONS = [
    "a > b", "a[?@ > `1`]", "a[?x < y]", "ceil(to_number(a))", "floor(to_number(a))", "abs(a)", "avg(a)", "sum(a)",
    "max(a)", "min_by(a, &x)", "sort(a)", "sort_by(a, &x)", "join(a, b)", "contains(a, b)", "starts_with(a, b)",
    "merge(a, b)", "map(&x, a)", "reverse(a)", "keys(a)", "length(a)", "to_number(a)", "a[::-1]", "a[0]", "&a",
    "a[99999999999999999999]", "a[-99999999999999999999:]", "not_null(a, b)", "to_array(a)", "zip(a)", "[&a]",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.sampled_from(["", "nan", "1e999", "-inf", "x", "é"]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from("abxy"), each, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abxy"), JSON), st.sampled_from(EXPRESSIONS))
def test_any_expression_over_any_json_gives_an_input_or_a_refusal(value, expression):
    """Comparisons, functions, slices and sorts over every kind of value raise nothing but InvalidBody."""
    try:
        found = decode(Message(orjson.dumps(value)), jmespath.compile(expression)).inputs
    except InvalidBody as error:
        assert len(str(error)) < 500
    else:
        assert isinstance(found, (str, int, float, list, dict))


def test_a_long_expression_is_cut_in_the_error():
    """An expression of a thousand words does not become an error of a thousand words."""
    expression = "a." * 1000 + "b"
    with pytest.raises(InvalidBody) as caught:
        decode(Message(b"{}"), jmespath.compile(expression))
    assert len(str(caught.value)) < 300


def test_a_charset_is_honoured():
    """The message of the report: UTF-16 in a text/plain body."""
    assert decode(message("charset-utf-16")).inputs == "hello"


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("utf-16", "utf-16"),
        ("UTF-16LE", "utf-16-le"),
        ("utf-16be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ('"iso-8859-1"', "latin-1"),
        ("Latin1", "latin-1"),
        ("windows-1252", "cp1252"),
        ("Shift_JIS", "shift_jis"),
        ("cp037", "cp037"),
        ("utf-8", "utf-8-sig"),
        ("utf8", "utf-8"),
        ("UTF-8-sig", "utf-8-sig"),
    ],
)
def test_texts_and_json_come_in_any_charset(charset, codec):
    """text/plain and JSON are read in the charset that the content type names, and a byte order mark is read over."""
    said = "Größe" if codec != "shift_jis" else "日本"
    plain = Message(said.encode(codec), {"content-type": f"text/plain; charset={charset}"})
    assert decode(plain).inputs == said
    spelt = json.dumps({"inputs": said}, ensure_ascii=False).encode(codec)
    assert decode(Message(spelt, {"content-type": f"application/json;x=y; Charset = {charset}"})).inputs == said


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_charset(codec):
    """Without a charset the mark decides, in texts and in JSON; JSON in UTF-16 needs none."""
    assert decode(Message("é".encode(codec), {"content-type": "text/plain"})).inputs == "é"
    assert decode(Message('{"inputs": "é"}'.encode(codec))).inputs == "é"
    assert decode(Message('{"inputs": "é"}'.encode("utf-16-be"))).inputs == "é"


@pytest.mark.parametrize(
    "charset",
    ["klingon", "zip", "base64", "rot13", "hex", "idna", "punycode", "unicode_escape", "undefined", "a\0b", "x" * 9999],
)
def test_what_is_no_charset_is_named(charset):
    """A codec that is none of texts opens nothing; the error names it, cut, before a byte is read."""
    with pytest.raises(InvalidBody, match="charset .* is not known") as caught:
        decode(Message(b"aGk=", {"content-type": f"text/plain; charset={charset}"}))
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("charset", "data", "words"),
    [
        ("utf-16", "hi".encode("utf-16-be"), "needs a mark where the body begins; use utf-16le or utf-16be"),
        ("UTF-32", "hi".encode("utf-32-le"), "needs a mark where the body begins; use utf-32le or utf-32be"),
        ("utf-16le", "\ufeffhi".encode("utf-16-be"), "the mark of another charset"),
        ("utf-16be", "\ufeffhi".encode("utf-16-le"), "the mark of another charset"),
        ("latin-1", "\ufeffhi".encode(), "the mark of utf-8, and its charset is 'latin-1'"),
        ("windows-1252", "hi".encode("utf-16"), "the mark of utf-16, and its charset is 'windows-1252'"),
        ("utf-16", "\ufeffhi!".encode(), "the mark of utf-8, and its charset is 'utf-16'"),
        ("latin-1; charset=utf-8", "é".encode(), "charset 'latin-1; utf-8' is not known"),
    ],
)
@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_charset_that_would_be_guessed_is_refused(kind, charset, data, words):
    """No order of bytes, a mark of another charset, two charsets: read somehow, each is another text."""
    with pytest.raises(InvalidBody, match=words):
        decode(Message(data, {"content-type": f"{kind}; charset={charset}"}))


def test_a_quoted_parameter_is_no_charset():
    """What stands in the quotes of another parameter is that one's."""
    said = 'text/plain; title="a; charset=utf-16le"; charset="latin-1"'
    assert decode(Message("é".encode("latin-1"), {"content-type": said})).inputs == "é"


@pytest.mark.parametrize(("charset", "data"), [("utf-16le", b"abc"), ("us-ascii", b"\xff"), ("utf-7", b"+2AA-")])
def test_bytes_that_are_not_of_their_charset_are_refused(charset, data):
    """Half a character, or a byte that the charset has not, is refused by the charset's name."""
    with pytest.raises(InvalidBody, match=f"not in charset '{charset}'"):
        decode(Message(data, {"content-type": f"text/plain; charset={charset}"}))


def test_gzip_bodies_are_opened():
    """content-encoding gzip, in one member or several, of texts, JSON and raw media."""
    packed = gzip.compress(b'{"inputs": ') + gzip.compress(b'"hi"}') + b"\0\0"
    assert decode(Message(packed, {"content-encoding": "gzip"})).inputs == "hi"
    assert decode(Message(packed, {"CONTENT-ENCODING": "X-GZip"})).inputs == "hi"
    picture = {"content-type": "image/png", "content-encoding": "gzip"}
    assert decode(Message(gzip.compress(b"\x89PNG"), picture)).inputs == b"\x89PNG"
    assert decode(Message(b'{"inputs": 1}', {"content-encoding": "identity"})).inputs == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"inputs": 1}', "not gzip"),
        (gzip.compress(b"1" * 100)[:-5], "cut off"),
        (gzip.compress(b"1" * 100)[:-8] + b"\0" * 8, "damaged"),
        (gzip.compress(b"0" * 200_000_000), "over 10,000,000 bytes"),
        (gzip.compress(b"") * 100_000, "more than 100 members"),
    ],
)
def test_damaged_gzip_and_bombs_are_refused(data, words):
    """A bomb is opened no further than a message could be large."""
    with pytest.raises(InvalidBody, match=words):
        decode(Message(data, {"content-encoding": "gzip"}))


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "z" * 999])
def test_other_encodings_are_named(encoding):
    """What is not opened is not read as if it were."""
    with pytest.raises(InvalidBody, match="content-encoding '.*' is not read") as caught:
        decode(Message(b"x", {"content-encoding": encoding}))
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("name", ["Content-Type", "CONTENT-TYPE", "ce-datacontenttype", "Ce-DataContentType"])
def test_an_attribute_is_known_in_any_capitals(name):
    """As HTTP headers are, and CloudEvents' own name for it."""
    assert decode(Message(b"hi", {name: "text/plain"})).inputs == "hi"


def test_an_attribute_in_two_spellings():
    """The lower case spelling is the documented one and wins; others that differ are refused."""
    assert decode(Message(b"hi", {"content-type": "text/plain", "Content-Type": "application/json"})).inputs == "hi"
    assert decode(Message(b"hi", {"CONTENT-TYPE": "text/plain", "Content-Type": "text/plain"})).inputs == "hi"
    with pytest.raises(InvalidBody, match="several spellings"):
        decode(Message(b"hi", {"CONTENT-TYPE": "text/plain", "Content-Type": "image/png"}))


@pytest.mark.parametrize(
    "data", [b'{"inputs": "\\ud800"}', b'{"inputs": NaN}', b'{"inputs": 1e999}', b'{"inputs": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_is_refused(data):
    """Half a character, NaN, and numbers that no double holds."""
    with pytest.raises(InvalidBody, match="not JSON"):
        decode(Message(data))


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "utf-7", "cp037"])
def test_deep_nesting_is_refused_in_every_charset(codec):
    """Counted in the text, not in bytes that mean something else."""
    data = ('{"inputs": ' + "[" * 200 + "]" * 200 + "}").encode(codec)
    with pytest.raises(InvalidBody, match="nested deeper than 100"):
        decode(Message(data, {"content-type": f"application/json; charset={codec}"}))


def test_charsets_that_nobody_has_are_not_remembered():
    """Python's own registry keeps every name it is asked for, which messages would fill."""
    import encodings

    before = len(encodings._cache)
    for n in range(50):
        with pytest.raises(body.Unreadable):
            body.text(b"x", f"nobody-{n}")
    assert len(encodings._cache) == before


@given(
    st.binary(max_size=40),
    st.sampled_from(["content-type", "Content-Type", "ce-datacontenttype"]),
    st.text(max_size=20) | st.sampled_from(["utf-16", "utf-7", "gb18030", "iso2022_jp_2", "hz", "big5", "euc_kr"]),
    st.sampled_from(["", "gzip", "identity"]),
)
def test_any_bytes_in_any_charset_decode_or_are_refused(data, name, charset, encoding):
    """No charset, encoding or spelling makes decode raise anything else; a text can be written again."""
    attributes = {name: f"text/plain; charset={charset}", "content-encoding": encoding}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            decode(Message(data, attributes)).inputs.encode()
        except InvalidBody as error:
            assert str(error)
