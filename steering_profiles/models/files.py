"""Messages for single files that are given as a model but are not one."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from steering_profiles.models import adapters
from steering_profiles.models.pointers import is_pointer, pointing
from steering_profiles.models.weights import damage, part_of

_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
_KINDS = {".json": "a JSON file"} | dict.fromkeys(_WEIGHTS, "a weights file")


def no_model(file: Path) -> str:
    """Return a message about a file that is not a GGUF file: what it is, and what to load instead.

    Raises:
        OSError: the file cannot be read.
    """
    if is_pointer(file):
        return pointing(file)
    if file.name == adapters.CONFIG or _is_adapter(file):
        return adapters.describe_adapter(file.with_name(adapters.CONFIG))
    wrong = damage(file)
    if wrong is not None:
        return wrong
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        return "it is neither a folder nor a GGUF file; a model is a folder with a config.json, a hub id or a GGUF file"
    number, count = part_of(file) or (1, 1)
    piece = f", part {number} of {count}" if count > 1 else ""
    return f"it is {kind}{piece}, not a whole model: load {_whole(file.parent)}"


def _is_adapter(file: Path) -> bool:
    """Return whether a file contains the weights of an adapter, by its name or the names of its tensors."""
    if file.name.startswith("adapter_model."):
        return True
    if file.suffix.lower() != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as content:
            return any(".lora_" in name for name in content.keys())  # noqa: SIM118  safe_open is not a mapping
    except SafetensorError:
        return False


def _whole(folder: Path) -> str:
    if (folder / "config.json").is_file():
        return f"its folder, {folder.absolute()}"
    return "a folder with all weights, config.json and the tokenizer"
