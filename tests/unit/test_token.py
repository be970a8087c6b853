"""Tokens: read where they are used, read again when they rotate, and shown nowhere."""

from __future__ import annotations

import concurrent.futures
import pickle

import google_crc32c
import grpc
import pytest
from google.cloud.secretmanager import (
    AccessSecretVersionRequest,
    AccessSecretVersionResponse,
    SecretPayload,
)

from transforms.models import token as token_module
from transforms.models.token import TokenError, TokenKeeper, TokenSource

OLD, NEW = "hf_oldOldOldOldOld1234", "hf_newNewNewNewNew5678"
SECRET = "projects/my-project/secrets/hf/versions/latest"


class FakeSecrets(grpc.GenericRpcHandler):
    """Secret Manager's one method, over real gRPC."""

    def __init__(self) -> None:
        self.payloads: dict[str, SecretPayload] = {}
        self.code = None
        self.reads = 0

    def put(self, token: str, crc: int | None = None) -> None:
        data = token.encode()
        crc = google_crc32c.value(data) if crc is None else crc
        self.payloads[SECRET] = SecretPayload(data=data, data_crc32c=crc)

    def service(self, details):
        if details.method != "/google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion":
            return None
        return grpc.unary_unary_rpc_method_handler(
            self.access,
            request_deserializer=AccessSecretVersionRequest.deserialize,
            response_serializer=AccessSecretVersionResponse.serialize,
        )

    def access(self, request, context):
        self.reads += 1
        if self.code is not None:
            context.abort(self.code, "said by the service")
        if request.name not in self.payloads:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Secret Version [{request.name}] not found.")
        return AccessSecretVersionResponse(name=request.name, payload=self.payloads[request.name])


@pytest.fixture
def secrets(monkeypatch):
    """A Secret Manager that clients are pointed to."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    fake = FakeSecrets()
    server.add_generic_rpc_handlers((fake,))
    monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    token_module._secrets.cache_clear()
    server.start()
    yield fake
    server.stop(None)
    token_module._secrets.cache_clear()


@pytest.fixture
def impatient(monkeypatch):
    """Reads follow each other without a pause."""
    monkeypatch.setattr(token_module, "_PAUSE_S", -1.0)


def test_each_kind_of_source_is_read(monkeypatch, tmp_path, secrets):
    """A variable, a file and a secret give the token, without the newline that editors add."""
    monkeypatch.setenv("MY_TOKEN", OLD)
    (tmp_path / "token").write_text(f"{OLD}\n")
    secrets.put(OLD)
    for source in ("env:MY_TOKEN", f"file:{tmp_path / 'token'}", f"secret:{SECRET}"):
        assert TokenSource(source)() == OLD


def test_what_is_not_there_is_one_clear_line(monkeypatch, tmp_path, secrets):
    """A missing variable, file or secret is named, with the way out."""
    monkeypatch.delenv("NO_TOKEN", raising=False)
    for source, words in (
        ("env:NO_TOKEN", "not set on this worker"),
        (f"file:{tmp_path / 'none'}", "No such file"),
        (f"secret:{SECRET}", "not found"),
    ):
        with pytest.raises(TokenError, match=words) as error:
            TokenSource(source)()
        assert source in str(error.value) and "\n" not in str(error.value)


def test_a_secret_that_may_not_be_read_names_the_role(secrets):
    """Permission denied says which role the service account lacks."""
    secrets.code = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(TokenError, match="said by the service.*secretAccessor"):
        TokenSource(f"secret:{SECRET}")()


def test_a_damaged_secret_is_refused(secrets):
    """A payload whose checksum is wrong is not used as a token."""
    secrets.put(OLD, crc=1)
    with pytest.raises(TokenError, match="damaged"):
        TokenSource(f"secret:{SECRET}")()


@pytest.mark.parametrize("content", ["", "  \n", "hf_a b", f"{OLD}\n{NEW}", "hf_ü", "hf_\x00"])
def test_what_no_header_can_carry_is_refused_without_showing_it(tmp_path, content):
    """An empty file, two tokens, spaces or control characters are refused, and the text is not repeated."""
    (tmp_path / "token").write_text(content)
    with pytest.raises(TokenError) as error:
        TokenSource(f"file:{tmp_path / 'token'}")()
    assert not content.strip() or content.strip() not in str(error.value)


def test_a_token_pasted_as_a_source_is_not_shown():
    """Whoever writes the token where its source belongs is told so, without the token."""
    with pytest.raises(TokenError) as error:
        TokenSource(OLD)()
    assert OLD not in str(error.value)


def test_the_token_is_in_no_repr_and_no_pickle(monkeypatch):
    """What is printed and what travels is the source."""
    monkeypatch.setenv("MY_TOKEN", OLD)
    keeper = TokenKeeper(TokenSource("env:MY_TOKEN"))
    assert keeper.get() == OLD
    for thing in (keeper, TokenSource("env:MY_TOKEN")):
        assert OLD not in repr(thing) and OLD.encode() not in pickle.dumps(thing)
    assert pickle.loads(pickle.dumps(keeper)).get() == OLD


def test_a_refused_token_is_read_again(tmp_path, impatient):
    """After a refusal the file is read: the same token is no news, another one is."""
    file = tmp_path / "token"
    file.write_text(OLD)
    keeper = TokenKeeper(TokenSource(f"file:{file}"))
    assert keeper.get() == OLD
    assert keeper.refused(OLD) is False
    file.write_text(NEW)
    assert keeper.refused(OLD) is True
    assert keeper.get() == NEW


def test_many_refusals_are_one_read(secrets):
    """Requests that fail together ask Secret Manager once: it counts, and costs."""
    secrets.put(OLD)
    keeper = TokenKeeper(TokenSource(f"secret:{SECRET}"))
    keeper.get()
    assert [keeper.refused(OLD) for _ in range(20)] == [False] * 20
    assert secrets.reads == 1


def test_the_timer_reads_again(secrets, monkeypatch):
    """A rotation that nothing refuses yet is followed all the same."""
    secrets.put(OLD)
    keeper = TokenKeeper(TokenSource(f"secret:{SECRET}"))
    assert keeper.get() == OLD
    secrets.put(NEW)
    assert keeper.get() == OLD
    monkeypatch.setattr(token_module, "REREAD_S", -1.0)
    assert keeper.get() == NEW


def test_a_source_that_is_away_keeps_the_token(secrets, monkeypatch, impatient):
    """Secret Manager's bad minute is not ours; without any token before it, it is."""
    monkeypatch.setattr(token_module, "REREAD_S", -1.0)
    secrets.put(OLD)
    keeper = TokenKeeper(TokenSource(f"secret:{SECRET}"))
    assert keeper.get() == OLD
    secrets.code = grpc.StatusCode.PERMISSION_DENIED
    assert keeper.get() == OLD and keeper.refused(OLD) is False
    with pytest.raises(TokenError):
        TokenKeeper(TokenSource(f"secret:{SECRET}")).get()


def test_a_source_that_never_answered_is_not_no_token(monkeypatch):
    """A worker whose token cannot be read says so each time, and never goes on without one."""
    monkeypatch.delenv("NO_TOKEN", raising=False)
    keeper = TokenKeeper(TokenSource("env:NO_TOKEN"))
    for _ in range(3):
        with pytest.raises(TokenError, match="not set"):
            keeper.get()
    assert keeper.at_hand() == (False, None)


def test_words_that_quote_a_token_are_scrubbed(tmp_path, impatient):
    """The current token, the one before it, and anything that looks like one disappear from a server's words."""
    file = tmp_path / "token"
    file.write_text("not-like-the-others")
    keeper = TokenKeeper(TokenSource(f"file:{file}"))
    keeper.get()
    file.write_text(NEW)
    keeper.refused("not-like-the-others")
    said = keeper.scrub(f"no: not-like-the-others, {NEW}, {OLD}")
    assert said == "no: ***, ***, hf_***"


def test_no_source_is_no_token():
    """Without --hf_token_source nothing is sent, whatever the environment holds."""
    assert TokenKeeper(None).get() is None and TokenKeeper(None).refused(None) is False


def test_a_source_that_fails_as_nobody_foresaw_blames_no_message():
    """A metadata server's answer without its fields, say: an error of the token, without what was answered."""

    class Odd:
        def lease(self, again):
            raise KeyError(OLD)

        def pause_s(self):
            return 0.0

    with pytest.raises(TokenError, match=r"its source failed \(KeyError\)") as error:
        TokenKeeper(Odd()).get()
    assert OLD not in str(error.value)
