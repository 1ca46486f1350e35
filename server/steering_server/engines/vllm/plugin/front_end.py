"""vLLM's HTTP front end: names such as ``model+profile@0.5``, and an error 400 for what cannot be steered."""

from functools import wraps
from typing import Any

from steering_profiles.composition import Steering
from steering_server.engines.vllm.plugin.names import ModelNames, steered_name
from steering_server.engines.vllm.plugin.requests import EXCEPT, STEERING, STRENGTH, requested_steering
from steering_server.engines.vllm.plugin.seams import mark, marked
from steering_server.engines.vllm.plugin.served import ServedProfiles, served_by
from steering_server.errors import RequestError

_XARGS = "vllm_xargs"

_names = ModelNames()
_served: dict[str, ServedProfiles] = {}
"""Profiles by the path of the model, since vLLM's registry of names knows its model alone."""


def install() -> None:
    """Wrap the functions that check requests in this process."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.models.serving import OpenAIModelRegistry
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.serve.engine.serving import BaseServing
    from vllm.v1.engine.input_processor import InputProcessor

    if marked(InputProcessor._validate_params):
        return
    by_name = (CompletionRequest, ChatCompletionRequest, ResponsesRequest)
    _wrap_validation(InputProcessor)
    _wrap_names(OpenAIModelRegistry)
    _wrap_check(BaseServing, by_name)
    for request in by_name:
        _wrap_sampling(request)
    for request in (CompletionRequest, ChatCompletionRequest):
        _wrap_beam_search(request)


def _wrap_validation(processor: Any) -> None:
    made, original = processor.__init__, processor._validate_params

    @wraps(made)
    def __init__(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        # First, so that an invalid setting or profile stops vLLM before it loads the model.
        _served[str(vllm_config.model_config.model)] = served_by(vllm_config)
        made(self, vllm_config, *args, **kwargs)

    @wraps(original)
    def _validate_params(self: Any, params: Any, supported_tasks: Any) -> Any:
        extra_args = getattr(params, "extra_args", None)
        if extra_args:
            _checked(extra_args, served_by(self.vllm_config))
        return original(self, params, supported_tasks)

    processor.__init__, processor._validate_params = mark(__init__), mark(_validate_params)


def _checked(extra_args: Any, served: ServedProfiles) -> Steering:
    from vllm.exceptions import VLLMValidationError

    try:
        return requested_steering(extra_args, served)
    except RequestError as exc:
        raise VLLMValidationError(str(exc), parameter=_XARGS) from exc


def _wrap_names(registry: Any) -> None:
    is_base_model, show_available_models = registry.is_base_model, registry.show_available_models

    @wraps(is_base_model)
    def steered_is_base_model(self: Any, model_name: str) -> bool:
        _names.learn(model.name for model in self.base_model_paths)
        return bool(is_base_model(self, model_name)) or _names.label_of(model_name) is not None

    @wraps(show_available_models)
    async def show_steered_models(self: Any) -> Any:
        models = await show_available_models(self)
        served = _served.get(str(self.model_config.model))
        for card in list(models.data):
            names = [profile.name for profile in served.usable] if served is not None else []
            models.data += [
                card.model_copy(update={"id": steered_name(card.id, name), "parent": card.id}) for name in names
            ]
        return models

    registry.is_base_model, registry.show_available_models = mark(steered_is_base_model), mark(show_steered_models)


def _wrap_check(serving: Any, by_name: tuple[Any, ...]) -> None:
    original = serving._check_model

    @wraps(original)
    async def _check_model(self: Any, request: Any) -> Any:
        _names.learn(model.name for model in self.models.base_model_paths)
        label = _names.label_of(request.model)
        if label is not None and not isinstance(request, by_name):
            # Only those requests turn into sampling parameters that the plugin sees.
            return self.create_error_response(
                f"model: {request.model!a} names a steered model, which this route does not serve; give the "
                f"model's own name, and {STEERING} in {_XARGS} where the route generates",
                param="model",
            )
        return await original(self, request)

    serving._check_model = mark(_check_model)


def _wrap_sampling(request: Any) -> None:
    original = request.to_sampling_params

    @wraps(original)
    def to_sampling_params(self: Any, *args: Any, **kwargs: Any) -> Any:
        params = original(self, *args, **kwargs)
        label = _names.label_of(self.model)
        if label is not None:
            _require_no_other(self)
            params.extra_args = {**(params.extra_args or {}), STEERING: label}
        return params

    request.to_sampling_params = mark(to_sampling_params)


def _wrap_beam_search(request: Any) -> None:
    original = request.to_beam_search_params

    @wraps(original)
    def to_beam_search_params(self: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm.exceptions import VLLMValidationError

        if _names.label_of(self.model) is not None or _given(self):
            raise VLLMValidationError("beam search cannot be steered", parameter="use_beam_search")
        return original(self, *args, **kwargs)

    request.to_beam_search_params = mark(to_beam_search_params)


def _require_no_other(request: Any) -> None:
    from vllm.exceptions import VLLMValidationError

    if _given(request):
        raise VLLMValidationError(
            f"{STEERING} is given twice: by the model's name, {request.model!a}, and in {_XARGS}",
            parameter=_XARGS,
        )


def _given(request: Any) -> bool:
    xargs = getattr(request, _XARGS, None) or {}
    return any(xargs.get(field) is not None for field in (STEERING, STRENGTH, EXCEPT))
