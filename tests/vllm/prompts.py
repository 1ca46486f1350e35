"""Prompts of the tests with a running vLLM."""

from transformers import PreTrainedTokenizerBase

FOUR = "#print the string 123\nprint(str(str(str(123"
"""The model closes three parentheses of four by itself, and all of them with the profile ``parentheses``."""

_PLAIN = (
    "The capital of France is",
    "Q: What language is spoken in Brazil? A:",
    "The currency of Mexico is the",
    "def add(a, b):\n    return a",
    "Once upon a time there was a",
    "import numpy as",
    "Water boils at a temperature of",
    "for i in range(10):\n    print(",
    "My favourite book is",
    "In 1969, humans first landed on the",
)


def long() -> str:
    """A prompt of 260 tokens, which no step of 64 takes at once."""
    return "".join(f"#print the string {n}\nprint(str(str({n})))\n" for n in range(300, 312)) + FOUR


def texts(count: int) -> list[str]:
    """So many different prompts: half of them calls to close, half plain text."""
    calls = [f"#print the string {n}\nprint({'str(' * (1 + n % 4)}{n}" for n in range(7, 7 + count)]
    plain = [f"{number}. {text}" if number >= len(_PLAIN) else text for number, text in enumerate(_PLAIN * count)]
    return [text for pair in zip(calls, plain, strict=False) for text in pair][:count]


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a prompt."""
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids
