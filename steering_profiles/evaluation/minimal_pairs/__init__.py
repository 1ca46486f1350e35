"""Minimal pairs of grammar, made by templates, and the effect of steering on them."""

from steering_profiles.evaluation.minimal_pairs.measuring import pair_windows, pairs_effects
from steering_profiles.evaluation.minimal_pairs.pairs import Pair, minimal_pairs

__all__ = ["Pair", "minimal_pairs", "pair_windows", "pairs_effects"]
