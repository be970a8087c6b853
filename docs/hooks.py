"""MkDocs: what a page links to outside docs/ must be there, and is linked to where the sources are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\.?/[^)#\s]*)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """``markdown`` with its links out of docs/ led to ``repo_url``, or their bare text where there is none.

    Raises:
        PluginError: such a link leads nowhere.
    """
    docs = Path(config.docs_dir).resolve()
    source = Path(page.file.abs_src_path).parent

    def led(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        path = (source / target).resolve()
        if path.is_relative_to(docs):
            return link[0]
        if not path.exists():
            raise PluginError(f"{page.file.src_uri}: {target} is not there")
        place = path.relative_to(docs.parent).as_posix()
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{place}{anchor})" if config.repo_url else text

    return _LINK.sub(led, markdown)
