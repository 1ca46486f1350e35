"""Compilation of grammars: in a thread of its own, within limits, and once for each grammar."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from steering_profiles.tokenization import Vocabulary
from steering_server.engines.local.grammars.limits import CPU_SECONDS, parser_limits
from steering_server.engines.local.grammars.matching import Matcher
from steering_server.errors import EngineError, RequestError
from steering_server.generation.grammars import Grammar
from steering_server.generation.requests import SamplingParams

MAX_CACHED = 64
"""Number of compiled grammars that are kept."""

_REPHRASED = {
    "NoExtensionBias": "allows no text",
    "oneOf constraints are not supported": "oneOf is supported only where no value can match several of its schemas",
}
"""What some of llguidance's messages mean."""
_REASON = re.compile(
    r"(?:at \d+\(\d+\): )?(?:failed to compile JSON schema: )?(.*?)(?=\n +\d+ \| |\n<non-verbose/>|\Z)", re.S
)


class GrammarCompiler:
    """Turns grammars into matchers for one model's vocabulary."""

    def __init__(self, vocabulary: Vocabulary, size: int, end_tokens: Iterable[int]) -> None:
        """``size`` is the number of logits, which may exceed the number of tokens."""
        self._vocabulary = vocabulary
        self._size = size
        self._end_tokens = frozenset(end_tokens)
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._trial = _Trial()
        # One thread: however many grammars arrive, only one is compiled at a time, and neither the event loop nor the
        # engine waits for it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="steering-grammars")

    async def matchers(self, sequences: Sequence[SamplingParams]) -> list[Matcher | None]:
        """Return a new matcher for each sequence that has a grammar.

        Raises:
            RequestError: a grammar is not valid, or is too large or complex.
        """
        if all(sampling.grammar is None for sampling in sequences):
            return [None] * len(sequences)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._matchers, sequences)

    def close(self) -> None:
        """End the thread and the process."""
        self._thread.shutdown(cancel_futures=True)
        self._trial.close()

    def _matchers(self, sequences: Sequence[SamplingParams]) -> list[Matcher | None]:
        return [
            None if sampling.grammar is None else self._matcher(sampling.grammar, may_end=not sampling.ignore_eos)
            for sampling in sequences
        ]

    def _matcher(self, grammar: Grammar, *, may_end: bool) -> Matcher:
        matcher = Matcher(self._prototype(grammar).deep_copy(), self._size, self._end_tokens, may_end=may_end)
        if matcher.is_complete:
            raise RequestError(f"{grammar.field}: allows only the empty text", param=grammar.field)
        return matcher

    def _prototype(self, grammar: Grammar) -> LLMatcher:
        """Return the compiled grammar, which is copied for each sequence and never advanced."""
        found = self._compiled.pop(grammar.text, None)
        if found is None:
            found = self._compile(grammar)
        self._compiled[grammar.text] = found
        if len(self._compiled) > MAX_CACHED:
            self._compiled.popitem(last=False)
        return found

    def _compile(self, grammar: Grammar) -> LLMatcher:
        fault = self._trial.fault_of(grammar.text)
        if not fault:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._vocabulary, self._size, self._end_tokens)
            compiled = LLMatcher(self._tokenizer, grammar.text, log_level=0, limits=parser_limits())
            fault = compiled.get_error()
        if fault:
            raise RequestError(f"{grammar.field}: {_reason(fault)}", param=grammar.field)
        return compiled


def _reason(fault: str) -> str:
    """Return the part of llguidance's message that says what is wrong."""
    found = _REASON.match(fault)
    reason = " ".join((found[1] if found else fault).split())[:400]
    return next((meaning for message, meaning in _REPHRASED.items() if message in reason), reason)


class _Trial:
    """The process that tries grammars. It is started when the first one comes, and again after one has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def fault_of(self, grammar: str) -> str:
        """Return what is wrong with a grammar, or nothing."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "steering_server.engines.local.grammars.trial"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        process = self._process
        try:
            answer = self._ask(process, json.dumps(grammar))
        except BrokenPipeError:
            answer = ""
        if answer:
            return str(json.loads(answer))
        self.close()
        ended = process.wait()
        if ended >= 0:
            raise EngineError(f"grammars cannot be compiled: the process that tries them has ended with {ended}")
        exceeded = f"more than {CPU_SECONDS:g} s" if ended == -signal.SIGPROF else "too much memory"
        return f"takes {exceeded} to compile; a simpler one is needed"

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @staticmethod
    def _ask(process: "subprocess.Popen[str]", line: str) -> str:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()


class _Tokens:
    """The bytes of all tokens, as llguidance reads them."""

    bos_token_id = None
    eos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = tokens

    def __call__(self, text: str) -> list[int]:
        # Only asked for text that the grammar forces; ours leave the choice of tokens to the model.
        raise RuntimeError("grammars do not force tokens here")


def _tokenizer(vocabulary: Vocabulary, size: int, end_tokens: frozenset[int]) -> LLTokenizer:
    # A token without bytes is never allowed: special tokens, and ids for which there is none.
    tokens = [b"" if vocabulary.is_special(token) else vocabulary.bytes_of(token) for token in range(size)]
    # Without any end token, the id after the last one stands for it.
    return LLTokenizer(TokenizerWrapper(_Tokens(tokens)), eos_token=sorted(end_tokens) or None)
