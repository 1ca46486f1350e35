"""Profiles in forms that other servers run, with nothing of ours installed: scaled weights, or a LoRA adapter."""

from steering_profiles.export.destination import require_empty
from steering_profiles.export.folding import quantised, require_carryable
from steering_profiles.export.lora import export_lora
from steering_profiles.export.weights import export_weights

__all__ = ["export_lora", "export_weights", "quantised", "require_carryable", "require_empty"]
