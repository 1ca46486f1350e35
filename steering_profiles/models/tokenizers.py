"""Reading of a model's tokenizer, with a check that it fits the model, before weights are read."""

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from steering_profiles.models.faults import CANNOT_LOAD, in_one_line
from steering_profiles.models.gguf import remove_unlisted_tokens
from steering_profiles.models.locating import Location
from steering_profiles.models.pointers import require_fetched

_FILES = (
    "*token*.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template.*",
    "additional_chat_templates/*.jinja",
)
"""Patterns of the files that transformers reads for a tokenizer."""


def read_tokenizer(location: Location, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """Read the tokenizer of the model with ``config``.

    Raises:
        ValueError: the tokenizer cannot be read, or does not fit the model.
    """
    if location.folder is not None:
        require_fetched(location.folder, *_FILES)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            location.path, trust_remote_code=False, **location.options
        )
    except CANNOT_LOAD as exc:
        raise ValueError(
            f"its tokenizer cannot be read: {in_one_line(exc)}; the folder needs the tokenizer's files, such as "
            "tokenizer.json"
        ) from exc
    if location.gguf is not None:
        remove_unlisted_tokens(tokenizer, location.gguf)
    _require_fit(tokenizer, config.get_text_config().vocab_size)
    tokenizer.name_or_path = tokenizer.init_kwargs["name_or_path"] = location.origin
    return tokenizer


def _require_fit(tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Check that all tokens that can occur in text have an embedding in a table of ``size`` rows.

    Tokens for padding or images need none: some models are published without them.

    Raises:
        ValueError: a token has no embedding.
    """
    vocabulary = tokenizer.get_vocab()
    roles = {
        role: vocabulary.get(str(token))
        for role, token in tokenizer.special_tokens_map.items()
        if role.endswith("_token")
    }
    given = {roles.get("eos_token"), *tokenizer.encode("")}
    needless = set(roles.values()) - given
    outside = {
        token_id: token for token, token_id in vocabulary.items() if token_id >= size and token_id not in needless
    }
    if outside:
        first = min(outside)
        raise ValueError(
            f"its tokenizer does not fit the model: tokens without an embedding: {len(outside)}, such as "
            f"{outside[first]!r} with id {first}; the largest id is {size - 1}; use the tokenizer that was published "
            "with the model"
        )
