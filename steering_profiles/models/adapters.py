"""Adapters of PEFT, which are no models, and which no model may have beside it.

Where PEFT is installed transformers applies an adapter that lies beside a model's weights without a word. What is
served as the baseline would then be another model than its name says, and a profile that was exported as an adapter
would steer twice.
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
    """See that there is no adapter at ``location``, a model's folder or hub id, whether or not PEFT is installed.

    Raises:
        ValueError: there is one, beside the weights or alone.
    """
    found = find_adapter_config_file(location, **options)
    if found is None:
        return
    # Not looked for beside the file: what is of the hub may not have been downloaded yet.
    config = cached_file(
        location,
        "config.json",
        **options,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if config is not None:
        raise ValueError(
            f"an adapter lies beside its weights ({CONFIG}), with which it would be another model: {MERGING}, or "
            f"remove {CONFIG}"
        )
    raise ValueError(what_it_is(Path(found)))


def require_none_applied(model: PreTrainedModel) -> None:
    """See that transformers has applied no adapter to a model that it has loaded.

    Raises:
        ValueError: it has.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(f"an adapter was found beside its weights and applied to them: {MERGING}, or remove {CONFIG}")


def what_it_is(config: Path) -> str:
    """Say of an adapter, by its ``adapter_config.json``, of which model it is and what to do."""
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    settings = settings if isinstance(settings, dict) else {}
    kind = "a LoRA adapter" if settings.get("peft_type", "LORA") == "LORA" else "an adapter of PEFT"
    return alone(kind, settings.get("base_model_name_or_path"))


def alone(kind: str, base: object) -> str:
    """Say of an adapter without its model what it is and what to do; ``base`` is the model's name where it is known."""
    model = f"model {base}" if isinstance(base, str) and base else "a model that it does not name"
    return f"it is {kind} of {model}, not a model by itself: load that model, or one that the adapter is merged into"
