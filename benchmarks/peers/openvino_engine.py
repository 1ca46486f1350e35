"""OpenVINO GenAI as a contender. Runs in OpenVINO's own environment and imports nothing of this project.

python openvino_engine.py FOLDER THREADS
"""

import json
import sys
import time
from collections import Counter

import numpy as np
import openvino
import openvino_genai

_PRODUCTS = ("FullyConnected", "MatMul")


def ran_at(folder: str, settings: dict[str, str]) -> str:
    """Return the types that the matrix products of a model are computed in, and their kernels."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(f"{folder}/openvino_model.xml"), "CPU", settings)
    found: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        said = {name: value.value for name, value in node.get_rt_info().items()}
        if said.get("layerType") in _PRODUCTS:
            found[f"{said['runtimePrecision']}, {said['primitiveType']}"] += 1
    return "; ".join(f"{count} products in {kind}" for kind, count in found.most_common())


def main() -> None:
    """Read batches of prompts from standard input and write the seconds that each takes to standard output."""
    folder, threads = sys.argv[1:]
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    described = ran_at(folder, settings)
    pipeline = openvino_genai.LLMPipeline(folder, "CPU", ATTENTION_BACKEND="SDPA", **settings)

    def measure(prompts: list[list[int]], new_tokens: int) -> float:
        ids = np.array(prompts)
        config = openvino_genai.GenerationConfig(max_new_tokens=new_tokens, ignore_eos=True, do_sample=False)
        began = time.perf_counter()
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        lengths = [len(tokens) for tokens in pipeline.generate(inputs, config).tokens]
        seconds = time.perf_counter() - began
        if lengths != [new_tokens] * len(prompts):
            raise RuntimeError(f"it generated {lengths} tokens, not {new_tokens} for each of {len(prompts)}")
        return seconds

    print(json.dumps(described), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
