"""Fields of OpenAI's, vLLM's and other servers' requests that this server does not implement, and clients send."""

from typing import Annotated, Any

from pydantic import Field, StrictBool

from steering_server.api.schemas.fields import Text
from steering_server.api.schemas.strict import IGNORED, Ignored, Neutral, Strict

Object = Annotated[dict[str, Any], Field(strict=True)]


class Bookkeeping(Strict):
    """Fields of OpenAI's that concern storage, billing and caches."""

    user: Text | None = Field(None, description="The end user, by whom experiments assign requests to arms.")
    safety_identifier: Annotated[Text | None, IGNORED] = None
    metadata: Annotated[Object | None, IGNORED] = None
    store: Annotated[StrictBool | None, IGNORED] = None
    service_tier: Annotated[Text | None, Ignored("auto", "default")] = None
    prompt_cache_key: Annotated[Text | None, IGNORED] = None
    prompt_cache_retention: Annotated[Text | None, IGNORED] = None
    prompt_cache_options: Annotated[Object | None, IGNORED] = None
    moderation: Annotated[Any, Neutral()] = None


class OtherServersFields(Strict):
    """Fields of vLLM, SGLang, llama.cpp and routers of requests."""

    # vLLM
    request_id: Annotated[Text | None, IGNORED] = None
    guided_decoding_backend: Annotated[Text | None, IGNORED] = None
    guided_whitespace_pattern: Annotated[Any, Neutral()] = None
    use_beam_search: Annotated[Any, Neutral(False)] = None
    early_stopping: Annotated[Any, Neutral(False)] = None
    length_penalty: Annotated[Any, Neutral(1)] = None
    include_stop_str_in_output: Annotated[Any, Neutral(False)] = None
    skip_special_tokens: Annotated[Any, Neutral(True)] = None
    spaces_between_special_tokens: Annotated[Any, Neutral(True, False)] = None
    allowed_token_ids: Annotated[Any, Neutral()] = None
    bad_words: Annotated[Any, Neutral([])] = None
    logits_processors: Annotated[Any, Neutral([])] = None
    priority: Annotated[Any, Neutral(0)] = None
    return_tokens_as_token_ids: Annotated[Any, Neutral(False)] = None
    cache_salt: Annotated[Any, Neutral()] = None
    kv_transfer_params: Annotated[Any, Neutral({})] = None
    vllm_xargs: Annotated[Any, Neutral({})] = None
    repetition_detection: Annotated[Any, Neutral()] = None
    max_repetition_pattern_size: Annotated[Any, Neutral(0)] = None
    min_repetition_pattern_size: Annotated[Any, Neutral(0)] = None
    repetition_min_count: Annotated[Any, Neutral(0)] = None
    # others
    cache_prompt: Annotated[StrictBool | None, IGNORED] = None
    typical_p: Annotated[Any, Neutral(1)] = None
    top_a: Annotated[Any, Neutral(0)] = None
    mirostat: Annotated[Any, Neutral(0)] = None
    dry_multiplier: Annotated[Any, Neutral(0)] = None
    xtc_probability: Annotated[Any, Neutral(0)] = None
    repeat_penalty: Annotated[Any, Neutral(1)] = None
    no_stop_trim: Annotated[Any, Neutral(False)] = None
    lora_path: Annotated[Any, Neutral()] = None
    return_hidden_states: Annotated[Any, Neutral(False)] = None
    transforms: Annotated[Any, Neutral([])] = None


class OtherChatFields(Strict):
    """Fields of chat requests alone."""

    prediction: Annotated[Object | None, IGNORED] = Field(None, description="Ignored: it only saves time elsewhere.")
    modalities: Annotated[Any, Neutral(["text"])] = None
    audio: Annotated[Any, Neutral()] = None
    reasoning_effort: Annotated[Any, Neutral("none")] = None
    verbosity: Annotated[Any, Neutral("medium")] = None
    web_search_options: Annotated[Any, Neutral()] = None
    best_of: Annotated[Any, Neutral(1)] = None
    echo: Annotated[Any, Neutral(False)] = None
    documents: Annotated[Any, Neutral([])] = None
    chat_template: Annotated[Any, Neutral()] = None
    media_io_kwargs: Annotated[Any, Neutral({})] = None
    mm_processor_kwargs: Annotated[Any, Neutral({})] = None
    include_reasoning: Annotated[Any, Neutral(True, False)] = None
    thinking_token_budget: Annotated[Any, Neutral()] = None
    separate_reasoning: Annotated[Any, Neutral(True, False)] = None
    stream_reasoning: Annotated[Any, Neutral(True, False)] = None
