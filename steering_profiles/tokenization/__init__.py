"""From text to tokens and back: what stands before a prompt, and what each token stands for. No torch."""

from steering_profiles.tokenization.prompts import added_before, encode_prompt
from steering_profiles.tokenization.vocabulary import Vocabulary

__all__ = ["Vocabulary", "added_before", "encode_prompt"]
