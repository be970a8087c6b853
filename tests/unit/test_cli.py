"""The console script: every command under one name, at no cost until one runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from streams import ROOT

from pipeline import __version__, cli


def run(*argv: str, code: str = "from pipeline.cli import script; script()") -> subprocess.CompletedProcess[str]:
    """The command as its console script runs it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_every_command(capsys):
    """--help names each with what it does, on standard output, and exits with 0; no command at all is wrong usage."""
    assert cli.main(["--help"]) == 0 == cli.main(["-h"])
    out = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"  {command.name:<19}{command.about}" in out
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: beam-hf-inference COMMAND")


def test_help_and_version_import_no_beam_and_no_torch():
    """They cost an interpreter's start: nothing heavy is imported."""
    code = "import sys; from pipeline.cli import main; main(sys.argv[1:]); print(sorted(sys.modules), file=sys.stderr)"
    for flag in ("--help", "--version", "--nonsense"):
        loaded = set(run(flag, code=code).stderr.replace("'", "").replace("[", "").split(", "))
        assert not {"apache_beam", "torch", "google.api_core", "grpc", "duckdb", "transformers"} & loaded


def test_version(capsys):
    """One number: the package's."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"beam-hf-inference {__version__}\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rum", "did you mean run?"),
        ("Run", "did you mean run?"),
        ("emulator", "did you mean emulators?"),
        ("", "use run, doctor,"),
        ("--runner=x", "no such command"),
        ("main\n", "no such command"),
    ],
)
def test_an_unknown_command_is_one_line(name, words, capsys):
    """It names what was given, but no flag's value, and the way out, with exit code 2."""
    assert cli.main([name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name.partition('=')[0]!r}: no such command; ") and words in line


def test_a_command_gets_its_arguments_and_its_exit_code():
    """The process ends with the code of the command's main: here wrong usage, told by the command itself."""
    done = run("replay", "--topic=x")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: --dead_letter_subscription is missing: subscription of the dead-letter topic\n"


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("emulators", "duckdb", "local"),
        ("emulators", "sqlglot", "local"),
        ("console", "uvicorn", "console"),
        ("console", "starlette", "console"),
    ],
)
def test_a_missing_extra_is_named(command, module, extra):
    """Without an extra, its command is one line that says what to install; its help works all the same."""
    code = f"""
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "{module}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from pipeline.cli import script
script()
"""
    watched = ["--audit_table=my-project:inference.audit"] if command == "console" else []
    done = run(command, *watched, code=code)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"error: {command} needs {module}; run: pip install 'beam-hf-inference[{extra}]'\n"
    assert run(command, "--help", code=code).returncode == 0


def test_without_the_command_itself_the_extra_is_named(monkeypatch, capsys):
    """A wheel, which carries no emulators, says where they are and what they need."""
    monkeypatch.setitem(sys.modules, "pipeline.emulators", None)
    monkeypatch.delitem(sys.modules, "pipeline.emulators.__main__", raising=False)
    assert cli.main(["emulators"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: emulators needs pipeline.emulators") and "in a checkout" in line


def test_a_bug_is_not_taken_for_a_missing_extra(monkeypatch):
    """A module that a command without an extra does not find is a fault of ours, and ends loudly."""
    monkeypatch.setitem(sys.modules, "pipeline.replay", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["replay"])
