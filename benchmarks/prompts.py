"""Prompts as token ids, the same for every contender. No two are equal, so that no prefix cache helps."""

import random

from transformers import AutoTokenizer

PROMPT_TOKENS = 20
NEW_TOKENS = 64

_WORDS = [
    "morning",
    "sea",
    "house",
    "dog",
    "letter",
    "garden",
    "winter",
    "train",
    "river",
    "market",
    "teacher",
    "window",
    "bread",
    "song",
    "island",
    "doctor",
    "paper",
    "road",
    "summer",
    "clock",
    "forest",
    "kitchen",
    "soldier",
    "bridge",
    "school",
    "coat",
    "engine",
    "field",
    "mirror",
    "storm",
    "pocket",
    "village",
    "castle",
    "horse",
    "lamp",
]


def random_prompts(count: int, length: int, seed: int) -> list[list[int]]:
    """Return prompts of random ordinary tokens, as the load generator sends them over HTTP."""
    drawn = random.Random(seed)
    return [[drawn.randrange(100, 40_000) for _ in range(length)] for _ in range(count)]


class Prompts:
    """An endless series of prompts of ``PROMPT_TOKENS`` tokens each."""

    def __init__(self, model: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._made = 0

    def take(self, count: int) -> list[list[int]]:
        """Return the next ``count`` prompts."""
        return [self._next() for _ in range(count)]

    def _next(self) -> list[int]:
        self._made += 1
        chosen = [_WORDS[(self._made * step + self._made // len(_WORDS)) % len(_WORDS)] for step in range(1, 12)]
        text = f"Story number {self._made}, about the " + ", the ".join(chosen) + ". Once upon a time there was"
        tokens: list[int] = self._tokenizer.encode(text)
        return tokens[:PROMPT_TOKENS]
