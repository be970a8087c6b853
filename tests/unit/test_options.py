"""Options: every flag's bad value is one clear line, and the table is the one place of truth."""

import dataclasses

import pytest

from pipeline.options import FLAGS, InferenceOptions, Settings, UsageError, help_text, parse
from transforms.window import Windowing

GOOD = {
    "input_subscription": "projects/my-project/subscriptions/input",
    "output_topic": "projects/my-project/topics/out",
    "dead_letter_topic": "projects/my-project/topics/dead",
    "model": "my-model",
}


def argv(**flags) -> list[str]:
    return [f"--{name}={value}" for name, value in {**GOOD, **flags}.items() if value is not None]


def test_good_flags_parse():
    """The least set of flags gives settings with the documented defaults."""
    settings, _ = parse(argv())
    assert settings.window == Windowing("fixed", 60.0)
    assert (settings.max_batch_size, settings.device, settings.audit_input) == (512, "auto", "hash")
    assert (settings.job, settings.local) == ("input", True)


def test_streaming_is_set_in_code():
    """Nobody has to remember --streaming."""
    from apache_beam.options.pipeline_options import StandardOptions

    assert parse(argv())[1].view_as(StandardOptions).streaming is True


def test_every_flag_is_a_setting_and_has_help():
    """Flags and Settings name the same things, with the same defaults."""
    fields = {each.name: each for each in dataclasses.fields(Settings)}
    for flag in FLAGS:
        assert flag.help and not flag.help.endswith("."), flag.name
        assert flag.name in fields, flag.name
    defaults = {flag.name: flag.parse(flag.default) for flag in FLAGS if flag.default is not None}
    assert {name: fields[name].default for name in defaults} == defaults


BAD = {
    "input_subscription": [
        "in",
        "projects/my-project/topics/input",
        "projects/my-project/subscriptions/",
        "projects/P/subscriptions/input",
    ],
    "output_topic": ["out", "projects/my-project/subscriptions/out", "projects/my-project/topics/goog-out"],
    "dead_letter_topic": ["dead", "projects/my-project/topics/ab"],
    "input_path": ["a[", "][", "length("],
    "id_attribute": ["goog_id", "a b"],
    "timestamp_attribute": ["googtime", " "],
    "inference_params": ["{", "[1]", "top_k=3", "7"],
    "device": ["gpu", "CUDA", "tpu"],
    "dtype": ["bf16", "int8"],
    "on_too_long": ["cut", "drop"],
    "model_copies": ["0", "-1", "two", "1.5"],
    "time_limit_s": ["0", "-3", "soon", "inf", "nan"],
    "window": ["fixd:60", "fixed:", "sliding:30:60"],
    "max_batch_size": ["0", "many", "99999999999999999999"],
    "max_batch_tokens": ["0", "4k"],
    "max_batch_latency_ms": ["0", "1s"],
    "audit_table": ["audit", "dataset.table", "my-project:table", "my-project:a-b.c"],
    "audit_input": ["all", "sha256"],
    "summary_table": ["summary", "my-project:summary"],
    "log_format": ["yaml", "JSON"],
    "endpoint": ["localhost:8080", "ftp://host/x", "provider:", "provider:A B"],
    "endpoint_timeout_s": ["0", "never"],
    "endpoint_max_wait_s": ["-1"],
    "endpoint_concurrency": ["0", "lots"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_one_clear_line(name, value):
    """The error names the flag, its value and the way out, on one line."""
    with pytest.raises(UsageError) as error:
        parse(argv(**{name: value}))
    words = str(error.value)
    assert words.startswith(f"--{name} {value!r}: ") and "\n" not in words
    assert len(words) > len(f"--{name} {value!r}: ") + 10


def test_every_flag_that_can_be_wrong_is_tried():
    """Only flags that take any text, and the token source below, are missing from the table above."""
    assert {flag.name for flag in FLAGS} - set(BAD) == {"model", "revision", "task", "metrics_file", "hf_token_source"}


@pytest.mark.parametrize("name", ["input_subscription", "output_topic", "dead_letter_topic"])
def test_a_missing_flag_is_named(name):
    """What is required and absent is asked for by name."""
    with pytest.raises(UsageError, match=f"--{name} is missing"):
        parse(argv(**{name: None}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"model": None}, "one of --model"),
        ({"endpoint": "https://host/x"}, "--endpoint needs --task"),
        ({"model": None, "endpoint": "provider:auto", "task": "fill-mask"}, "needs --model"),
        ({"model": None, "endpoint": "https://host/x"}, "--endpoint needs --task"),
        ({"dead_letter_topic": GOOD["output_topic"]}, "also --output_topic"),
    ],
)
def test_flags_that_do_not_go_together(flags, words):
    """Combinations without a meaning are refused before the job starts."""
    with pytest.raises(UsageError, match=words):
        parse(argv(**flags))


def test_a_misspelt_flag_stops_the_launch():
    """Beam would drop it with a warning; here its neighbour is suggested."""
    with pytest.raises(UsageError, match="did you mean --max_batch_size"):
        parse([*argv(), "--max_batch_sise=3"])


@pytest.mark.parametrize("token", ["hf_abcdefghijklmnop", "env:", "secret:my-secret"])
def test_a_token_in_a_flag_is_not_repeated(token):
    """Whoever pastes the token itself is told where it belongs, and the error does not show it."""
    with pytest.raises(UsageError, match="never the token itself") as error:
        parse(argv(hf_token_source=token))
    assert token not in str(error.value).replace("env:NAME", "")


def test_token_sources_are_accepted():
    """A variable, a file and a secret."""
    for source in ("env:HF_TOKEN", "file:/run/secrets/hf", "secret:projects/my-project/secrets/hf/versions/latest"):
        assert parse(argv(hf_token_source=source))[0].hf_token_source == source


def test_beams_own_flags_pass():
    """Runner, project and job name are Beam's business; the job's name is in the audit rows."""
    settings, _ = parse(
        [*argv(), "--runner=DataflowRunner", "--project=my-project", "--region=europe-west1", "--job_name=j"]
    )
    assert (settings.local, settings.job) == (False, "j")


def test_help_names_choices_and_default():
    """A flag's help says what it takes and what it is otherwise."""
    device = next(flag for flag in FLAGS if flag.name == "device")
    assert "auto | cpu | cuda" in help_text(device) and "default auto" in help_text(device)


def test_no_flag_collides_with_beams():
    """Our names are ours alone."""
    import argparse

    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        if options is not InferenceOptions:
            options._add_argparse_args(parser)
    theirs = {option for action in parser._actions for option in action.option_strings}
    assert not theirs & {f"--{flag.name}" for flag in FLAGS}
