"""Single files that are given as a model and are none: what each is, and what to give instead."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from steering_profiles.models import adapters
from steering_profiles.models.pointers import is_pointer, pointing
from steering_profiles.models.weights import damage, piece_of

_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
_KINDS = {".json": "a JSON file"} | dict.fromkeys(_WEIGHTS, "a file of weights")


def no_model(file: Path) -> str:
    """Say of a file, which is no GGUF file, what it is and what to give instead.

    Raises:
        OSError: it cannot be read.
    """
    if is_pointer(file):
        return pointing(file)
    if file.name == adapters.CONFIG or _is_adapter(file):
        return adapters.what_it_is(file.with_name(adapters.CONFIG))
    wrong = damage(file)
    if wrong is not None:
        return wrong
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        return "it is a file, and no GGUF file: a model is a folder with its config.json, a hub id or a GGUF file"
    number, count = piece_of(file) or (1, 1)
    piece = f", piece {number} of {count}" if count > 1 else ""
    return f"it is {kind}{piece}, not a whole model: load {_whole(file.parent)}"


def _is_adapter(file: Path) -> bool:
    """Return whether a file holds the weights of an adapter: by its name, or by the names of its tensors."""
    if file.name.startswith("adapter_model."):
        return True
    if file.suffix.lower() != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as content:
            return any(".lora_" in name for name in content.keys())  # noqa: SIM118  it is no mapping
    except SafetensorError:
        return False


def _whole(folder: Path) -> str:
    if (folder / "config.json").is_file():
        return f"the folder that it is in: {folder.absolute()}"
    return "a folder that holds all of the weights, config.json and the tokenizer"
