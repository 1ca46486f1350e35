"""PEFT adapters, which are refused both in place of a model and beside its weights.

If PEFT is installed, transformers silently applies an adapter that it finds beside a model's weights. The baseline
would then be another model than its name says, and a profile that was exported as an adapter would steer twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import cached_file, find_adapter_config_file

CONFIG = "adapter_config.json"
MERGING = "merge it into the weights with merge_and_unload of PEFT"


def require_no_adapter(location: str, options: Mapping[str, Any]) -> None:
    """Check that there is no adapter at ``location``, a folder or hub id, whether or not PEFT is installed.

    Raises:
        ValueError: there is an adapter, beside the weights or alone.
    """
    found = find_adapter_config_file(location, **options)
    if found is None:
        return
    # Not looked up beside the adapter's file: a config on the hub may not have been downloaded yet.
    config = cached_file(
        location,
        "config.json",
        **options,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if config is not None:
        raise ValueError(
            f"there is an adapter beside its weights ({CONFIG}), which would change the model: {MERGING}, or remove "
            f"{CONFIG}"
        )
    raise ValueError(describe_adapter(Path(found)))


def require_none_applied(model: PreTrainedModel) -> None:
    """Check that transformers has not applied an adapter to a loaded model.

    Raises:
        ValueError: an adapter was applied.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            f"transformers has applied an adapter that is beside its weights: {MERGING}, or remove {CONFIG}"
        )


def describe_adapter(config: Path) -> str:
    """Return what is said of an adapter given as a model, from its ``adapter_config.json``, and what to do instead."""
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    settings = settings if isinstance(settings, dict) else {}
    kind = "a LoRA adapter" if settings.get("peft_type", "LORA") == "LORA" else "a PEFT adapter"
    return adapter_alone(kind, settings.get("base_model_name_or_path"))


def adapter_alone(kind: str, base: object) -> str:
    """Return the same for an adapter of this ``kind``; ``base`` is the name of its model, if known."""
    model = f"model {base}" if isinstance(base, str) and base else "an unnamed model"
    return f"it is {kind} of {model}, not a model: load that model, or one that the adapter is merged into"
