"""The flag engine: what each matcher takes, how argv is read, and that errors and help look alike in every command."""

from __future__ import annotations

import dataclasses
import importlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import flags, matchers
from pipeline.cli import COMMANDS
from pipeline.flags import Flag, UsageError, read, split

TABLE = (
    Flag("topic", "where to", matchers.TOPIC, required=True, group="Where"),
    Flag("count", "how many", matchers.Integer(1, 64), "2"),
    Flag("wait_s", "how long", matchers.seconds),
    Flag("kind", "which", choices=("a", "b"), default="a"),
    Flag("token", "where the token is", matchers.TOKEN_SOURCE, secret=True),
    Flag("only", "these", matchers.pair, repeated=True),
    Flag("dry_run", "change nothing", switch=True),
    Flag("parent", "for our own processes", switch=True, hidden=True),
)
TOPIC = "projects/my-project/topics/out"


def test_every_form_of_a_flag_is_read():
    """With = or a blank, given once or again; what is not given has its default, or None."""
    found = read(TABLE, [f"--topic={TOPIC}", "--count", "3", "--only=a=1", "--only", "b=", "--dry_run"])
    assert found == {
        "topic": TOPIC,
        "count": 3,
        "wait_s": None,
        "kind": "a",
        "token": None,
        "only": [("a", "1"), ("b", "")],
        "dry_run": True,
        "parent": False,
    }


def test_of_a_flag_given_twice_the_last_counts():
    """A script's own flags can be overridden at its end, and a value that is not used may be wrong."""
    assert read(TABLE, ["--topic=nonsense", f"--topic={TOPIC}", "--count=9", "--count=1"])["count"] == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--topic is missing: where to"),
        (["--topic="], "--topic '': is empty; give a value, or leave the flag out"),
        (["--topic"], "--topic: its value is missing; use --topic=VALUE"),
        (["--topic", "--dry_run"], "--topic: its value is missing"),
        (["--topic=x"], "--topic 'x': not a topic; use projects/PROJECT/topics/TOPIC"),
        (["--topicc=x"], "--topicc: no such flag; did you mean --topic?"),
        (["--dry-run"], "--dry-run: no such flag; did you mean --dry_run?"),
        (["-dry_run"], "-dry_run: no such flag; did you mean --dry_run?"),
        (["--dry_run=no"], "--dry_run 'no': takes no value; give --dry_run alone, or leave it out"),
        (["--zzz"], "--zzz: no such flag; see --help"),
        (["--"], "--: no such flag"),
        (["out"], "'out': not a flag; flags are given as --name=VALUE"),
        (["--paren=x"], "--paren: no such flag; see --help"),
        ([f"--topic={TOPIC}", "--kind=A"], "--kind 'A': use a or b"),
        ([f"--topic={TOPIC}", "--count=0"], "--count '0': use a whole number from 1 to 64"),
        ([f"--topic={TOPIC}", "--only=x"], "--only 'x': use KEY=VALUE"),
        ([f"--topic={TOPIC}", "--only=a=1", "--only="], "--only '': is empty"),
        ([f"--topic={TOPIC}\n"], "not a topic"),
    ],
)
def test_wrong_usage_names_flag_value_cause_and_way_out(argv, words):
    """Each kind of wrong argument is one line that says all of it."""
    with pytest.raises(UsageError) as error:
        read(TABLE, argv)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_secret_is_shown_in_no_error():
    """Neither as the wrong value of its own flag, nor behind a misspelt one."""
    for argv in (["--token=hf_secret"], ["--tokn=hf_secret"], ["--hf_token=hf_secret"]):
        with pytest.raises(UsageError) as error:
            read(TABLE, [f"--topic={TOPIC}", *argv])
        assert "hf_secret" not in str(error.value)


def test_an_endless_value_is_cut():
    """A megabyte pasted into a flag does not fill the terminal."""
    with pytest.raises(UsageError) as error:
        read(TABLE, ["--topic=" + "x" * 1_000_000])
    assert len(str(error.value)) < 500


@given(st.lists(st.text(max_size=12), max_size=6))
def test_whatever_is_given_is_read_or_refused_in_one_line(argv):
    """No argument, however odd, ends in anything but values or a UsageError of one line."""
    for each in (argv, [f"--topic={TOPIC}", *(f"--{name}={text}" for name in ("count", "wait_s") for text in argv)]):
        try:
            read(TABLE, each)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1


def test_what_is_not_ours_is_left_in_order():
    """The job hands Beam's flags on as they were, values of their own words included."""
    texts, rest = split(TABLE, ["--num_workers", "3", f"--topic={TOPIC}", "--runner=X"])
    assert (texts, rest) == ({"topic": [TOPIC]}, ["--num_workers", "3", "--runner=X"])


NO_NUMBERS = [
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e400",
    "1e-400",
    "1_0",
    "١",
    "５",
    "0x10",
    " 5",
    "5 ",
    "5\n",
    "-1",
    "0",
]


@pytest.mark.parametrize("text", [*NO_NUMBERS, "86401", "1e9", "five", "1e", "."])
def test_no_seconds(text):
    """Seconds are finite, positive, in ASCII digits, and at most a day."""
    with pytest.raises(ValueError, match="use seconds, more than 0 and up to 86400"):
        matchers.seconds(text)


def test_seconds():
    """Decimal and scientific notation."""
    assert [matchers.seconds(text) for text in ("30", "2.5", ".5", "5.", "1e-3", "8.64E4")] == [
        30,
        2.5,
        0.5,
        5,
        0.001,
        86400,
    ]


@pytest.mark.parametrize("text", [*NO_NUMBERS, "65", "1.0", "1e1", "9" * 30])
def test_no_integers(text):
    """Whole numbers are in ASCII digits and between their bounds."""
    with pytest.raises(ValueError, match="use a whole number from 1 to 64"):
        matchers.Integer(1, 64)(text)


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 100_000, "null", "1"]
)
def test_no_json_objects(text):
    """JSON knows no NaN, no infinite number and no key twice; depth is an error, not a crash."""
    with pytest.raises(ValueError, match="use an object"):
        matchers.json_object(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "http://:80/x",
        "https://host:99999/x",
        "https://host:x",
        "http://[::1",
        "host",
        "ftp://h",
        "https://h/a b",
    ],
)
def test_no_endpoints(text):
    """An endpoint is a URL with a host and a port that exists, or a provider."""
    with pytest.raises(ValueError, match="not a URL.*use https://HOST/PATH"):
        matchers.Endpoint()(text)


def test_endpoints():
    """Host names, addresses, ports and providers."""
    for text in ("https://h", "http://10.0.0.5:8000/v1", "http://[::1]:80/x", "provider:auto", "provider:hf-inference"):
        assert matchers.Endpoint()(text) == text


@pytest.mark.parametrize("text", ["goog_x", "", "a b", "a\x00", "é" * 129, "x" * 257])
def test_no_attributes(text):
    """A key that Pub/Sub would refuse is refused here: its limit is 256 bytes, not characters."""
    with pytest.raises(ValueError, match="not a Pub/Sub attribute key"):
        matchers.Attribute()(text)


@pytest.mark.parametrize(
    "text",
    [
        "now",
        "1y",
        "-1h",
        "１h",
        "9999999999d",
        "2030-13-01",
        "2030-01-01T25:00:00Z",
        "0000-01-01",
        "2030-01-31T12:00:00Z\x00",
    ],
)
def test_no_moments(text):
    """Neither a word, nor digits of another script, nor a time beyond the calendar."""
    with pytest.raises(ValueError, match="use 2030-01-31T12:00:00Z, or 15m"):
        matchers.moment(text)


def test_moments():
    """Dates and times of RFC 3339, in UTC where they name no offset, and how long ago."""
    noon = 1896004800.0
    assert matchers.moment("2030-01-30T12:00:00Z") == matchers.moment("2030-01-30 12:00:00") == noon
    assert matchers.moment("2030-01-30T14:00:00.5+02:00") == noon + 0.5
    assert matchers.moment("2030-01-30T12:00:00.123456789z") == pytest.approx(noon + 0.123456, abs=1e-6)
    assert matchers.moment("2030-01-30") == noon - 12 * 3600
    assert matchers.moment("2h") == pytest.approx(time.time() - 7200, abs=5)


@pytest.mark.parametrize("text", [" ", "a ", " a", "a\tb", "a\x00", "\ud800"])
def test_no_text(text):
    """What a shell's quoting left at the ends or in between is no name of a model."""
    with pytest.raises(ValueError, match="leave these out"):
        matchers.text(text)


def test_a_folder_is_no_file(tmp_path):
    """Where a file is asked for, a folder is refused at once and not when it is written."""
    assert matchers.path(str(tmp_path / "new" / "file.json")) == tmp_path / "new" / "file.json"
    with pytest.raises(ValueError, match="is a folder"):
        matchers.path(str(tmp_path))


def _tables():
    from pipeline import metadata, options, replay, summary
    from pipeline.console import settings
    from pipeline.emulators import __main__ as emulators

    return [options.FLAGS, replay.REPLAY_FLAGS, summary._FLAGS, settings.FLAGS, emulators._FLAGS, metadata._FLAGS]


def test_every_flag_of_every_command_is_sound():
    """Names are one's own and in one style, helps are phrases, defaults parse and are among the choices."""
    for table in _tables():
        assert len({flag.name for flag in table}) == len(table)
        for flag in table:
            assert re.fullmatch(r"[a-z][a-z_]*", flag.name) and flag.help and not flag.help.endswith(".")
            assert not (flag.required and flag.default) and not (flag.switch and flag.default)
            assert flag.default is None or flag.default_value() is not None
            assert not flag.choices or flag.default is None or flag.default in flag.choices


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_looks_alike(command, capsys):
    """Every command prints its two names, its groups, required marks, choices and defaults, and the exit codes."""
    main = importlib.import_module(command.module).main
    assert main(["--nonsense", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    module = command.module.removesuffix(".__main__")
    assert lines[0].startswith(f"usage: beam-hf-inference {command.name} [--FLAG=VALUE ...]")
    assert lines[1].startswith(f"   or: python -m {module} [--FLAG=VALUE ...]") and lines[2] == ""
    assert lines[-1].endswith("Exit codes: 0 done, 1 failed, 2 wrong usage.")
    assert any(re.fullmatch(r"[A-Z][\w ]+:", line) for line in lines)
    assert all(len(line) <= 120 for line in lines)


def test_help_shows_what_a_flag_is(capsys):
    """Required and repeatable ones are marked, choices and defaults named, hidden ones left out."""
    assert flags.print_help("x", "pipeline.x", "What it does.", TABLE) == 0
    out = capsys.readouterr().out
    for name, words in (
        ("--topic=", "(required) where to"),
        ("--only=", "(may be given again) these"),
        ("--kind=a|b", "which (a | b; default a)"),
        ("--count=", "how many (default 2)"),
    ):
        assert re.search(rf"^  {re.escape(name)}\S* +{re.escape(words)}", out, re.M), out
    assert "--parent" not in out and out.index("Where:") < out.index("--topic") < out.index("Flags:")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
@pytest.mark.parametrize("argv", [["--nonsense=1"], ["word"], ["--audit_table="], ["--audit_table"]])
def test_wrong_usage_looks_alike(command, argv, capsys):
    """In every command a wrong flag is one line on standard error and exit code 2, with nothing on standard output."""
    if argv == ["word"] and command.name == "emulators publish":
        pytest.skip("it takes words")
    assert importlib.import_module(command.module).main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: "), err


def test_a_flag_is_a_record():
    """Nobody changes a flag in passing."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE[0].name = "other"
