"""Tokens that a continuation adds to a prompt.

The answer of a task is one token, or a whole answer of several. Prompt and answer, tokenised as one text, must give the
prompt's own tokens followed by those of the answer; some tokenizers merge the end of the prompt with the answer.
"""

from typing import TYPE_CHECKING

from steering_profiles.tokenization import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokens_after(
    tokenizer: "PreTrainedTokenizerBase", text: str, prompt: tuple[int, ...], added: str
) -> tuple[int, ...] | None:
    """Return the tokens that ``added`` adds to ``text``, whose tokens are ``prompt``; None if it changes these."""
    whole = encode_prompt(tokenizer, text + added)
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else None


def token_after(tokenizer: "PreTrainedTokenizerBase", text: str, prompt: tuple[int, ...], added: str) -> int | None:
    """Return the token that ``added`` adds to ``text``; None if it does not add exactly one known token."""
    tokens = tokens_after(tokenizer, text, prompt, added)
    return tokens[0] if tokens is not None and len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id else None


def answer_after(
    tokenizer: "PreTrainedTokenizerBase", text: str, prompt: tuple[int, ...], added: str, whole: bool
) -> tuple[int, ...] | None:
    """Return the tokens of the answer ``added`` to ``text``; None if they are not known tokens after the prompt.

    Unless the answer is ``whole``, it must be one token.
    """
    if not whole:
        token = token_after(tokenizer, text, prompt, added)
        return None if token is None else (token,)
    tokens = tokens_after(tokenizer, text, prompt, added)
    return None if not tokens or tokenizer.unk_token_id in tokens else tokens
