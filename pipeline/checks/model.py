"""The model: reachable at its revision, fit to run, under which licence; and the token, if there is one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import RepoCard, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from pipeline.checks.finding import Finding, flag
from pipeline.clients import words
from pipeline.flags import UsageError
from pipeline.handlers import as_flags, endpoint_handler, load, models_handler, weights_handler
from pipeline.options import Settings
from transforms.models.errors import ModelLoadError
from transforms.models.fleet.file import FileErrors
from transforms.models.remote.probe import EndpointAway
from transforms.models.token import TokenSource

_LOGGER = logging.getLogger(__name__)
_NO_TOKEN = "the token"  # noqa: S105 - a cause, not a password


def check(settings: Settings) -> Iterator[Finding]:
    """The token first, as it may be why the model cannot be reached."""
    token = None
    if settings.hf_token_source:
        subject = flag("hf_token_source", settings.hf_token_source)
        try:
            token = TokenSource(settings.hf_token_source)()
        except ModelLoadError as error:
            yield Finding(False, subject, f"gives no token: {as_flags(error)}", cause=_NO_TOKEN)
            if settings.endpoint:
                yield Finding(None, flag("endpoint", settings.endpoint), "was not asked", cause=_NO_TOKEN)
                return
        else:
            yield _token(subject, token)
    if settings.models:
        yield from _models(settings)
    elif settings.endpoint:
        yield from _endpoint(settings)
    elif settings.model:
        yield from _weights(settings.model, settings, token)


def _token(subject: str, token: str) -> Finding:
    """Whose token it is and what it may do; the token itself is in no finding."""
    try:
        about = huggingface_hub.HfApi(token=token).whoami()
    except OfflineModeIsEnabled:
        return Finding(None, subject, "is there, and was not asked about: HF_HUB_OFFLINE is set")
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 401:
            return Finding(False, subject, "is expired or wrong", "make one at https://huggingface.co/settings/tokens")
        return Finding(None, subject, f"could not be asked about: {words(error).replace(token, '…')}")
    except OSError as error:
        return Finding(None, subject, f"could not be asked about: {words(error).replace(token, '…')}")
    role = about.get("auth", {}).get("accessToken", {}).get("role", "unknown")
    return Finding(True, subject, f"belongs to {about.get('name')}, scope {role}")


def _endpoint(settings: Settings) -> Iterator[Finding]:
    subject = flag("endpoint", settings.endpoint)
    handler = endpoint_handler(settings, TokenSource(settings.hf_token_source) if settings.hf_token_source else None)
    try:
        handler.check()
        handler.ask()
    except EndpointAway as error:
        # The workers may have another way to it than this machine.
        way_out = "start it, or mend the URL; a job would wait for it"
        yield Finding(False if settings.local else None, subject, f"does not answer: {as_flags(error)}", way_out)
    except ModelLoadError as error:
        yield Finding(False, subject, f"cannot be used: {as_flags(error)}")
    else:
        yield Finding(True, subject, f"answers an example, task {settings.task}")


def _models(settings: Settings) -> Iterator[Finding]:
    """The models file: sound, its checks readable, each model there; loaded where this machine would run the job."""
    subject = flag("models", settings.models)
    try:
        source = settings.hf_token_source
        load(models_handler(settings, TokenSource(source) if source else None), settings)
    except FileErrors as error:
        for line in error.lines():
            yield Finding(False, subject, line)
    except ModelLoadError as error:
        yield Finding(False, subject, f"cannot be used: {as_flags(error)}")
    else:
        yield Finding(True, subject, "is sound, and its models are there")
    if settings.metrics_file and settings.metrics_file.is_file():
        yield from _in_force(subject, settings.metrics_file)


def _in_force(subject: str, metrics: Path) -> Iterator[Finding]:
    """What a job says that runs with the same metrics file."""
    try:
        found = json.loads(metrics.read_bytes())["models"]
        refused, version = found["refused"], found["models_version"]
    except (ValueError, KeyError, TypeError):
        return
    if refused:
        yield Finding(False, subject, f"the running job goes on with version {version}: {refused['why']}")
    else:
        yield Finding(True, subject, f"the running job serves version {version}")


def _weights(model: str, settings: Settings, token: str | None) -> Iterator[Finding]:
    subject = flag("model", model)
    try:
        handler = weights_handler(settings, lambda: token)
        task = handler.check()
        # Where this machine would run the job, it is loaded and asked an example: much can be told by nothing less.
        load(handler, settings)
    except UsageError as error:  # without torch, which a launch to a service does not need
        yield Finding(False if settings.local else None, subject, f"was not looked at: {error}")
        return
    except ModelLoadError as error:
        yield Finding(False, subject, f"cannot be used: {as_flags(error)}")
        return
    at = f" at {settings.revision}" if settings.revision else ""
    yield Finding(
        True,
        subject,
        f"{'answers an example' if settings.local else 'is reachable'}{at}, task {task}, licence "
        f"{_licence(model, settings.revision, token) or 'not stated'}",
    )
    if not settings.local:
        yield Finding(None, subject, "was not loaded: the workers do that, and fail at start where they cannot")
    if not settings.local and Path(model).expanduser().is_dir():
        yield Finding(None, subject, "is a folder, which must be in the workers' image too")


def _licence(model: str, revision: str | None, token: str | None) -> str | None:
    """The licence that the model's card names, or None where it cannot be told."""
    try:
        folder = Path(model).expanduser()
        if model.startswith("gs://"):
            return None
        if not folder.is_dir() and is_offline_mode():
            folder = Path(huggingface_hub.snapshot_download(model, revision=revision, local_files_only=True))
        if folder.is_dir():
            card = folder / "README.md"
            return RepoCard(card.read_text("utf-8")).data.to_dict().get("license") if card.is_file() else None
        about = huggingface_hub.HfApi(token=token).model_info(model, revision=revision)
        return about.card_data.to_dict().get("license") if about.card_data else None
    except (HfHubHTTPError, OSError, ValueError) as error:
        _LOGGER.debug("no licence: %s", words(error))
        return None
