"""One HTTP request over huggingface_hub's session, bounded in time and size; its outcome is a value, never an error.

Errors of the HTTP library hold the request, and with it the token: none leaves this module.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import zlib
from http.cookiejar import DefaultCookiePolicy

from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import get_async_session

from transforms.models.errors import ModelLoadError
from transforms.models.remote.protocol import Post
from transforms.models.remote.reply import Reply

#: Longest answer that is read, in bytes.
MAX_BYTES = 64 * 1024 * 1024

#: Longest error that is read, in bytes.
_ERROR_BYTES = 65_536

#: Connections that one session keeps; more requests at once are spread over several sessions.
_A_SESSION = 100


class Transport:
    """Sends requests, each with its own token, and follows no redirect: one could lead the token to another host."""

    def __init__(self, concurrency: int) -> None:
        try:
            sessions = [get_async_session() for _ in range(-(-concurrency // _A_SESSION))]
        except OSError as error:  # of its certificates
            trusted = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
            raise ModelLoadError(
                f"SSL_CERT_FILE {trusted!r}: {error.strerror or error}; name a file of certificates (PEM), or unset it"
            ) from None
        for session in sessions:
            session.follow_redirects = False
            # The library's hooks refuse every request while HF_HUB_OFFLINE is set, which is about the hub.
            session.event_hooks = {}
            # A server's cookies would keep all requests on one machine behind a balancer, and grow with each new name.
            session.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._sessions = itertools.cycle(sessions)

    async def send(self, post: Post, token: str | None, timeout_s: float) -> Reply:
        """The outcome of one attempt, after ``timeout_s`` at the latest."""
        headers = {**post.headers, "accept-encoding": "gzip", **({"authorization": f"Bearer {token}"} if token else {})}
        started = time.monotonic()
        try:
            reply = await asyncio.wait_for(self._exchange(post, headers), timeout_s)
        except (TimeoutError, asyncio.TimeoutError):
            return Reply(0, words=f"no answer within {timeout_s:g} s")
        except (HTTPError, OSError) as error:
            return _failed(error)
        except Exception as error:
            # What nobody foresaw in the HTTP library; its text may hold the request, and with it the token.
            return Reply(0, words=f"the request failed: {type(error).__name__}")
        return Reply(reply.status, reply.headers, reply.body, reply.words, (time.monotonic() - started) * 1000)

    async def _exchange(self, post: Post, headers: dict[str, str]) -> Reply:
        stream = next(self._sessions).stream(post.method, post.url, content=post.body, headers=headers)
        async with stream as response:
            fine = 200 <= response.status_code < 300
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    if fine:
                        return _over(response.status_code)
                    break  # its first words say enough
            content = _unpacked(bytes(body), response.headers.get("content-encoding", ""))
            if content is None:
                return _over(response.status_code) if fine else Reply(response.status_code)
            words = ""
            if 300 <= response.status_code < 400:
                words = f"it redirects to {response.headers.get('location', 'nowhere')}; use that URL if it is yours"
            return Reply(
                response.status_code, dict(response.headers), content if fine else content[:_ERROR_BYTES], words
            )


def _over(status: int) -> Reply:
    return Reply(status, words=f"the answer is over {MAX_BYTES:,} bytes")


def _unpacked(body: bytes, encoding: str) -> bytes | None:
    """``body`` as it was before it was compressed; None where that is over ``MAX_BYTES``, and not unpacked any further.

    The HTTP library would unpack a chunk of any size before its length can be looked at.
    """
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        content = unpacker.decompress(body, MAX_BYTES)
    except zlib.error:
        return body
    return None if unpacker.unconsumed_tail else content


def _failed(error: BaseException) -> Reply:
    """An attempt without an answer: its cause in words, and whether the server was reached at all."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            why = text.partition("verify failed:")[2].partition("(_ssl")[0].strip() or "not verified"
            words = f"its TLS certificate is not trusted ({why}); set SSL_CERT_FILE to that of its issuer"
            return Reply(0, words=words, reached=False)
        if "WRONG_VERSION_NUMBER" in text:
            return Reply(0, words="it does not speak TLS; use its http:// URL", reached=False)
        cause = cause.__cause__ or cause.__context__
    kind = type(error).__name__
    words = f"{kind}: {' '.join(str(error).split())}".rstrip(": ")
    return Reply(0, words=words, reached=not kind.startswith("Connect"))
