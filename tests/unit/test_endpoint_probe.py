"""A look at an endpoint before a launch: one clear line for each thing that an operator must mend."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_endpoint import SHA, FakeEndpoint, Fault

from transforms.models.errors import ModelLoadError
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.token import TokenSource

ROOT = Path(__file__).parents[2]
OLD, NEW = "hf_oldOldOldOldOld1234", "hf_newNewNewNewNew5678"


def look(url: str, task="feature-extraction", **settings):
    return EndpointModelHandler(url, task, timeout_s=5, **settings).probe()


def test_a_healthy_endpoint_says_who_it_is():
    """A look at the endpoint costs one small request, and tells which model answers."""
    with FakeEndpoint("tei").running() as fake:
        assert look(fake.url).revision == SHA and len(fake.posts) == 1


def self_signed(folder: Path) -> tuple[str, str]:
    """A certificate that nobody vouches for, and its key."""
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return certificate, key
    pytest.skip("needs openssl")


def test_what_an_operator_must_mend_is_one_clear_line(tmp_path, monkeypatch):
    """An expired token, a missing scope, an unknown model, a wrong URL or task, and a certificate of one's own."""
    monkeypatch.setenv("SECRET_TOKEN", OLD)
    token = TokenSource("env:SECRET_TOKEN")
    scope = Fault(403, {"error": "This authentication method does not have sufficient permissions"})
    page = Fault(200, "<!doctype html><html><title>Welcome</title></html>")
    with contextlib.ExitStack() as stack:

        def start(*args, **settings) -> str:
            return stack.enter_context(FakeEndpoint(*args, **settings).running()).url

        cases = {
            "expired": ({"url": start(tokens={NEW}), "token": token}, "401: .*the token is expired or wrong"),
            "no token": ({"url": start(tokens={NEW})}, "401: .*it wants a token"),
            "scope": ({"url": start(script=lambda n, p, b: scope), "token": token}, "403: .*lacks a permission"),
            "model": (
                {"url": start("openai") + "/v1", "model": "org/unknown"},
                "404: The model 'org/unknown' does not exist",
            ),
            "url": ({"url": start() + "/nowhere"}, "404: Not Found; check the URL"),
            "page": ({"url": start(script=lambda n, p, b: page)}, "not JSON; check the task and the URL"),
            "task": (
                {"url": start(), "task": "text-classification"},
                "no answer to `task=text-classification`: expected",
            ),
            "certificate": (
                {"url": start(tls=self_signed(tmp_path))},
                "not trusted .self.signed certificate.; set SSL_CERT_FILE",
            ),
            "source": ({"url": start(), "token": TokenSource("env:NOT_SET_AT_ALL")}, "the variable is not set"),
        }
        for name, (settings, words) in cases.items():
            with pytest.raises(ModelLoadError, match=words) as error:
                look(**settings)
            text = str(error.value)
            print(f"{name}: {text}")
            assert "\n" not in text and OLD not in text, name


def test_a_certificate_of_one_s_own_can_be_trusted(tmp_path):
    """SSL_CERT_FILE is the way out that the error names, and it works."""
    tls = self_signed(tmp_path)
    with FakeEndpoint("tei", tls=tls).running() as fake:
        code = "import sys; from transforms.models.remote.handler import EndpointModelHandler as Handler;"
        code += "print(Handler(sys.argv[1], 'feature-extraction').probe())"
        command = [sys.executable, "-c", code, fake.url]
        environment = {**os.environ, "SSL_CERT_FILE": tls[0]}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert "org/embedder" in done.stdout, done.stderr


def test_an_endpoint_that_is_only_away_does_not_stop_a_launch(caplog):
    """No server there yet: a warning that says so, and the job starts; its messages wait."""
    with FakeEndpoint().running() as fake:
        url = fake.url
    assert look(url) is None
    assert "starting all the same" in caplog.text and url in caplog.text
