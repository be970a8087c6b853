"""Guard: only pages that this server gave may talk to it.

It listens on loopback, which other sites' pages can reach too: through a name that resolves to 127.0.0.1 (DNS
rebinding, stopped by the Host check), or by sending forms and requests across origins (stopped by the Origin and
Sec-Fetch-Site checks, and by a token that only a page of the same origin can read).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "X-Console-Token"  # noqa: S105 - a header's name

#: Nothing from elsewhere, nothing inline; images a person chose are shown from data: addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that refuses what does not come from the console's own page, and adds the safety headers."""

    def __init__(self, app: ASGIApp, token: str):
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        port = scope["server"][1]
        reason = refusal(scope["method"], Headers(scope=scope), port, self._token)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        app = JSONResponse({"error": reason}, 403) if reason else self._app
        await app(scope, receive, guarded)


def refusal(method: str, headers: Mapping[str, str], port: int, token: str) -> str | None:
    """Why a request is refused, or None."""
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    host = headers.get("host", "")
    if host not in hosts:
        return f"this console answers to 127.0.0.1:{port} and localhost:{port} only"
    if headers.get("origin") not in (None, f"http://{host}"):
        return "requests from other origins are refused"
    if headers.get("sec-fetch-site") not in (None, "same-origin", "none"):
        return "requests from other sites are refused"
    if method in ("GET", "HEAD"):
        return None
    if not headers.get("content-type", "").startswith("application/json"):
        return "the body must be application/json"
    if not hmac.compare_digest(headers.get(TOKEN_HEADER, "").encode(), token.encode()):
        return "the page is older than this console; load it again"
    return None


def new_token() -> str:
    """What a page must send with everything that changes something."""
    return secrets.token_urlsafe(32)
