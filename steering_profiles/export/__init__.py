"""Profiles in forms that other servers run, with nothing of ours installed: scaled weights, or a LoRA adapter."""

from steering_profiles.export.folding import quantised
from steering_profiles.export.lora import export_lora
from steering_profiles.export.weights import export_weights
from steering_profiles.exportable import require_empty, require_exportable

__all__ = ["export_lora", "export_weights", "quantised", "require_empty", "require_exportable"]
