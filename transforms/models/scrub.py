"""What looks like a token is kept out of words that others wrote: a server may quote what it refuses."""

from __future__ import annotations

import re

_LOOKS_LIKE_ONE = re.compile(
    r"(?P<hf>hf_)[A-Za-z0-9_]{8,}|(?P<google>ya29\.)[\w.-]{4,}|(?P<jwt>eyJ)[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
)


def without_tokens(text: str) -> str:
    """``text`` without what looks like a token: Hugging Face's, Google's, or a signed one."""
    return _LOOKS_LIKE_ONE.sub(lambda found: f"{found['hf'] or found['google'] or found['jwt']}***", text)
