"""Export of profiles for other servers: a checkpoint with scaled weights, or a LoRA adapter."""

from steering_profiles.export.folding import quantised_reason
from steering_profiles.export.lora import export_lora
from steering_profiles.export.weights import export_weights
from steering_profiles.exportable import require_empty, require_exportable

__all__ = ["export_lora", "export_weights", "quantised_reason", "require_empty", "require_exportable"]
