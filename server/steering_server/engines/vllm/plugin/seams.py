"""vLLM's functions that the plugin wraps, with their parameters, checked at start.

Most of them are private and may change with any version. A version whose functions differ is refused: one that calls
past a wrapper would answer unsteered.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from steering_server.errors import ConfigError

KNOWN = ((0, 32), (0, 34))
"""Known versions of vLLM: from the first on, below the second."""

_MARK = "_steering_server"
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Seam:
    """A function of vLLM that the plugin wraps or calls, or the fields of a class that it reads."""

    module: str
    name: str
    """Name in the module, such as ``EngineCore.preprocess_add_request``."""
    parameters: tuple[str, ...]
    """Names of its first parameters, without ``self``; for a class those of fields that it must have."""

    def difference(self) -> str | None:
        """Return what differs in the installed vLLM, or None."""
        try:
            found: Any = import_module(self.module)
            for part in self.name.split("."):
                found = inspect.getattr_static(found, part)
        except (ImportError, AttributeError):
            return f"{self.module}.{self.name} is missing"
        if inspect.isclass(found):
            fields = getattr(found, "__struct_fields__", ())
            missing = [field for field in self.parameters if field not in fields]
            return f"{self.module}.{self.name} has no field {', '.join(missing)}" if missing else None
        function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        present = tuple(name for name in inspect.signature(inspect.unwrap(function)).parameters if name != "self")
        if present[: len(self.parameters)] == self.parameters:
            return None
        return f"{self.module}.{self.name} takes ({', '.join(present)}), not ({', '.join(self.parameters)})"


_ENGINE = "vllm.v1.engine"
_OPENAI = "vllm.entrypoints.openai"
_WORKER = "vllm.v1.worker"

SEAMS = (
    Seam("vllm.engine.arg_utils", "EngineArgs.create_engine_config", ()),
    Seam(
        _ENGINE, "EngineCoreRequest", ("request_id", "prompt_token_ids", "sampling_params", "cache_salt", "resumable")
    ),
    Seam("vllm.sampling_params", "SamplingParams", ("extra_args",)),
    Seam(f"{_ENGINE}.core", "EngineCore.preprocess_add_request", ("request",)),
    Seam(f"{_ENGINE}.input_processor", "InputProcessor.__init__", ("vllm_config",)),
    Seam(f"{_ENGINE}.input_processor", "InputProcessor._validate_params", ("params", "supported_tasks")),
    Seam("vllm.v1.core.kv_cache_utils", "generate_block_hash_extra_keys", ("request", "start_token_idx")),
    Seam(f"{_OPENAI}.models.serving", "OpenAIModelRegistry.is_base_model", ("model_name",)),
    Seam(f"{_OPENAI}.models.serving", "OpenAIModelRegistry.show_available_models", ()),
    Seam("vllm.entrypoints.serve.engine.serving", "BaseServing._check_model", ("request",)),
    Seam(f"{_OPENAI}.completion.protocol", "CompletionRequest.to_sampling_params", ("max_tokens",)),
    Seam(f"{_OPENAI}.completion.protocol", "CompletionRequest.to_beam_search_params", ("max_tokens",)),
    Seam(f"{_OPENAI}.chat_completion.protocol", "ChatCompletionRequest.to_sampling_params", ("max_tokens",)),
    Seam(f"{_OPENAI}.chat_completion.protocol", "ChatCompletionRequest.to_beam_search_params", ("max_tokens",)),
    Seam(f"{_OPENAI}.responses.protocol", "ResponsesRequest.to_sampling_params", ("default_max_tokens",)),
    Seam(f"{_WORKER}.gpu_model_runner", "GPUModelRunner.load_model", ("load_dummy_weights",)),
    Seam(
        f"{_WORKER}.gpu_model_runner",
        "GPUModelRunner._prepare_inputs",
        ("scheduler_output", "num_scheduled_tokens"),
    ),
    Seam(
        f"{_WORKER}.gpu_model_runner",
        "GPUModelRunner._dummy_run",
        ("num_tokens", "cudagraph_runtime_mode", "force_attention", "uniform_decode"),
    ),
    Seam(f"{_WORKER}.gpu_model_runner", "GPUModelRunner.get_model", ()),
    Seam(
        f"{_WORKER}.gpu_input_batch",
        "InputBatch.update_req_spec_token_ids",  # it puts drafts behind the tokens that are settled
        ("request", "scheduled_spec_tokens"),
    ),
    Seam(f"{_WORKER}.gpu_worker", "Worker.compile_or_warm_up_model", ()),
    Seam("vllm.model_executor.layers.attention", "Attention.forward", ("query", "key", "value")),
    Seam("vllm.model_executor.layers.linear", "RowParallelLinear.forward", ("input_",)),
    Seam("vllm.model_executor.models.utils", "extract_layer_index", ("layer_name",)),
)
"""Everything the plugin relies on in every process."""

CPU_SEAMS = (
    Seam(f"{_WORKER}.cpu_model_runner", "CPUModelRunner.load_model", ("load_dummy_weights",)),
    Seam(f"{_WORKER}.cpu_worker", "CPUWorker.compile_or_warm_up_model", ()),
)
"""What it relies on where vLLM runs on CPUs."""

BATCH_FIELDS = ("req_ids", "token_ids_cpu", "num_computed_tokens_cpu", "num_tokens_no_spec", "num_prompt_tokens")
"""What of the first model runner's batch conditions are tested by."""

V2_SEAMS = (
    Seam(f"{_WORKER}.gpu.model_states", "resolve_model_state_cls", ("vllm_config", "model")),
    Seam(
        f"{_WORKER}.gpu.model_states.interface",
        "ModelState.__init__",
        ("vllm_config", "model", "encoder_cache", "device"),
    ),
    Seam(
        f"{_WORKER}.gpu.model_states.interface",
        "ModelState.add_request",
        ("req_index", "new_req_data"),
    ),
    Seam(f"{_WORKER}.gpu.model_states.interface", "ModelState.prepare_inputs", ("input_batch", "req_states")),
    Seam(f"{_WORKER}.gpu.model_states.interface", "ModelState.prepare_dummy_inputs", ("num_reqs", "num_tokens")),
    Seam(f"{_WORKER}.gpu.model_runner", "GPUModelRunner._dummy_run", ("num_tokens",)),
)
"""What it relies on where vLLM runs its second model runner."""


def require_known() -> None:
    """Check that the installed vLLM is a known version and that its functions are as expected.

    Raises:
        ConfigError: it is not; the message names the version and every difference.
    """
    import vllm

    version = str(vllm.__version__)
    require_known_version(version)
    require_equal(SEAMS, version)


def require_known_version(version: str) -> None:
    """Check that the plugin knows a version of vLLM.

    Raises:
        ConfigError: it does not.
    """
    low, high = KNOWN
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        major, minor = -1, -1
    if not low <= (major, minor) < high:
        raise ConfigError(
            f"vLLM is {version}; steering-server's plugin works with versions from {low[0]}.{low[1]} on and below "
            f"{high[0]}.{high[1]}. Install one of them, or run vLLM without steering: "
            "VLLM_PLUGINS= (or the names of other plugins)"
        )


def require_equal(seams: tuple[Seam, ...], version: str) -> None:
    """Check that functions of vLLM are as the plugin expects them.

    Raises:
        ConfigError: one differs; the message names the version and every difference.
    """
    differences = [difference for seam in seams if (difference := seam.difference()) is not None]
    if differences:
        raise ConfigError(
            f"vLLM {version} differs from what steering-server's plugin knows: {'; '.join(differences)}. "
            "Nothing would be steered reliably; run vLLM without it: VLLM_PLUGINS= (or the names of other plugins)"
        )


def require_fields(thing: Any, fields: tuple[str, ...]) -> None:
    """Check that an object of vLLM has the fields that the plugin reads.

    Raises:
        ConfigError: it lacks some; the message names them.
    """
    missing = [field for field in fields if not hasattr(thing, field)]
    if missing:
        raise ConfigError(
            f"this vLLM differs from what steering-server's plugin knows: {type(thing).__name__} has no field "
            f"{', '.join(missing)}, by which conditions are tested"
        )


def mark(function: _F) -> _F:
    """Mark a function of the plugin that has taken the place of one of vLLM's, and return it."""
    setattr(function, _MARK, True)
    return function


def marked(function: Any) -> bool:
    """Return whether a function is one that the plugin has put in place."""
    return bool(getattr(function, _MARK, False))
