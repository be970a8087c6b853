"""Which HTTP requests an embedded server answers: a program's, not a web page's.

It listens on loopback, which pages in a browser on this machine reach too: through a name of theirs that resolves to
127.0.0.1 (DNS rebinding, stopped by the Host check), or by sending requests across origins (stopped by the Origin and
Sec-Fetch-Site checks). Programs send neither header. There is no other access control.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)


def refusal(headers: Mapping[str, str]) -> str | None:
    """Why a request with ``headers`` (their names in any case) is refused, or ``None``."""
    given = {name.lower(): value for name, value in headers.items()}
    host = given.get("host", "")
    if not _LOOPBACK.fullmatch(host):
        return f"Host {host[:100]!r}: this server answers to 127.0.0.1 and localhost only"
    origin = given.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return f"Origin {origin[:100]!r}: requests from web pages are refused"
    if given.get("sec-fetch-site") not in (None, "same-origin", "none"):
        return "Sec-Fetch-Site: requests from other sites are refused"
    return None
