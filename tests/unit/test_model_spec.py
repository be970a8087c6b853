"""What a model is and how it runs: one frozen value, made once, compared and printed as a whole."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.spec import ModelSpec, freeze, thaw
from transforms.models.task_table import TASKS
from transforms.models.token import TokenSource

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=4))
def test_equal_parameters_make_equal_specs(parameters: dict[str, object]) -> None:
    """Whatever their order, equal parameters are the same text, hash alike, and survive pickling."""
    turned = dict(reversed(parameters.items()))
    one, two = (ModelSpec("m", parameters=freeze(each)) for each in (parameters, turned))
    assert one == two and hash(one) == hash(two) and pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"task": "fill-mask"},
        {"revision": "v1"},
        {"parameters": {"top_k": 2}},
        {"engine": "torch"},
        {"device": "cpu"},
        {"dtype": "float32"},
        {"max_batch_size": 1},
        {"max_batch_tokens": 1},
        {"on_too_long": "dead_letter"},
        {"model_copies": 2},
        {"time_limit_s": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_tells_two_models_apart(change: dict[str, object]) -> None:
    """A model kept for one spec is never taken for another that differs in a single field."""
    plain = HuggingFaceModelHandler("m").spec
    other = HuggingFaceModelHandler(**{"model": "m", **change}).spec  # type: ignore[arg-type]
    assert plain != other and hash(plain) != hash(other)


def test_a_spec_cannot_change() -> None:
    """What a model is kept by stays what it was."""
    with pytest.raises(AttributeError):
        ModelSpec("m").task = "fill-mask"  # type: ignore[misc]


def test_no_token_is_in_a_spec() -> None:
    """Printing what a handler runs, local or remote, tells nothing of its token, nor does the spec's pickle."""
    local = HuggingFaceModelHandler("m", token=lambda: "hf_very_secret")
    remote = EndpointModelHandler("https://host", "fill-mask", token=TokenSource("env:VERY_SECRET"))
    for spec in (local.spec, remote.spec):
        assert "secret" not in repr(spec).lower() and b"secret" not in pickle.dumps(spec).lower()


def test_parameters_come_back_as_the_task_takes_them() -> None:
    """Frozen and thawed, parameters are validated values; those of another task are refused by the field's name."""
    entry = TASKS["text-classification"]
    assert thaw(freeze({"top_k": None, "function_to_apply": "none"}), entry) == {
        "top_k": None,
        "function_to_apply": "none",
    }
    with pytest.raises(ModelLoadError, match="`parameters`: parameters.pool: text-classification has no such"):
        thaw(freeze({"pool": True}), entry)
