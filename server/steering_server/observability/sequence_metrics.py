"""Metrics of sequences: tokens and times, by the profile that steers them."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from steering_profiles.composition import Steering
from steering_server.generation.requests import GenerationRequest
from steering_server.observability.labels import BoundedValues, profile_label
from steering_server.observability.sequence import Ending

_MAX_PROFILES = 100
_LABELS = ("model_name", "profile")
# vLLM's buckets, in seconds.
_TO_FIRST_TOKEN = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
)
_BETWEEN_TOKENS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)


class SequenceMetrics:
    """The metrics of a model's sequences."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._model = model
        self._profile = BoundedValues(_MAX_PROFILES)
        self._by_profile: dict[str, ProfileMetrics] = {}

        def counter(name: str, meaning: str, *more: str) -> Counter:
            return Counter(name, meaning, (*_LABELS, *more), registry=registry)

        def histogram(name: str, meaning: str, buckets: Sequence[float] = _LATENCY) -> Histogram:
            return Histogram(name, meaning, _LABELS, buckets=buckets, registry=registry)

        self.prompt_tokens = counter("vllm:prompt_tokens", "Tokens of prompts, of sequences that began to run.")
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated.")
        self.ended = counter(
            "vllm:request_success", "Sequences that ended: stop, length, abort or error.", "finished_reason"
        )
        self.to_first_token = histogram(
            "vllm:time_to_first_token_seconds", "Time from the queue to the first token.", _TO_FIRST_TOKEN
        )
        self.between_tokens = histogram(
            "vllm:inter_token_latency_seconds", "Time between two tokens of a sequence.", _BETWEEN_TOKENS
        )
        self.queued = histogram("vllm:request_queue_time_seconds", "Time in the queue until a sequence first ran.")
        self.prefill = histogram(
            "vllm:request_prefill_time_seconds", "Time from a sequence's first step to its first token."
        )
        self.decode = histogram(
            "vllm:request_decode_time_seconds", "Time from the first to the last token of a sequence."
        )
        self.whole = histogram(
            "vllm:e2e_request_latency_seconds", "Time from the queue to the end of a sequence in the engine."
        )

    def watch(self, request: GenerationRequest) -> "SequenceCounts":
        """Begin to count the sequence of ``request``."""
        return SequenceCounts(self._of(request.steering), request)

    def _of(self, steering: Steering) -> "ProfileMetrics":
        profile = self._profile(profile_label(steering))
        if profile not in self._by_profile:
            self._by_profile[profile] = ProfileMetrics(self, self._model, profile)
        return self._by_profile[profile]


class ProfileMetrics:
    """The metrics of all sequences of one profile, with their labels looked up."""

    def __init__(self, metrics: SequenceMetrics, model: str, profile: str) -> None:
        labels = (model, profile)
        self.prompt_tokens = metrics.prompt_tokens.labels(*labels)
        self.generation_tokens = metrics.generation_tokens.labels(*labels)
        self.ended = {reason: metrics.ended.labels(*labels, reason) for reason in ("stop", "length", "abort", "error")}
        self.to_first_token = metrics.to_first_token.labels(*labels)
        self.between_tokens = metrics.between_tokens.labels(*labels)
        self.queued = metrics.queued.labels(*labels)
        self.prefill = metrics.prefill.labels(*labels)
        self.decode = metrics.decode.labels(*labels)
        self.whole = metrics.whole.labels(*labels)


class SequenceCounts:
    """Moves what one sequence's timeline has to the metrics, a part at a time."""

    def __init__(self, metrics: ProfileMetrics, request: GenerationRequest) -> None:
        self._metrics = metrics
        self._timeline = request.timeline
        self._prompt_tokens = len(request.prompt)
        self._has_started = False
        self._tokens = 0

    def read(self) -> None:
        """Count what is new."""
        timeline, metrics = self._timeline, self._metrics
        if timeline.queued_at is None or timeline.started_at is None:
            return
        if not self._has_started:
            self._has_started = True
            metrics.prompt_tokens.inc(self._prompt_tokens)
            metrics.queued.observe(timeline.started_at - timeline.queued_at)
        times = timeline.token_at
        end = len(times)
        for place in range(self._tokens, end):
            if place:
                metrics.between_tokens.observe(times[place] - times[place - 1])
            else:
                metrics.to_first_token.observe(times[0] - timeline.queued_at)
        metrics.generation_tokens.inc(end - self._tokens)
        self._tokens = end

    def end(self, ending: Ending, now: float) -> None:
        """Count what is left, and the end at ``now``."""
        self.read()
        timeline, metrics = self._timeline, self._metrics
        if timeline.queued_at is None:
            return  # it was refused
        metrics.ended[ending].inc()
        first, last = (timeline.token_at[0], timeline.token_at[-1]) if timeline.token_at else (now, now)
        metrics.whole.observe(last - timeline.queued_at)
        if timeline.token_at and timeline.started_at is not None:
            metrics.prefill.observe(first - timeline.started_at)
            metrics.decode.observe(last - first)
