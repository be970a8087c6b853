"""The job's model handler, made from its settings and checked before a launch."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apache_beam.ml.inference.base import ModelHandler

from pipeline import extras, io
from pipeline.options import FLAGS, Settings
from transforms.models.errors import ModelLoadError
from transforms.models.fleet.view import Reader
from transforms.models.token import TokenSource
from transforms.records import ModelInfo

if TYPE_CHECKING:
    from transforms.models.fleet.handler import ModelsHandler
    from transforms.models.fleet.options import Options
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.models.remote.handler import EndpointModelHandler


#: Fields of a model handler whose flag has another name.
_FLAG_OF = {
    "parameters": "inference_params",
    "token": "hf_token_source",
    "timeout_s": "endpoint_timeout_s",
    "max_wait_s": "endpoint_max_wait_s",
    "concurrency": "endpoint_concurrency",
    "auth": "endpoint_auth",
    "impersonate": "endpoint_impersonate",
}
_FIELD = re.compile(r"`(\w+)(=[^`]*)?`")


def as_flags(error: Exception) -> str:
    """What a handler's ``error`` says, with the flag of each field that it names in backquotes."""
    names = {flag.name for flag in FLAGS}

    def flag(found: re.Match[str]) -> str:
        name = _FLAG_OF.get(found[1], found[1])
        return f"--{name}{found[2] or ''}" if name in names else found[0]

    return _FIELD.sub(flag, str(error))


def make_handler(settings: Settings) -> ModelHandler[Any, Any, Any]:
    """The model handler that ``settings`` ask for, checked as far as can be without loading weights.

    Raises:
        ModelLoadError: the model cannot be what is asked for, or the endpoint cannot be asked.
        UsageError: the model's engine is not installed.
    """
    token = TokenSource(settings.hf_token_source) if settings.hf_token_source else None
    if settings.models:
        return models_handler(settings, token)
    if settings.endpoint:
        remote = endpoint_handler(settings, token)
        remote.check()
        if settings.local:
            remote.probe()
        return remote
    local = weights_handler(settings, token)
    # A token is the workers' alone: a model that needs one is not looked at from where the job is only submitted.
    if settings.local or token is None:
        local.check()
    return local


def load(handler: ModelHandler[Any, Any, Any], settings: Settings) -> Any:
    """The model, where this machine runs the job: what cannot be loaded must not cost a message a delivery.

    Raises:
        ModelLoadError: it cannot be loaded, whatever the library's own error was.
    """
    if not settings.local:
        return None
    try:
        return handler.load_model()
    except ModelLoadError:
        raise
    except Exception as error:  # any of a model's library
        name = settings.models or settings.endpoint or settings.model
        first = " ".join(str(error).split())[:500]
        raise ModelLoadError(f"model {name!r} cannot be loaded: {type(error).__name__}: {first}") from error


def info(model: Any) -> ModelInfo | None:
    """What :func:`load` loaded, as far as its handler says."""
    found = getattr(model, "info", None)
    return found if isinstance(found, ModelInfo) else None


def told(model: Any) -> Callable[[], dict[str, Any]] | None:
    """What says how the models of a file are, where :func:`load` loaded such."""
    return getattr(model, "told", None)


def weights_handler(settings: Settings, token: Callable[[], str | None] | None) -> HuggingFaceModelHandler:
    """The handler of local weights, unchecked."""
    extras.need(f"--model={settings.model}", "torch", "torch", "transformers", "safetensors")
    if settings.engine == "openvino":
        extras.need("--engine=openvino", "openvino", "openvino")
    # Torch takes seconds to import, and a wrong flag should be told at once.
    from transforms.models.handler import HuggingFaceModelHandler

    assert settings.model is not None
    return HuggingFaceModelHandler(
        settings.model,
        settings.task,
        revision=settings.revision,
        engine=settings.engine,
        device=settings.device,
        dtype=settings.dtype,
        parameters=settings.inference_params,
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens,
        max_batch_latency_ms=_latency_ms(settings),
        on_too_long=settings.on_too_long,
        model_copies=settings.model_copies,
        time_limit_s=settings.time_limit_s,
        max_deaths=settings.max_deaths,
        max_forward_s=settings.max_forward_s,
        token=token,
    )


def endpoint_handler(settings: Settings, token: TokenSource | None) -> EndpointModelHandler:
    """The handler of a remote endpoint, unchecked."""
    from transforms.models.remote.handler import EndpointModelHandler

    assert settings.endpoint is not None and settings.task is not None
    return EndpointModelHandler(
        settings.endpoint,
        settings.task,
        model=settings.model,
        parameters=settings.inference_params,
        token=token,
        timeout_s=settings.endpoint_timeout_s,
        max_wait_s=settings.endpoint_max_wait_s,
        concurrency=settings.endpoint_concurrency,
        auth=settings.endpoint_auth,
        impersonate=settings.endpoint_impersonate,
        requests_per_s=settings.endpoint_requests_per_s,
        tokens_per_min=settings.endpoint_tokens_per_min,
        hedge_s=settings.endpoint_hedge_after_s,
        cache_mib=settings.endpoint_cache_mib,
        on_too_long=settings.on_too_long,
        max_batch_latency_ms=_latency_ms(settings),
    )


def models_handler(settings: Settings, token: TokenSource | None) -> ModelsHandler:
    """The handler of a file of models, each looked at without its weights, and each endpoint asked from this machine.

    Raises:
        ModelLoadError: the file or one of its models cannot be used.
    """
    from transforms.models.fleet.handler import ModelsHandler

    handler = ModelsHandler(models_options(settings, token), max_batch_latency_ms=_latency_ms(settings))
    # A token is the workers' alone: what needs one is not looked at from where the job is only submitted.
    handler.check(settings.local or token is None, probe=settings.local)
    return handler


def models_options(settings: Settings, token: TokenSource | None) -> Options:
    """What the models of ``settings.models`` have where the file does not say."""
    from transforms.models.fleet.options import Options

    assert settings.models is not None
    weights = (
        *("engine", "device", "dtype", "on_too_long", "max_batch_size", "max_batch_tokens"),
        *("time_limit_s", "max_deaths", "max_forward_s"),
    )
    endpoints = (
        "timeout_s",
        "max_wait_s",
        "concurrency",
        "requests_per_s",
        "tokens_per_min",
        "hedge_after_s",
        "cache_mib",
    )
    path, opener = io.reading(settings)
    return Options(
        settings.models,
        settings.models_refresh_s,
        settings.models_memory,
        tuple((name, getattr(settings, name)) for name in weights),
        (*((name, getattr(settings, f"endpoint_{name}")) for name in endpoints), ("on_too_long", settings.on_too_long)),
        token,
        Reader(opener, by_shape=path is None),
    )


def _latency_ms(settings: Settings) -> int | None:
    """Locally the source itself waits for company; state that held messages back would outlive their leases."""
    return None if settings.local else settings.max_batch_latency_ms
