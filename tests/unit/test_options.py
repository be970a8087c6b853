"""Options: every flag's bad value is one clear line, and the table is the one place of truth."""

import dataclasses

import pytest
from apache_beam.options.pipeline_options import StandardOptions

from pipeline.beam_flags import runner
from pipeline.flags import UsageError, help_text
from pipeline.options import FLAGS, InferenceOptions, Settings, parse
from transforms.windowing import Windowing

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
    assert parse(argv())[1].view_as(StandardOptions).streaming is True


def test_every_flag_is_a_setting_and_has_help():
    """Flags and Settings name the same things, and each flag stands in a group of its own kind."""
    fields = {each.name for each in dataclasses.fields(Settings)}
    assert {flag.name for flag in FLAGS} == fields - {"job", "local", "run"}
    groups = ["Messages", "Model", "Windows and batches", "Audit", "Watching", "Remote endpoint"]
    assert list(dict.fromkeys(flag.group for flag in FLAGS)) == groups


def test_a_default_stands_in_one_place():
    """Settings made in code have the defaults of the flags, whichever they are."""
    assert parse(argv())[0] == Settings(**GOOD, job="input", local=True)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_an_empty_value_is_refused(flag):
    """--flag= is a mistake of a script, and never the same as leaving it out."""
    with pytest.raises(UsageError, match=f"--{flag.name} '': is empty; give a value"):
        parse([*argv(), f"--{flag.name}="])


BAD = {
    "health_port": ["", "x", "70000", "host:", ":80", "a b:80", "-1"],
    "input_subscription": [
        "in",
        "projects/my-project/topics/input",
        "projects/my-project/subscriptions/",
        "projects/P/subscriptions/input",
    ],
    "output_topic": ["out", "projects/my-project/subscriptions/out", "projects/my-project/topics/goog-out"],
    "dead_letter_topic": ["dead", "projects/my-project/topics/ab"],
    "model": [" my-org/model", "my-model\n", "my\x00model"],
    "models": [" models.yaml", "models.yaml\n"],
    "models_refresh_s": ["0", "-3", "soon", "inf"],
    "models_memory": ["0", "-1", "1.5", "60%"],
    "revision": [" ", "main "],
    "task": ["\tfill-mask"],
    "metrics_file": ["/", "."],
    "input_path": ["a[", "][", "length("],
    "id_attribute": ["goog_id", "a b"],
    "timestamp_attribute": ["googtime", " "],
    "inference_params": ["{", "[1]", "top_k=3", "7", '{"a": NaN}', '{"a": 1e400}', '{"a": 1, "a": 2}'],
    "device": ["gpu", "CUDA", "tpu"],
    "engine": ["onnx", "Torch", "openvino,torch"],
    "dtype": ["bf16", "int8"],
    "on_too_long": ["cut", "drop"],
    "result_input": ["all", "input"],
    "model_copies": ["0", "-1", "two", "1.5", "٣", "1_0"],
    "max_deaths": ["0", "101", "two", "1.5"],
    "max_forward_s": ["0", "-3", "soon", "inf"],
    "time_limit_s": ["0", "-3", "soon", "inf", "nan", "1e400", "1_0", "５"],
    "window": ["fixd:60", "fixed:", "sliding:30:60", "fixed:999999999999", "session:1e400", "fixed:1e-9", "fixed:６0"],
    "allowed_lateness": ["-1", "1h", "99999999999"],
    "window_early_s": ["0", "0.5", "often"],
    "max_batch_size": ["0", "many", "99999999999999999999"],
    "max_batch_tokens": ["0", "4k"],
    "max_bundle_ms": ["0", "1s", "-5"],
    "max_batch_latency_ms": ["0", "1s"],
    "audit_table": ["audit", "dataset.table", "my-project:table", "my-project:a-b.c"],
    "audit_input": ["all", "sha256"],
    "input_format": ["AVRO", "xml"],
    "audit_prediction": ["hash", "yes"],
    "audit_attributes": ["a,,b", ","],
    "summary_table": ["summary", "my-project:summary"],
    "summary_topic": ["summary", "projects/my-project/subscriptions/summary"],
    "log_format": ["yaml", "JSON"],
    "endpoint": [
        "localhost:8080",
        "ftp://host/x",
        "provider:",
        "provider:A B",
        "https://host:99999/",
        "vertex:projects/p/locations/l",
        "vertex:1234",
    ],
    "endpoint_timeout_s": ["0", "never"],
    "endpoint_max_wait_s": ["-1"],
    "endpoint_concurrency": ["0", "lots"],
    "endpoint_auth": ["googel", "HF"],
    "endpoint_impersonate": ["me@example.com", "worker", "a@p.iam.gserviceaccount.com@evil.example"],
    "endpoint_requests_per_s": ["0", "-1", "nan"],
    "endpoint_tokens_per_min": ["0", "1.5", "many"],
    "endpoint_hedge_after_s": ["0", "soon"],
    "endpoint_cache_mib": ["0", "99999999", "1GiB"],
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
    """Only the token source, below, is missing from the table above."""
    assert {flag.name for flag in FLAGS} - set(BAD) == {"hf_token_source"}


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
        ({"summary_topic": GOOD["output_topic"]}, "it is also --output_topic"),
        ({"summary_topic": "projects/my-project/topics/summaries", "window": "global"}, "fixed, sliding or session"),
        ({"audit_table": "my-project:a.audit", "summary_table": "my-project.a.audit"}, "it is also --audit_table"),
        ({"audit_table": "p-roject:a.b", "summary_table": "p-roject:a.c", "window": "global"}, "use fixed, sliding or"),
        ({"metrics_file": "m.json", "runner": "dataflow"}, "--metrics_file 'm.json': for a job on this machine"),
        ({"max_bundle_ms": "50", "runner": "dataflow"}, "--max_bundle_ms '50': for a job on this machine"),
        ({"max_bundle_ms": "50", "endpoint": "https://host/x", "task": "fill-mask"}, "with a model of its own"),
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


@pytest.mark.parametrize(
    "name",
    [
        "DirectRunner",
        "directrunner",
        "DIRECTRUNNER",
        "Directrunner",
        "Direct",
        "direct",
        "BundleBasedDirectRunner",
        "bundlebaseddirect",
        "SwitchingDirectRunner",
        "apache_beam.runners.DirectRunner",
        "apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner",
    ],
)
def test_this_machines_runner_in_any_spelling(name):
    """However Beam would let it be written, the job runs on our source and Beam is told the exact name."""
    settings, options = parse(argv(runner=name))
    assert settings.local and options.view_as(StandardOptions).runner == "DirectRunner"


@pytest.mark.parametrize(
    "name",
    ["DataflowRunner", "dataflowrunner", "Dataflow", "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"],
)
def test_dataflow_in_any_spelling(name):
    """So does the service's."""
    settings, options = parse(argv(runner=name))
    assert not settings.local and options.view_as(StandardOptions).runner == "DataflowRunner"


def test_without_a_runner_it_is_this_machine():
    """As in Beam."""
    settings, options = parse(argv())
    assert settings.local and options.view_as(StandardOptions).runner == "DirectRunner"


OTHERS = {path.rpartition(".")[2] for path in StandardOptions.ALL_KNOWN_RUNNERS} - {
    "DirectRunner",
    "BundleBasedDirectRunner",
    "SwitchingDirectRunner",
    "DataflowRunner",
}


@pytest.mark.parametrize(
    "name",
    [*sorted(OTHERS), *(each.lower() for each in sorted(OTHERS)), *StandardOptions.ALL_KNOWN_RUNNERS]
    + [" ", "nonsense", "Direct Runner", "DirectRunner ", "my.own.DirectRunner", "pythonrpcdirectrunner", "é", "."],
)
def test_no_other_runner_is_let_through(name):
    """Each runner that Beam knows either is one of the two, or is refused: Beam's own source would read there."""
    try:
        parse(argv(runner=name))
    except UsageError as error:
        assert str(error).startswith(f"--runner {name!r}: ") and "DirectRunner (this machine)" in str(error)
    else:
        assert name.rpartition(".")[2] not in OTHERS and name.startswith("apache_beam.")


def test_a_runner_misspelt_is_suggested():
    """The nearest of the two is named."""
    with pytest.raises(UsageError, match="did you mean DataflowRunner"):
        runner("DataflowRuner")


def test_beams_own_errors_are_in_our_form():
    """A wrong value of a flag of Beam's is one line that begins with the flag."""
    for flag, words in (
        ("--num_workers=two", "--num_workers 'two': not a valid int"),
        ("--num_workers", "--num_workers: its value is missing"),
        ("--job_name=", "--job_name '': is empty; give a value, or leave the flag out"),
        ("--autoscaling_algorithm=MAGIC", "--autoscaling_algorithm 'MAGIC': use one of"),
    ):
        with pytest.raises(UsageError) as error:
            parse([*argv(), flag])
        assert str(error.value).startswith(words) and "\n" not in str(error.value)


def test_our_flags_travel_with_beams_options():
    """The job's options in Dataflow's console show what was asked for, the last of each."""
    options = parse([*argv(), "--window", "global", "--num_workers", "3", "--window=session:5"])[1]
    assert options.view_as(InferenceOptions).window == "session:5"
    assert options.get_all_options()["num_workers"] == 3


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
