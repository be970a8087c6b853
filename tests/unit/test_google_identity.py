"""Google's identity: whose token goes where, for how long, and that it shows nowhere."""

from __future__ import annotations

import json
import logging
import pickle

import pytest
from fake_endpoint import FakeEndpoint, Fault
from fake_vertex import FakeMetadata, FakeVertex, this_machine

from transforms.models import token as token_module
from transforms.models.errors import ModelLoadError
from transforms.models.remote import caller, circuit_breaker, identity
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.remote.identity import GoogleIdentity, source, usual_auth
from transforms.models.scrub import without_tokens
from transforms.models.token import TokenError, TokenKeeper, TokenSource
from transforms.records import Failure, Message, Prediction, Request

VERTEX = "vertex:projects/my-project/locations/europe-west4/endpoints/1234567890"


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Back-off and probes in hundredths of their seconds."""
    monkeypatch.setattr(caller, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(caller, "LAST_WAIT_S", 0.05)
    monkeypatch.setattr(circuit_breaker, "FIRST_PROBE_S", 0.01)
    monkeypatch.setattr(circuit_breaker, "LAST_PROBE_S", 0.05)


@pytest.fixture
def metadata(monkeypatch, tmp_path):
    """This machine is a VM of Google's: its metadata server gives the tokens."""
    with this_machine(monkeypatch, tmp_path) as fake:
        yield fake


def run(endpoint: str, inputs, task="feature-extraction", parameters=None, **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch."""
    handler = EndpointModelHandler(endpoint, task, **settings)
    asked = [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]
    return list(handler.run_inference(asked, handler.load_model()))


@pytest.mark.parametrize(
    ("endpoint", "has_token", "auth"),
    [
        (VERTEX, False, "google"),
        ("https://europe-west4-aiplatform.googleapis.com/v1/x", False, "google"),
        ("https://1.europe-west4-2.prediction.vertexai.goog/v1", False, "google"),
        ("https://tei-123456789012.europe-west4.run.app", False, "google-id"),
        ("https://tei-abc-ew.a.run.app/v1", False, "google-id"),
        ("https://europe-west4-my-project.cloudfunctions.net/f", False, "google-id"),
        ("https://host.example", False, "none"),
        ("https://host.example", True, "hf"),
        ("https://googleapis.com.evil.example", False, "none"),
        ("https://evilgoogleapis.com", False, "none"),
        ("https://evil.example/aiplatform.googleapis.com", False, "none"),
        ("http://aiplatform.googleapis.com", False, "none"),
        ("provider:auto", True, "hf"),
    ],
)
def test_what_is_shown_where_nothing_was_said(endpoint, has_token, auth):
    """A Hugging Face token if there is one; Google's to its own hosts only, by the whole of their names."""
    assert usual_auth(endpoint, has_token) == auth


@pytest.mark.parametrize(
    ("endpoint", "settings", "words"),
    [
        (VERTEX, {"auth": "google-id"}, "`auth=google-id`: Vertex AI takes Google's access tokens alone"),
        (VERTEX, {"token": TokenSource("env:HF")}, "`auth=hf`: Vertex AI takes"),
        ("https://h", {"auth": "hf"}, "`auth=hf` needs `token`"),
        ("https://h", {"auth": "googel"}, "`auth=googel`: use hf, google, google-id, none"),
        ("http://h.example", {"auth": "google"}, "not sent without TLS"),
        ("http://10.0.0.5:8080", {"auth": "google-id"}, "not sent without TLS"),
        ("https://h", {"impersonate": "a@b"}, "`impersonate=a@b` needs `auth=google`"),
        ("provider:auto", {"auth": "google", "token": TokenSource("env:HF")}, "take a Hugging Face token alone"),
        ("provider:auto", {"auth": "google"}, "needs `token`"),
        ("vertex:projects/p/locations/l/endpoints/openapi", {}, "needs `model`"),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(endpoint, settings, words):
    """Told before a request, with the field and the way out."""
    with pytest.raises(ModelLoadError) as error:
        model = None if "openapi" in endpoint else "org/model"
        EndpointModelHandler(endpoint, "text-generation", model=model, **settings).check()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_access_token_of_the_machine_is_sent(metadata):
    """One token serves all requests, and the endpoint alone gets it."""
    with FakeVertex(tokens=metadata.tokens).running() as fake:
        outcomes = run(fake.endpoint, [f"t{n}" for n in range(100)], auth="google")
    assert all(isinstance(one, Prediction) for one in outcomes)
    assert {seen.token for seen in fake.seen} == set(metadata.given) and len(metadata.given) == 1


def test_an_id_token_is_for_the_endpoint_s_origin(metadata):
    """The audience is the URL without its path, as Cloud Run has it."""
    with FakeEndpoint("openai", tokens=metadata.tokens).running() as fake:
        (outcome,) = run(f"{fake.url}/v1", ["hello"], auth="google-id")
    assert isinstance(outcome, Prediction) and set(metadata.audiences) == {fake.url}
    assert identity.origin("https://Svc-abc-ew.a.run.app:443/v1/x") == "https://svc-abc-ew.a.run.app"
    assert identity.origin("https://[::1]:8443/v1") == "https://[::1]:8443"


def test_an_id_token_for_a_function_names_it():
    """Of a function the audience ends with its name; of a service, whatever the path, it is the host."""
    for url, audience in (
        ("https://ew1-p.cloudfunctions.net/embed", "https://ew1-p.cloudfunctions.net/embed"),
        ("https://EW1-p.cloudfunctions.net:443/embed/v1/", "https://ew1-p.cloudfunctions.net/embed"),
        ("https://tei-1.europe-west4.run.app/embed", "https://tei-1.europe-west4.run.app"),
        ("https://cloudfunctions.net.example.com/embed", "https://cloudfunctions.net.example.com"),
    ):
        found = identity.source(url, "google-id", None, None)
        assert isinstance(found, GoogleIdentity) and found.audience == audience and found.goes_to(url)


class Renewing:
    """A source whose tokens last so long; every one is another."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.given: list[str] = []

    def lease(self, again: bool) -> token_module.Lease:
        if not self.seconds:
            raise TokenError("away")
        self.given.append(f"token-{len(self.given)}")
        return token_module.Lease(self.given[-1], self.seconds.pop(0))

    def pause_s(self) -> float:
        return 10.0


@pytest.fixture
def clock(monkeypatch):
    """The keeper's clock, which stands until it is moved."""
    now = [1000.0]
    monkeypatch.setattr(token_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(token_module, "REREAD_S", float("inf"))
    return now


@pytest.mark.parametrize(("lasts", "renewed_after"), [(3600.0, 3375.0), (20.0, 15.0), (4.0, 3.0)])
def test_a_token_is_renewed_before_it_ends(clock, lasts, renewed_after):
    """225 seconds before, as Google's own libraries do, or with a quarter of a shorter life left; and not earlier."""
    source_ = Renewing(lasts, lasts)
    keeper = TokenKeeper(source_)
    assert keeper.get() == "token-0"
    clock[0] += renewed_after - 0.1
    assert keeper.at_hand() == (True, "token-0")
    clock[0] += 0.2
    assert keeper.at_hand()[0] is False and keeper.get() == "token-1"


def test_a_lease_that_cannot_be_renewed_lasts_to_its_end(clock):
    """A metadata server that is away for a while stops nothing that a valid token still opens."""
    keeper = TokenKeeper(Renewing(40.0))
    assert keeper.get() == "token-0"
    clock[0] += 35
    assert keeper.at_hand()[0] is False and keeper.get() == "token-0"
    clock[0] += 6
    with pytest.raises(TokenError, match="away"):
        keeper.get()


def test_a_life_of_no_time_is_read_once_a_second(clock):
    """A server that gives what has ended already is not asked for every request."""
    source_ = Renewing(*[0.0] * 100)
    keeper = TokenKeeper(source_)
    for _ in range(100):
        keeper.get()
        clock[0] += 0.05
    assert len(source_.given) <= 6


def test_a_refused_token_is_asked_for_again(metadata):
    """After a 401 another token is taken, and no message is lost; many refusals ask once."""
    with FakeVertex(tokens=metadata.tokens).running() as fake:
        assert isinstance(run(fake.endpoint, ["before"], auth="google")[0], Prediction)
        metadata.revoke()
        outcomes = run(fake.endpoint, [f"t{n}" for n in range(320)], auth="google")
    assert all(isinstance(one, Prediction) for one in outcomes) and len(metadata.given) == 2


def test_a_token_that_is_never_accepted_asks_seldom(metadata):
    """A missing role is no token's fault: each new one would be refused too, and none is asked for at each try."""
    with FakeVertex(tokens={"another"}).running() as fake:
        handler = EndpointModelHandler(fake.endpoint, "feature-extraction", auth="google", max_wait_s=2.0)
        with pytest.raises(caller.EndpointUnavailable, match="401"):
            handler.run_inference([Request("a", {}, Message())], handler.load_model())
    assert 1 <= len(metadata.given) <= 3 and len(fake.posts) >= 2


def test_a_redirect_takes_no_token_along(metadata):
    """Wherever a reply points to, the token stays: it is not followed, and its words say where it led."""
    with FakeEndpoint().running() as elsewhere:
        away = Fault(307, "", {"location": f"{elsewhere.url}/take"})
        with FakeVertex(script=lambda *_: away).running() as fake:
            handler = EndpointModelHandler(fake.endpoint, "feature-extraction", auth="google", max_wait_s=0.3)
            with pytest.raises(caller.EndpointUnavailable):
                handler.run_inference([Request("a", {}, Message())], handler.load_model())
    assert not elsewhere.seen and fake.posts


@pytest.mark.parametrize(
    "dns", ["evil.example", "127.0.0.1:9", "a.b.prediction.vertexai.goog.evil.example", "prediction.vertexai.goog@e.ee"]
)
def test_no_other_domain_is_believed(metadata, dns):
    """A description, or a refusal, that names another host than Google's has no say in where the token goes."""
    fault = Fault(400, {"error": {"code": 400, "message": f"use the dedicated dns name {dns}"}})
    with FakeVertex(tokens=metadata.tokens).running() as fake:
        fake.dedicated = dns
        assert isinstance(run(fake.endpoint, ["a"], auth="google")[0], Prediction)
        fake.hidden = {"endpoint"}
        fake.script = lambda number, *_: fault if number == 2 else None
        assert isinstance(run(fake.endpoint + ":predict", ["a"], auth="google")[0], Prediction)
    assert all(seen.token in metadata.given for seen in fake.seen)


def test_the_token_goes_to_its_own_hosts_only():
    """A guard behind all that makes a request: another host's is refused before it is sent."""
    access = GoogleIdentity("https://mine.example")
    assert access.goes_to("https://mine.example/x") and access.goes_to("https://l-aiplatform.googleapis.com/v1")
    for url in ("http://mine.example/x", "https://mine.example.evil.example", "https://mine.example:8443/x"):
        assert not access.goes_to(url)
    ident = GoogleIdentity("https://s.run.app", audience="https://s.run.app")
    assert ident.goes_to("https://s.run.app/v1") and not ident.goes_to("https://other.run.app")
    assert not ident.goes_to("https://l-aiplatform.googleapis.com/v1")


def test_the_token_is_nowhere(metadata, caplog):
    """Searched: log, errors, outcomes, repr, pickle. A server that quotes it is not quoted."""
    caplog.set_level(logging.DEBUG)

    def quote(number, path, payload):
        if "bad" in payload["instances"]:
            return Fault(400, {"error": {"message": f"bad {metadata.given[-1]}"}})
        return None

    with FakeVertex(tokens=metadata.tokens, script=quote).running() as fake:
        handler = EndpointModelHandler(fake.endpoint, "feature-extraction", auth="google", max_wait_s=0.3)
        asked = [Request(one, {}, Message(message_id=one)) for one in ("good", "bad")]
        outcomes = handler.run_inference(asked, handler.load_model())
        metadata.tokens.clear()
        metadata.expires_in = 1
        kept = GoogleIdentity(fake.url)
        with pytest.raises(caller.EndpointUnavailable) as stalled:
            FakeMetadata._add, add = lambda self, token: self.given.append(token), FakeMetadata._add
            try:
                handler.run_inference(asked[:1], handler.load_model())
            finally:
                FakeMetadata._add = add
    assert isinstance(outcomes[1], Failure) and "***" in outcomes[1].error
    told = [caplog.text, str(stalled.value), repr(outcomes), repr(kept), repr(handler.spec), repr(handler.__dict__)]
    told.append(pickle.dumps([handler.spec, kept, TokenKeeper(kept)]).decode("latin-1"))
    assert metadata.given
    found = {text[max(0, text.find(token) - 300) :][:600] for token in metadata.given for text in told if token in text}
    assert not found


def test_without_credentials_the_way_out_is_said(monkeypatch, tmp_path):
    """No account at all is one line with the command; and never an answer without a token."""
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    identity._credentials.cache_clear()
    with pytest.raises(TokenError, match="gcloud auth application-default login") as error:
        GoogleIdentity("https://x.run.app", "https://x.run.app").lease(False)
    assert "\n" not in str(error.value)
    with FakeVertex().running() as fake, pytest.raises(ModelLoadError, match="application-default login"):
        EndpointModelHandler(fake.endpoint, "feature-extraction", auth="google").probe()
    assert not any(seen.method == "POST" for seen in fake.seen)


def test_a_person_s_login_gives_no_id_token(monkeypatch, tmp_path):
    """It says so, and whom to impersonate; no answer is waited for that cannot come."""
    person = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "not-shown-1234"}
    (tmp_path / "adc.json").write_text(json.dumps(person))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    identity._credentials.cache_clear()
    with pytest.raises(TokenError, match="give no ID token.*`impersonate`") as error:
        GoogleIdentity("https://x.run.app", "https://x.run.app").lease(False)
    assert "not-shown" not in str(error.value)
    identity._credentials.cache_clear()


@pytest.mark.parametrize("audience", ["", "https://x.run.app"])
def test_another_account_is_impersonated(metadata, monkeypatch, audience):
    """The worker's own token asks for the other account's, which alone is sent on."""
    asked = []

    def answer(number, path, payload):
        asked.append((path, payload))
        if path.endswith(":generateIdToken"):
            return Fault(200, {"token": metadata.id_token(payload["audience"])})
        return Fault(200, {"accessToken": "ya29.impersonated", "expireTime": "2099-01-01T00:00:00Z"})

    account = "predictor@my-project.iam.gserviceaccount.com"
    with FakeEndpoint(script=answer).running() as iam:
        at = iam.url + "/v1/projects/-/serviceAccounts/{}:"
        from google.auth import iam as google_iam

        for name, method in (("_IAM_ENDPOINT", "generateAccessToken"), ("_IAM_IDTOKEN_ENDPOINT", "generateIdToken")):
            monkeypatch.setattr(google_iam, name, at + method)
        found = GoogleIdentity("https://x.run.app", audience, account).lease(False)
    assert asked and all(account in path for path, _ in asked)
    if audience:
        assert metadata.audiences == [audience] and found.token == metadata.given[-1]
    else:
        assert found.token == "ya29.impersonated" and found.seconds > 1e6


def test_tokens_of_every_kind_are_scrubbed():
    """What looks like one is not kept, whoever's it was."""
    said = "hf_abcdefgh1234 ya29.a0Af-xyz_123 eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0aaaa.c2ln end"
    assert without_tokens(said) == "hf_*** ya29.*** eyJ*** end"


def test_the_source_is_hashable_and_travels():
    """It is a part of the endpoint's identity in a process, and goes to the workers with the job."""
    found = source(VERTEX, "google", None, "a@p.iam.gserviceaccount.com")
    assert found == pickle.loads(pickle.dumps(found)) and hash(found)
