"""vLLM as a contender. Runs in vLLM's own environment and imports nothing of this project.

python vllm_engine.py FOLDER [DTYPE [ADDITIONAL_CONFIG]]

With the plugin, which VLLM_PLUGINS chooses, prompts can be steered; its settings are in the additional config, as JSON.
"""

import json
import os
import sys
import time

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def main() -> None:
    """Read batches of prompts from standard input and write the seconds that each takes to standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints must not be read as a result
    from vllm import LLM, SamplingParams

    dtype = sys.argv[2] if len(sys.argv) > 2 else "bfloat16"
    config = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    llm = LLM(model=sys.argv[1], dtype=dtype, max_model_len=512, enforce_eager=True, additional_config=config)

    def measure(prompts: list[list[int]], new_tokens: int, steering: list[str] | None = None) -> float:
        asked = [None if steering is None else {"steering": steering[n % len(steering)]} for n in range(len(prompts))]
        sampling = [
            SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, extra_args=extra) for extra in asked
        ]
        began = time.perf_counter()
        llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
        return time.perf_counter() - began

    print(json.dumps(dtype), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
