"""llama.cpp's server as a contender. Runs in llama.cpp's own environment and imports nothing of this project.

python llama_server.py GGUF THREADS SEQUENCES
"""

import json
import os
import sys
import time
import urllib.request
from typing import Any

CONTEXT = 512
"""Tokens of one sequence."""


def started(gguf: str, threads: int, sequences: int) -> Any:
    """Return a running server, which ends when it is deleted."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_parallel = sequences
    params.n_ctx = sequences * CONTEXT
    return xllamacpp.Server(params)


class Client:
    """The HTTP API of a running server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def complete(self, prompts: list[list[int]], new_tokens: int) -> None:
        """Generate ``new_tokens`` tokens after each prompt, all at once."""
        body = {
            "prompt": prompts,
            "n_predict": new_tokens,
            "temperature": 0,
            "samplers": ["temperature"],
            "ignore_eos": True,
            "cache_prompt": False,
            "return_tokens": True,
        }
        request = urllib.request.Request(
            f"{self._url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            answered: Any = json.load(response)
        answers = answered if isinstance(answered, list) else [answered]
        lengths = [answer["tokens_predicted"] for answer in answers]
        if lengths != [new_tokens] * len(prompts):
            raise RuntimeError(f"the server generated {lengths} tokens, not {new_tokens} for each of {len(prompts)}")


def main() -> None:
    """Read batches of prompts from standard input and write the seconds that each takes to standard output."""
    gguf, threads, sequences = sys.argv[1:]
    server = started(gguf, int(threads), int(sequences))
    client = Client(server.listening_address)
    print(json.dumps(os.path.basename(gguf).rpartition("-as-")[2].removesuffix(".gguf")), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        began = time.perf_counter()
        client.complete(task["prompts"], task["new_tokens"])
        print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
