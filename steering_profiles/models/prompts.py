"""How a prompt becomes token ids: one way for fitting and serving, so that both see the same prompt."""

from transformers import PreTrainedTokenizerBase


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return the token ids of ``text`` with the special tokens that the model's tokenizer puts around any text."""
    return tuple(tokenizer.encode(text))
