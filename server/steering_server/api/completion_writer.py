"""Answers to completions in OpenAI's format: text, whole or in chunks."""

from collections.abc import Sequence

from pydantic import BaseModel

from steering_server.api.choices_writer import ChoicesWriter
from steering_server.api.logprobs import add, completion_logprobs, echoed_logprobs
from steering_server.api.plan import Plan, PlannedSequence, Prompt
from steering_server.api.schemas.requests import CompletionBody
from steering_server.api.schemas.responses import (
    Comparison,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Usage,
)
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk


class CompletionWriter(ChoicesWriter[CompletionBody, CompletionChoice]):
    """Formats the answer to one request."""

    id_prefix = "cmpl"

    def __init__(self, plan: Plan, body: CompletionBody, backend: Backend) -> None:
        """Begin the answer to ``body``, whose sequences ``plan`` has."""
        super().__init__(plan, body, backend)
        self._written: dict[int, int] = {}
        """Length of each sequence's text so far, its echo included; only of sequences with a chunk."""

    def whole(self, plan: Plan, answers: Sequence[Chunk], usage: Usage, comparison: Comparison | None) -> Completion:
        """Return the body of an answer that is not streamed."""
        choices = [
            self._choice(index, sequence, answer)
            for index, (sequence, answer) in enumerate(zip(plan.sequences, answers, strict=True))
        ]
        return self.envelope(choices, usage, comparison)

    def openings(self, usage: Usage | None) -> list[BaseModel]:
        """Return the first chunks of a stream: none before a sequence has text."""
        return []

    def chunk(self, index: int, chunk: Chunk, usage: Usage | None) -> list[BaseModel]:
        """Return the chunk of a stream for what a sequence has generated."""
        return [self.envelope([self._choice(index, self.plan.sequences[index], chunk)], usage)]

    def envelope(
        self, choices: list[CompletionChoice], usage: Usage | None = None, comparison: Comparison | None = None
    ) -> Completion:
        """Return an answer, or a chunk of one."""
        return Completion(choices=choices, **self.around(usage, comparison))

    def _choice(self, index: int, sequence: PlannedSequence, chunk: Chunk) -> CompletionChoice:
        starts = index not in self._written
        start = self._written.setdefault(index, len(sequence.prompt.text))
        self._written[index] += sum(len(delta.text) for delta in chunk.deltas)
        return CompletionChoice(
            index=index,
            text=(sequence.prompt.text if starts else "") + chunk.text,
            logprobs=self._logprobs(sequence.prompt, chunk, start, starts),
            finish_reason=chunk.finish_reason,
            prompt_logprobs=self.prompt_logprobs(chunk),
            token_ids=self.token_ids(chunk.tokens),
            prompt_token_ids=self.token_ids(sequence.prompt.tokens) if starts else None,
            arm=sequence.arm.label if self.plan.arms.named else None,
        )

    def _logprobs(self, prompt: Prompt, chunk: Chunk, start: int, starts: bool) -> CompletionLogprobs | None:
        if self.body.logprobs is None:
            return None
        logprobs = completion_logprobs(chunk, self.body.logprobs, self.backend.tokenizer, start=start)
        if self.body.echo and starts:
            return add(echoed_logprobs(prompt, chunk, self.body.logprobs, self.backend.tokenizer), logprobs)
        return logprobs
