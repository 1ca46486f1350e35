"""Settings of vLLM that steering, or conditions alone, do not work with, each with its reason."""

from typing import Any

from steering_server.errors import ConfigError


def require_supported(vllm_config: Any) -> None:
    """Check that steering works with these settings of vLLM.

    Raises:
        ConfigError: it does not; the message has all reasons.
    """
    reasons = [reason for refused, reason in _refusals(vllm_config) if refused]
    if reasons:
        raise ConfigError(
            "steering does not work with these settings of vLLM: "
            + "; ".join(reasons)
            + '. Change them, or start without profiles: --additional-config \'{"steering": {"shipped": false}}\''
        )


def refuses_conditions(vllm_config: Any) -> str | None:
    """Return the reason why an engine with this ``VllmConfig`` cannot test conditions, or None if it can."""
    model = vllm_config.model_config
    if vllm_config.use_v2_model_runner:
        return (
            "vLLM's second model runner has the tokens of a step on the GPU alone; VLLM_USE_V2_MODEL_RUNNER=0 starts "
            "the first"
        )
    if model.skip_tokenizer_init:
        return "skip_tokenizer_init: a condition tests text, which tokens without a tokenizer do not have"
    if str(model.tokenizer) != str(model.model):
        return f"tokenizer is {model.tokenizer}: a condition tests the text of the model's own tokens"
    if model.enable_prompt_embeds:
        return "enable_prompt_embeds: a prompt of embeddings has no tokens that a condition could test"
    return None


def _refusals(vllm_config: Any) -> list[tuple[bool, str]]:
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    return [
        (
            vllm_config.kv_transfer_config is not None,
            "kv_transfer_config: keys and values kept outside of vLLM may ignore the salt of steered requests",
        ),
        (
            bool(getattr(parallel, "use_ubatching", False)),
            "microbatches (enable_dbo, ubatch_size): the rows of a step are not split with its tokens",
        ),
        (
            getattr(parallel, "prefill_context_parallel_size", 1) > 1,
            "prefill_context_parallel_size above 1: tokens are distributed after their rows are known",
        ),
        (
            bool(model.enable_sleep_mode),
            "enable_sleep_mode: sleeping drops the steering tables with the weights",
        ),
        (
            bool(getattr(vllm_config.cache_config, "kv_sharing_fast_prefill", False)),
            "kv_sharing_fast_prefill: the last layers compute some tokens only",
        ),
        (model.runner_type != "generate", f"runner {model.runner_type}: only generation can be steered"),
    ]
