"""Published results to compare a fit with: RASteer (arXiv:2507.00322), balanced parentheses, heads ranked by F1."""

from dataclasses import dataclass

from huggingface_hub import try_to_load_from_cache

from steering_profiles.source import EMBEDDED


@dataclass(frozen=True)
class Published:
    """Published results of one model: test accuracy in percent for one to four parentheses; None if not published."""

    model: str
    """Name of the model in the paper."""
    source: str
    """Hub id of its weights, or ``embedded``."""
    before: tuple[float | None, float | None, float | None, float | None]
    after: tuple[float | None, float | None, float | None, float | None]
    note: str
    """Summary of the paper's result."""


PUBLISHED = (
    Published(
        "GPT-2 small",
        "openai-community/gpt2",
        (100, 100, 49, 0),
        (None, None, None, 16.8),
        "four parentheses stay low: 16.8 with the top 60",
    ),
    Published(
        "GPT-2 medium",
        "openai-community/gpt2-medium",
        (100, 100, 93, 0),
        (None, None, None, 100),
        "about 100 with the top 10 to 60",
    ),
    Published(
        "GPT-2 large",
        "openai-community/gpt2-large",
        (100, 100, 88, 0),
        (None, None, None, 100),
        "about 100 with the top 10",
    ),
    Published(
        "GPT-2 XL",
        "openai-community/gpt2-xl",
        (100, 100, 0, 0),
        (None, None, 100, 100),
        "about 100 with the top 10; three parentheses with the top 5",
    ),
    Published(
        "Llama-2 7B",
        "meta-llama/Llama-2-7b-hf",
        (100, 100, 100, 1),
        (None, None, None, 100),
        "about 100 with the top 10",
    ),
    Published(
        "CodeLlama 7B",
        "codellama/CodeLlama-7b-hf",
        (99, 100, 98, 87),
        (None, None, None, 100),
        "about 100 with the top 5",
    ),
    Published(
        "Pythia 6.9B",
        "EleutherAI/pythia-6.9b",
        (100, 100, 100, 83),
        (None, None, None, 100),
        "about 100 with the top 5",
    ),
    Published("Qwen2.5-3B", "Qwen/Qwen2.5-3B", (None, None, 92.7, 46.7), (None, None, 98.0, 77.3), "with the top 20"),
    Published(
        "SmolLM2-135M-Instruct",
        EMBEDDED,
        (100, 100, 96.7, 0),
        (100, 100, 100, 100),
        "not in the paper: an early fit of this project, top 20 by 1.5 to 2.0",
    ),
)


def is_available(published: Published) -> bool:
    """Return whether the model's weights are on this machine: it is the embedded model or in the hub's cache."""
    return published.source == EMBEDDED or isinstance(try_to_load_from_cache(published.source, "config.json"), str)
