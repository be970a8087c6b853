"""What runs behind a Vertex AI endpoint: by its description, and where that may not be seen, by asking."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from transforms.models.errors import ElementError
from transforms.models.inputs import Ask
from transforms.models.remote.caller import Caller
from transforms.models.remote.protocol import Post
from transforms.models.remote.reading import Reading
from transforms.models.remote.reply import Reply, Verdict
from transforms.models.remote.rows import read_rows
from transforms.models.remote.vertex import (
    FLAT,
    NESTED,
    PLAIN,
    PROMPT,
    Place,
    Vertex,
    VertexRaw,
    dedicated_in,
    forms,
    revision_of,
)
from transforms.models.task_entry import TaskEntry
from transforms.models.token import TokenError

#: What the image of a container is called, in the order in which they are looked for.
_IMAGES = (
    ("text-embeddings-inference|[/-]tei\\b", FLAT),
    ("text-generation-inference|[/-]tgi\\b", NESTED),
    ("vllm", PROMPT),
    ("huggingface-(pytorch-)?inference|inference-toolkit", PLAIN),
)
_MODEL = re.compile(r"projects/[^/\s]+/locations/[^/\s]+/models/[^/@\s]+")
_ID = re.compile(r"[\w-]{1,64}")


class Look(NamedTuple):
    """Who looks, for what, and with which small question."""

    caller: Caller
    task: TaskEntry
    small: Ask | None
    model: str
    truncate: bool
    timeout_s: float


class Looked(NamedTuple):
    """What was found: how to ask, which models there are (name and version by the id they are deployed under)."""

    server: Vertex | VertexRaw
    model: str
    revision: str
    deployed: Mapping[str, tuple[str, str]]
    known: bool


async def look(by: Look, place: Place) -> Looked:
    """What the endpoint says of itself, and how its container is asked. Tries once; see ``Looked.known``."""
    found, known = await _get(by, place, place.name)
    if found.get("dedicatedEndpointEnabled") is True:
        place = place.at(found.get("dedicatedEndpointDns"))
    deployed = _deployed(found)
    main = _main(found, deployed)
    name, version = deployed.get(main, ("", ""))
    revision = revision_of(version, main) if main else ""
    container: Any = {}
    if name and known:
        at = f"{name}@{version}" if version else name
        container = (await _get(by, place, at))[0].get("containerSpec")
    container = container if isinstance(container, dict) else {}
    route, image = str(container.get("predictRoute") or ""), str(container.get("imageUri") or "")
    if route in VertexRaw.ROUTES and VertexRaw.takes(by.task, route):
        return Looked(VertexRaw(by.task, place, route, by.model), name, revision, deployed, known)
    form = next((form for pattern, form in _IMAGES if re.search(pattern, image)), "")
    if form not in forms(by.task):
        place, form, answered = await _by_asking(by, place)
        known = known and answered
    return Looked(Vertex(by.task, place, form, by.model, by.truncate), name, revision, deployed, known)


async def _get(by: Look, place: Place, name: str) -> tuple[dict[str, Any], bool]:
    """A resource's description, empty where it may not be seen; and whether it is worth asking again later."""
    try:
        post = Post(f"{place.api}/v1/{name}", None, method="GET")
        found = await by.caller.once(post, by.timeout_s, lambda reply, answer: answer)
    except TokenError:
        return {}, False
    away = found.verdict in (Verdict.BUSY, Verdict.BROKEN) and not found.misfit
    known = not away and found.reply.status != 401
    right = found.verdict is Verdict.OK and isinstance(found.value, dict)
    return (found.value if right else {}), known


def _deployed(found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Model and version by the id under which each is deployed."""
    listed = found.get("deployedModels")
    models: dict[str, tuple[str, str]] = {}
    for one in listed if isinstance(listed, list) else []:
        ident, name, version = (
            one.get(key) if isinstance(one, dict) else None for key in ("id", "model", "modelVersionId")
        )
        name, _, at = name.partition("@") if isinstance(name, str) else ("", "", "")
        version = version if isinstance(version, str) else at
        if isinstance(ident, str) and _ID.fullmatch(ident) and _MODEL.fullmatch(name):
            models[ident] = (name, version if _ID.fullmatch(version) else "")
    return models


def _main(found: Mapping[str, Any], deployed: Mapping[str, tuple[str, str]]) -> str:
    """The id that gets most of the traffic."""
    split = found.get("trafficSplit")
    split = split if isinstance(split, dict) else {}

    def share(ident: str) -> int:
        return split[ident] if type(split.get(ident)) is int else 0

    return max(deployed, key=share, default="")


async def _by_asking(by: Look, place: Place) -> tuple[Place, str, bool]:
    """The first form in which a small question is answered; the last is whether that, or all refusals, are for good."""
    usual = forms(by.task)
    if by.small is None or len(usual) == 1:
        return place, usual[0], True
    at_fault = False
    for form in usual:
        found = await _ask(by, place, form, by.small)
        dns = dedicated_in(found.words) if found is not None and found.verdict is not Verdict.OK else ""
        if dns and place.at(dns) != place:
            place = place.at(dns)
            found = await _ask(by, place, form, by.small)
        if found is None:
            continue
        if found.verdict is Verdict.OK:
            return place, form, True
        if found.verdict in (Verdict.BUSY, Verdict.DENIED, Verdict.WRONG):
            return place, usual[0], False
        at_fault = at_fault or found.verdict is Verdict.BROKEN
    return place, usual[0], not at_fault


async def _ask(by: Look, place: Place, form: str, small: Ask) -> Reading | None:
    server = Vertex(by.task, place, form, by.model, by.truncate)
    try:
        return await by.caller.once(
            server.post([small]), by.timeout_s, lambda reply, answer: read_rows(answer, server, by.task, [small])
        )
    except ElementError:
        return None  # parameters that this form has not
    except TokenError:
        return Reading(Reply(0), Verdict.DENIED)
