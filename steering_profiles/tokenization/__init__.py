"""Tokenization of prompts, and the text and bytes of single tokens. No torch."""

from steering_profiles.tokenization.continuing import Continuations
from steering_profiles.tokenization.prompts import added_before, encode_prompt, encode_prompts
from steering_profiles.tokenization.vocabulary import Vocabulary

__all__ = ["Continuations", "Vocabulary", "added_before", "encode_prompt", "encode_prompts"]
