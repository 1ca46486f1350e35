"""vLLM's offline engine in a process of its own, and this project's engine as the reference for it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from steering_profiles.labels import parse_label
from steering_profiles.models import LoadedModel
from steering_profiles.steering import ProfileAtStrength, Steering
from steering_profiles.store import Catalogue
from steering_server.generation.requests import GenerationRequest, SamplingParams
from tests.engines.local.running import running

ROOT = Path(__file__).parent.parent.parent
TIE = 2e-4
"""The two engines order sums differently: logits that differ by less may change places."""

_SMALL: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 512,
    "enforce_eager": True,
    "block_size": 32,
    "disable_log_stats": False,
}


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process of vLLM."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "server"), *filter(None, [os.environ.get("PYTHONPATH")])])
    fixed = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    if "SABOTAGE" in changes:
        paths = os.pathsep.join([paths, changes.pop("SABOTAGE")])
    # An empty text takes a variable away.
    given = {**os.environ, **fixed, "PYTHONPATH": paths, **changes}
    return {name: value for name, value in given.items() if value or name == "VLLM_PLUGINS"}


def end(process: "subprocess.Popen[str]") -> None:
    """End a process that leads a session, and all others of it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


class NotStarted(Exception):
    """vLLM ended before it was ready; the message is what it said."""


class Vllm:
    """A running engine of vLLM with steering."""

    def __init__(
        self,
        model: str,
        profiles: Path | None,
        log: Path,
        *,
        settings: dict[str, Any] | None = None,
        variables: dict[str, str] | None = None,
        **arguments: Any,
    ) -> None:
        """Start it; ``arguments`` are those of vLLM's ``LLM``, and what it says goes to ``log``."""
        steering = {**({} if profiles is None else {"profiles": str(profiles)}), **(settings or {})}
        given = {**_SMALL, "model": model, "additional_config": {"steering": steering}, **arguments}
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.vllm.worker", json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(**(variables or {})),
                cwd=ROOT,
                start_new_session=True,
            )
        self.metrics: dict[str, float] = {}

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self.close()
            raise NotStarted(self._log.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and its workers."""
        end(self._process)

    def run(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Run requests in one batch: ``prompt``, ``steering``, ``strength`` and sampling parameters."""
        asked = [_request(**request) for request in requests]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        self.metrics = answer["metrics"]
        outputs: list[dict[str, Any]] = answer["outputs"]
        return outputs


def _request(
    prompt: Sequence[int], steering: Any = None, strength: Any = None, extra: Any = None, **sampling: Any
) -> dict[str, Any]:
    extra_args = {"steering": steering, "strength": strength}
    given = {name: value for name, value in extra_args.items() if value is not None}
    return {"prompt": list(prompt), "sampling": {**sampling, **({"extra_args": given} if given else {})}}


@dataclass(frozen=True)
class Reference:
    """What this project's engine generates greedily."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...]
    """Differences of the log-probabilities of the likeliest two tokens."""
    prompt_logprobs: tuple[float, ...]
    """From the second token of the prompt on."""


def references(
    loaded: LoadedModel, folder: Path | None, asked: Sequence[tuple[Sequence[int], str]], max_tokens: int
) -> list[Reference]:
    """Return what this project's engine generates for prompts and the labels of their steerings."""
    catalogue = Catalogue.open(folder)
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0, logprobs=2, prompt_logprobs_from=1)
    with running(loaded) as engine:
        chunks = engine.run(
            *(GenerationRequest(tuple(prompt), sampling, _steering(catalogue, label)) for prompt, label in asked),
            timeout=1800,
        )
    return [
        Reference(
            tokens=chunk.tokens,
            logprobs=tuple(one.logprob for one in chunk.logprobs),
            margins=tuple(one.top[0][1] - one.top[1][1] for one in chunk.logprobs),
            prompt_logprobs=tuple(one.logprob for one in chunk.prompt_logprobs or () if one is not None),
        )
        for chunk in chunks
    ]


def _steering(catalogue: Catalogue, text: str) -> Steering:
    label = parse_label(text)
    return Steering(tuple(ProfileAtStrength(catalogue[name].profile, label.strength) for name in label.names))


def parted(reference: Reference, output: dict[str, Any]) -> int | None:
    """Return the first position at which vLLM's greedy tokens part from the reference, None if they do not.

    Fails if log-probabilities before that differ by more than rounding.
    """
    for position, token in enumerate(reference.tokens):
        if output["tokens"][position] != token:
            return position
        difference = abs(output["logprobs"][position] - reference.logprobs[position])
        assert difference < TIE, f"position {position}: log-probabilities differ by {difference}"
    return None


def assert_equal_greedy(
    references: Sequence[Reference], outputs: Sequence[dict[str, Any]], names: Sequence[str]
) -> list[str]:
    """Check that greedy tokens are equal but for ties, and return a line for each tie that parted them."""
    ties = []
    for name, reference, output in zip(names, references, outputs, strict=True):
        position = parted(reference, output)
        if position is not None:
            margin = reference.margins[position]
            assert margin < TIE, f"{name}: other token at position {position}, though the margin is {margin}"
            ties.append(f"{name}: position {position}, margin {margin:.1e}")
    return ties
