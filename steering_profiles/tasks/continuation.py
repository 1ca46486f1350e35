"""What a text adds to a prompt, in tokens.

A task's answer is one token, and it must be the token that the model would meet: the prompt with the answer behind it,
tokenised as one text, is the prompt's own tokens and then that one. A tokenizer may merge the two instead.
"""

from typing import TYPE_CHECKING

from steering_profiles.tokenization import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokens_after(
    tokenizer: "PreTrainedTokenizerBase", text: str, prompt: tuple[int, ...], added: str
) -> tuple[int, ...] | None:
    """Return the tokens that ``added`` adds to ``text``, whose own are ``prompt``; None if it changes those."""
    whole = encode_prompt(tokenizer, text + added)
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else None


def token_after(tokenizer: "PreTrainedTokenizerBase", text: str, prompt: tuple[int, ...], added: str) -> int | None:
    """Return the one token that ``added`` adds to ``text``; None if it is not one known token of its own."""
    tokens = tokens_after(tokenizer, text, prompt, added)
    return tokens[0] if tokens is not None and len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id else None
