"""Tokens: where one comes from, and how a long-running worker follows its rotation and its end.

A token is read where it is used, on the worker. What travels with the job, and what may be printed, is its source only.
"""

from __future__ import annotations

import functools
import math
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import google_crc32c

from transforms.models.errors import ModelLoadError, foreign
from transforms.models.scrub import without_tokens

#: Seconds after which a token is read again even though nothing refused it.
REREAD_S = 300.0

#: Least seconds between two reads, however many requests are refused meanwhile.
_PAUSE_S = 1.0

#: A token that ends is renewed so many seconds before, or with a quarter of its time left if that is less.
_EARLY_S = 225.0

_KINDS = ("env", "file", "secret")


def checked(text: str, source: str) -> str:
    """``text``, if a header can carry it.

    Raises:
      TokenError: it is no token.
    """
    if not text:
        raise TokenError(f"`token={source}`: it is empty; put the token there")
    if not re.fullmatch(r"[!-~]+", text):
        raise TokenError(f"`token={source}`: not a token; there must be one line without spaces")
    return text


class TokenError(ModelLoadError):
    """The token cannot be read, or is none; the text names the source and never what was read from it."""


class Lease(NamedTuple):
    """A token, and how many seconds are left of it."""

    token: str
    seconds: float = math.inf


class Source(Protocol):
    """Where tokens come from: it travels with the job, can be printed, and holds none."""

    def lease(self, again: bool) -> Lease:
        """The token as it is now; ``again`` asks for another one than was given before, if there is any.

        Raises:
          TokenError: there is none.
        """

    def pause_s(self) -> float:
        """Least seconds between two that are asked for ``again``."""

    def goes_to(self, url: str) -> bool:
        """Whether its tokens may be sent there."""

    def advice(self, status: int) -> str:
        """The way out of a refusal with this status."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Reads a token from ``env:NAME``, ``file:PATH`` or ``secret:projects/…/secrets/…/versions/…`` when called."""

    source: str

    def __call__(self) -> str:
        """The token as it is now.

        Raises:
          TokenError: it is not there, or is not something that a header can carry.
        """
        kind, _, name = self.source.partition(":")
        if kind not in _KINDS or not name:
            # The source itself is not shown: it may be a token, pasted by mistake.
            raise TokenError("`token`: use env:NAME, file:PATH or secret:projects/…; never the token itself")
        text = {"env": _from_env, "file": _from_file, "secret": _from_secret}[kind](name, self.source).strip()
        return checked(text, self.source)

    def lease(self, again: bool) -> Lease:
        return Lease(self())

    def pause_s(self) -> float:
        return _PAUSE_S

    def goes_to(self, url: str) -> bool:
        return True

    def advice(self, status: int) -> str:
        if status == 401:
            return "the token is expired or wrong; put a valid one where `token` points"
        provider = "for a provider 'Make calls to Inference Providers', else access to the endpoint"
        return f"the token lacks a permission: {provider}"


def _from_env(name: str, source: str) -> str:
    if name not in os.environ:
        raise TokenError(f"`token={source}`: the variable is not set on this worker; set it where the job runs")
    return os.environ[name]


def _from_file(name: str, source: str) -> str:
    try:
        return Path(name).expanduser().read_text("utf-8")
    except UnicodeDecodeError:
        raise TokenError(f"`token={source}`: not a text file") from None
    except OSError as error:
        raise TokenError(
            f"`token={source}`: {error.strerror}; the file must be on every worker, and readable"
        ) from None


def _from_secret(name: str, source: str) -> str:
    # Imported here: only workers with such a source need the client, and it takes a second to import.
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

    try:
        payload = _secrets().access_secret_version(name=name, timeout=20.0).payload
    except (GoogleAPICallError, GoogleAuthError) as error:
        words = foreign(" ".join(str(getattr(error, "message", error)).split()))
        raise TokenError(
            f"`token={source}`: {words}; check the name, that the version is enabled, and that the job's"
            " service account may read it (roles/secretmanager.secretAccessor)"
        ) from None
    if payload.data_crc32c and google_crc32c.value(payload.data) != payload.data_crc32c:
        raise TokenError(f"`token={source}`: it came damaged; it is read again")
    data: bytes = payload.data
    return data.decode("utf-8", "replace")


@functools.cache
def _secrets() -> Any:
    """The process's one Secret Manager client, on the emulator if ``SECRET_MANAGER_EMULATOR_HOST`` names one."""
    import grpc
    from google.cloud.secretmanager import SecretManagerServiceClient

    emulator = os.environ.get("SECRET_MANAGER_EMULATOR_HOST")
    if not emulator:
        return SecretManagerServiceClient()
    transport = SecretManagerServiceClient.get_transport_class("grpc")
    return SecretManagerServiceClient(transport=transport(channel=grpc.insecure_channel(emulator)))


class TokenKeeper:
    """A worker's current token. Safe to call from several threads; ``get`` and ``refused`` may take a network call."""

    def __init__(self, source: Source | None) -> None:
        self._source = source
        self._token: str | None = None
        self._error = ""
        self._read_at = self._again_at = self._renew_at = self._ends_at = float("-inf")
        self._seen: list[str] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"TokenKeeper({self._source!r})"

    def __reduce__(self) -> Any:
        return TokenKeeper, (self._source,)  # the token itself never leaves this process

    def get(self) -> str | None:
        """The token, read again once it is ``REREAD_S`` old or near its end; None without a source.

        Raises:
          TokenError: it cannot be read, and never could, or has ended; one that lasts is kept while its source is away.
        """
        with self._lock:
            if self._source is not None and not self._is_fresh():
                try:
                    self._read(again=False)
                except TokenError as error:
                    self._error = str(error)
            if self._source is not None and (self._token is None or self._has_ended()):
                raise TokenError(self._error)
            return self._token

    def at_hand(self) -> tuple[bool, str | None]:
        """Whether the token need not be read now, and it; never waits for its source."""
        if self._source is None:
            return True, None
        return self._token is not None and self._is_fresh() and not self._has_ended(), self._token

    def refused(self, token: str | None) -> bool:
        """Tells that ``token`` was not accepted; returns whether there is another one now."""
        if self._source is None:
            return False
        with self._lock:
            now = time.monotonic()
            due = now - self._read_at > _PAUSE_S and now - self._again_at > self._source.pause_s()
            if self._token == token and due:
                self._again_at = now
                try:
                    self._read(again=True)
                except TokenError:
                    return False
            return self._token != token

    def goes_to(self, url: str) -> bool:
        """Whether the token may be sent there."""
        return self._source is None or self._source.goes_to(url)

    def advice(self, status: int) -> str:
        """The way out where an endpoint refuses with this status."""
        none = "it wants a token; say where to read it, `token`, or that it is Google's, `auth`"
        return self._source.advice(status) if self._source else none

    def scrub(self, text: str) -> str:
        """``text`` without any token: a server's words may quote the one it refused."""
        for token in self._seen:
            text = text.replace(token, "***")
        return without_tokens(text)

    def _is_fresh(self) -> bool:
        ended = self._token is None or time.monotonic() >= self._renew_at
        return time.monotonic() - self._read_at <= (min(_PAUSE_S, REREAD_S) if ended else REREAD_S)

    def _has_ended(self) -> bool:
        return time.monotonic() >= self._ends_at

    def _read(self, again: bool) -> None:
        assert self._source is not None
        self._read_at = time.monotonic()
        try:
            token, seconds = self._source.lease(again)
        except Exception as error:  # whatever it is, no message's fault; its text may hold what a server answered
            unforeseen = TokenError(f"`token`: its source failed ({type(error).__name__})")
            raise (error if isinstance(error, TokenError) else unforeseen) from None
        self._token, now = token, time.monotonic()
        self._ends_at, self._renew_at = now + max(_PAUSE_S, seconds), now + seconds - min(_EARLY_S, seconds / 4)
        if token not in self._seen:
            self._seen = [*self._seen[-9:], token]
