"""Run vLLM's offline engine: settings as the argument, batches of requests on standard input, results on its output."""

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer each line with the outputs of its requests, or with the error of one of them."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints must not be read as a result
    from vllm import LLM, SamplingParams
    from vllm.exceptions import VLLMError

    llm = LLM(**json.loads(sys.argv[1]))

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    say("ready")
    for line in sys.stdin:
        asked = json.loads(line)
        params = [
            SamplingParams(temperature=0, logprobs=2, ignore_eos=True, **{"max_tokens": 1, **one["sampling"]})
            for one in asked
        ]
        try:
            outputs = llm.generate([{"prompt_token_ids": one["prompt"]} for one in asked], params, use_tqdm=False)
        except (ValueError, VLLMError) as exc:
            say({"error": f"{type(exc).__name__}: {exc}"})
            continue
        metrics = {metric.name: metric.value for metric in llm.get_metrics() if hasattr(metric, "value")}
        say({"outputs": [described(output) for output in outputs], "metrics": metrics})


def described(output: Any) -> dict[str, Any]:
    (completion,) = output.outputs
    return {
        "tokens": list(completion.token_ids),
        "logprobs": [
            by_token[token].logprob for by_token, token in zip(completion.logprobs, completion.token_ids, strict=True)
        ],
        "cached": output.num_cached_tokens,
        "prompt_logprobs": output.prompt_logprobs
        and [
            None if by_token is None else by_token[token].logprob
            for by_token, token in zip(output.prompt_logprobs, output.prompt_token_ids, strict=True)
        ],
    }


if __name__ == "__main__":
    main()
