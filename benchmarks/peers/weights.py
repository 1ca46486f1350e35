"""The default model in the formats of the peers, made once beside their environments.

All have the values of the engine's own weights, which are those of the package's GGUF file, dequantised and rounded to
bfloat16; 8-bit forms are quantised from them.
"""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, Keys, LlamaFileType
from gguf.quants import dequantize, quantize

from benchmarks.peers.environments import FOLDER, Environment, checked
from steering_profiles.models.embedded import find_gguf

_FOLDER = FOLDER / "models"
_FILE_TYPES = {
    GGMLQuantizationType.BF16: LlamaFileType.MOSTLY_BF16,
    GGMLQuantizationType.Q8_0: LlamaFileType.MOSTLY_Q8_0,
}


def gguf_file(kind: GGMLQuantizationType) -> Path:
    """Return a GGUF file of the default model whose matrices are of ``kind``, BF16 or Q8_0."""
    source = find_gguf()
    file = _FOLDER / f"{source.stem}-as-{kind.name}.gguf"
    if not file.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        _convert(GGUFReader(source), partial, kind)
        partial.rename(file)
    return file


def openvino_folder(environment: Environment, model: str, weights: Literal["fp16", "int8"]) -> Path:
    """Return a folder of the model in ``model`` in OpenVINO's format, with ``weights`` of that type.

    bfloat16 weights are stored as float16, which has all their digits.

    Raises:
        PeerUnavailable: the conversion fails.
    """
    folder = _FOLDER / f"{Path(model).name}-openvino-{weights}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [str(environment.python.with_name("optimum-cli")), "export", "openvino", "--model", model]
        command += ["--task", "text-generation-with-past", "--weight-format", weights, str(partial)]
        checked(command, {"HF_HUB_OFFLINE": "1"})
        partial.rename(folder)
    return folder


def _convert(reader: GGUFReader, file: Path, kind: GGMLQuantizationType) -> None:
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = GGUFWriter(file, fields.pop(Keys.General.ARCHITECTURE).contents())
    fields.pop(Keys.General.FILE_TYPE, None)
    writer.add_file_type(_FILE_TYPES[kind])
    for name, field in fields.items():
        of_list = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], of_list)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 2:
            as_bfloat16 = dequantize(quantize(values, GGMLQuantizationType.BF16), GGMLQuantizationType.BF16)
            writer.add_tensor(tensor.name, quantize(as_bfloat16, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
