"""The backend that runs the model in this process, on this project's own engine."""

import asyncio
import copy
import threading
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import MappingProxyType

import jinja2

from steering_profiles.errors import GateError
from steering_profiles.models import LoadedModel
from steering_profiles.models.prompts import encode_prompt
from steering_profiles.schema import ModelIdentity
from steering_profiles.steering import AppliedProfile, Steering, split
from steering_profiles.store import Catalogue
from steering_profiles.validate import compare, require_fit
from steering_server.backends.base import GenerationRequest, ModelCard, ProfileCard, ProfileStrength, Spelling
from steering_server.backends.mailbox import Mailbox
from steering_server.engine.engine import Engine, EngineLimits
from steering_server.engine.requests import Chunk, Piece, SequenceRequest
from steering_server.engine.text import echo
from steering_server.errors import EngineError, NotFound, RequestError

_Report = tuple[int, Chunk | EngineError]


class LocalBackend:
    """A loaded model, the profiles that steer it, and the engine that runs both."""

    def __init__(
        self,
        loaded: LoadedModel,
        catalogue: Catalogue,
        limits: EngineLimits,
        *,
        served_name: str | None = None,
        force_profiles: bool = False,
    ) -> None:
        """Check the catalogue against the model.

        Raises:
            ProfileMismatch: a profile of the operator's own folder does not fit the model. Shipped ones that do not are
                only listed as unusable.
        """
        self._profiles = check_profiles(
            catalogue, loaded.identity, loaded.anatomy.neurons_refused, force=force_profiles
        )
        self._engine = Engine(loaded, limits)
        self._model = ModelCard(
            name=served_name or loaded.name,
            created=int(time.time()),
            context_length=self._engine.max_length,
            dtype=loaded.dtype_name,
            identity=loaded.identity,
        )
        # A tokenizer is not to be used from two threads at once.
        self._tokenizer = copy.deepcopy(loaded.tokenizer)
        self._tokenizing = threading.Lock()
        self._mailbox: Mailbox[_Report] | None = None

    @property
    def model(self) -> ModelCard:
        """The model being served."""
        return self._model

    @property
    def profiles(self) -> Mapping[str, ProfileCard]:
        """Every profile of the catalogue, by name, usable or not."""
        return self._profiles

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn a prompt into token ids."""
        with self._tokenizing:
            return encode_prompt(self._tokenizer, text)

    def echo(self, prompt: Sequence[int], *, is_all: bool) -> tuple[Piece, ...]:
        """Return what each token of a prompt adds to its text; ``is_all``: nothing is generated after it."""
        return echo(self._engine.vocabulary, prompt, is_all=is_all)

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, begin_turn: bool = True, continue_last: bool = False
    ) -> tuple[int, ...]:
        """Turn chat messages into token ids by the model's chat template.

        ``begin_turn`` begins the assistant's turn after them; ``continue_last`` ends with the last message's text.

        Raises:
            RequestError: the model has no chat template, or the template refuses these messages or hides the text that
                is to be continued.
        """
        if not self._tokenizer.chat_template:
            raise RequestError(f"model {self._model.name} has no chat template; use /v1/completions", param="messages")
        try:
            with self._tokenizing:
                text = self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tokenize=False,
                    add_generation_prompt=begin_turn,
                    continue_final_message=continue_last,
                )
                return tuple(self._tokenizer.encode(str(text), add_special_tokens=False))
        except (jinja2.TemplateError, TypeError, ValueError) as exc:
            if continue_last and isinstance(exc, ValueError):  # whose own text holds the whole conversation
                raise RequestError(
                    "continue_final_message: the model's chat template does not give out the last message's text as it "
                    "is, so it cannot be continued",
                    param="continue_final_message",
                ) from exc
            raise RequestError(f"the model's chat template refuses these messages: {exc}", param="messages") from exc

    def spelling(self, token: int) -> Spelling:
        """Return how a token is written by itself."""
        vocabulary = self._engine.vocabulary
        raw = b"" if vocabulary.is_special(token) else vocabulary.bytes_of(token)
        return Spelling(vocabulary.text_of(token), vocabulary.spelling(token), raw)

    async def generate(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[tuple[int, Chunk], None]:
        """Run ``requests`` in one batch and yield ``(index, chunk)`` as they come, until every one has finished.

        Closing the generator cancels what is still running.

        Raises:
            RequestError: a profile is unknown or unusable, some do not compose, or a prompt does not fit the context.
            Overloaded: too much is queued already.
            EngineError: the engine failed, or was stopped before it was done.
        """
        sequences = [self._sequence(request) for request in requests]
        loop = asyncio.get_running_loop()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = Mailbox(loop)
        mailbox = self._mailbox
        reports: asyncio.Queue[_Report] = asyncio.Queue()

        def emit(index: int, report: Chunk | EngineError) -> None:
            mailbox.put(reports, (index, report))

        group = self._engine.submit(sequences, emit)
        unfinished = len(sequences)
        try:
            while unfinished:
                index, report = await reports.get()
                if isinstance(report, EngineError):
                    raise report
                unfinished -= report.finish_reason is not None
                yield index, report
        finally:
            if unfinished:
                self._engine.cancel(group)

    async def start(self) -> None:
        """Begin to take requests."""
        self._engine.start()

    async def close(self) -> None:
        """Stop; what is still running is cancelled."""
        await asyncio.to_thread(self._engine.close)

    def _sequence(self, request: GenerationRequest) -> SequenceRequest:
        room = self._model.context_length - len(request.prompt) - request.sampling.max_tokens
        if not request.prompt:
            raise RequestError("prompt is empty; at least one token is needed", param="prompt")
        if room < 0:
            raise RequestError(
                f"prompt of {len(request.prompt)} tokens and max_tokens {request.sampling.max_tokens} do not fit the "
                f"context of {self._model.context_length} tokens",
                param="prompt",
                code="context_length_exceeded",
            )
        return SequenceRequest(request.prompt, request.sampling, self._steering(request.profiles))

    def _steering(self, profiles: Sequence[ProfileStrength]) -> Steering:
        steering = tuple(self._applied(choice) for choice in profiles)
        try:
            split(steering)
        except GateError as exc:
            raise RequestError(str(exc)) from exc
        return steering

    def _applied(self, choice: ProfileStrength) -> AppliedProfile:
        card = self._profiles.get(choice.profile)
        if card is None:
            known = ", ".join(name for name, card in self._profiles.items() if card.usable) or "none"
            raise NotFound(f"no profile named {choice.profile!r}; this server has: {known}", code="profile_not_found")
        if not card.usable:
            raise RequestError(f"profile {choice.profile!r} cannot steer {self._model.name}: {card.reason}")
        return AppliedProfile(card.entry.profile, choice.strength, known_hash=card.entry.content_hash)


def check_profiles(
    catalogue: Catalogue, model: ModelIdentity, refused: str | None, *, force: bool
) -> Mapping[str, ProfileCard]:
    """Return which profiles can steer ``model``, by name; ``force`` takes those made for others where they can be.

    ``refused`` is why the model's neurons cannot be scaled; None if they can.

    Raises:
        ProfileMismatch: one of the operator's own cannot.
    """
    cards = {}
    for name in catalogue:
        entry = catalogue[name]
        if entry.shipped:
            fit = compare(entry.profile, model, refused)
        else:
            fit = require_fit(entry.profile, model, refused, force=force)
        usable = fit.matches or (force and not fit.obstacles)
        reason = None if fit.matches else "; ".join(fit.differences + fit.obstacles)
        cards[name] = ProfileCard(entry, usable=usable, forced=usable and not fit.matches, reason=reason)
    return MappingProxyType(cards)
