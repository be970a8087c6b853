"""Parameters of a message: templates are filled and never formatted, and errors quote little."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from failing_messages import message
from hypothesis import given
from hypothesis import strategies as st

from transforms.models import errors
from transforms.models.bisect import blame
from transforms.models.errors import InvalidParameter
from transforms.models.parameters import fill, template, validate
from transforms.models.task_table import TASKS

FORMS = [
    "{[x]}",
    "{:>99999999999}",
    "{.a}",
    "{0}",
    "{!r}",
    "{{}}",
    "{} {}",
    "{}{0.__class__}",
    "{",
    "}",
    "{}}",
    "",
    "x",
]


@pytest.mark.parametrize("task", ["zero-shot-classification", "zero-shot-image-classification"])
@pytest.mark.parametrize("form", [*FORMS, "{}" + "x" * 1000, 5, ["{}"]])
def test_a_template_is_text_around_one_place(task: str, form: object) -> None:
    """What would be evaluated as a format, here or on a server, is refused as what it is, for both kinds of model."""
    with pytest.raises(InvalidParameter, match="hypothesis_template.*one {} where the label goes") as caught:
        validate({"hypothesis_template": form}, TASKS[task].parameters, task)
    assert len(str(caught.value)) < 400


def test_a_label_is_not_formatted_either() -> None:
    """A label with a place in it stays as it is written."""
    assert fill("This is {}.", "{} {[x]}") == "This is {} {[x]}."


@given(st.text(alphabet="{}[]!:.0xa ", max_size=12), st.text(alphabet="{}[]a", max_size=6))
def test_what_is_taken_fills_as_str_format_does(form: str, label: str) -> None:
    """A template that is taken means the same to a server that formats it."""
    if template().accepts(form):
        assert fill(form, label) == form.format(label)


@pytest.mark.parametrize("value", ["a\ud800", ["a", "\udc00"]])
def test_half_a_character_is_none(value: Any) -> None:
    """A job's defaults may hold what no message's JSON can, and no tokenizer reads."""
    with pytest.raises(InvalidParameter, match=r"parameters\.candidate_labels: holds half a surrogate pair"):
        validate({"candidate_labels": value}, TASKS["zero-shot-classification"].parameters, "x")


def test_an_endless_name_is_cut() -> None:
    """The message of five megabytes of a parameter's name gets an error of one line."""
    endless = {"é" * 2_500_000: 1}
    assert orjson.loads(message("endless-parameter-name").data) == {"inputs": "x"}  # its parameters are in the recipe
    with pytest.raises(InvalidParameter, match="has no such parameter") as caught:
        validate(endless, TASKS["fill-mask"].parameters, "fill-mask")
    assert len(str(caught.value)) < 400


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("x" * 100_000),
    lambda each: st.lists(each) | st.dictionaries(st.text() | st.just("k" * 100_000), each),
)


@given(VALUES, st.sampled_from(sorted(TASKS)), st.data())
def test_errors_quote_a_bounded_part(value: Any, task: str, data: st.DataObject) -> None:
    """Whatever inputs and parameters are, what is said of them is short."""
    name = data.draw(st.sampled_from(sorted(TASKS[task].parameters) or ["x"]))
    for ask in (lambda: validate({name: value}, TASKS[task].parameters, task), lambda: TASKS[task].check(value)):
        try:
            ask()
        except errors.ElementError as error:
            assert len(str(error)) < 700


def test_nested_values_are_quoted_in_brief() -> None:
    """Six levels of six do not become megabytes of an error."""
    value: Any = "x" * 100
    for _ in range(7):
        value = [value] * 6
    assert len(errors.brief(value)) <= 202  # with the marks of a quotation
    assert len(errors.brief(b"\0" * 1_000_000)) <= 202


def test_a_librarys_words_are_cut() -> None:
    """An exception may quote its input; the first few hundred characters say which it was."""
    assert len(str(blame(ValueError("x" * 1_000_000)))) < 400
