"""Traces of requests for OpenTelemetry: the request, and of each of its sequences the queue, prefill and decode.

Attributes have the names of OpenTelemetry's conventions for HTTP and generative AI, and those of vLLM. The SDK is an
extra, so this module is imported only where an endpoint is configured.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.context import Context, get_current
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from steering_profiles import __version__
from steering_server.generation.requests import GenerationRequest
from steering_server.generation.timeline import Timeline
from steering_server.observability.labels import profile_label
from steering_server.observability.sequence import Ending

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans and sends them to an OTLP endpoint, from a thread of its own.

    Sampling, headers, the service's name and the like are read from OpenTelemetry's own variables.
    """

    def __init__(self, endpoint: str) -> None:
        """Send spans to ``endpoint``, the whole URL that takes traces."""
        self.endpoint = endpoint
        own = Resource({SERVICE_NAME: "steering-server", SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("steering_server", __version__)

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator["RequestSpan"]:
        """Trace an HTTP request inside this context, as part of the trace that its ``traceparent`` names, if any."""
        with self._tracer.start_as_current_span(
            method,
            _PROPAGATOR.extract({name: headers[name] for name in ("traceparent", "tracestate") if name in headers}),
            SpanKind.SERVER,
            {"http.request.method": method, "url.path": path},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield RequestSpan(span, method)

    def watch(self, request: GenerationRequest, model: str) -> "SequenceSpans":
        """Begin to trace the sequence of ``request``, as part of the current span."""
        return SequenceSpans(self._tracer, request, model, get_current())

    def close(self) -> None:
        """Send what is left, and stop. Takes up to ten seconds where the endpoint does not answer."""
        self._provider.shutdown()


class RequestSpan:
    """The span of an HTTP request."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method

    def answered(self, handler: str, status: int, request_id: str, error: str | None) -> None:
        """Describe the answer: the route, the status, and the code of an error."""
        self._span.update_name(f"{self._method} {handler}")
        attributes: dict[str, AttributeValue] = {
            "http.route": handler,
            "http.response.status_code": status,
            "gen_ai.request.id": request_id,
        }
        if error is not None:
            attributes["error.type"] = error
        self._span.set_attributes(attributes)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)


class SequenceSpans:
    """The spans of one sequence. They are made when it has ended, from the times that the engine has noted."""

    def __init__(self, tracer: Tracer, request: GenerationRequest, model: str, parent: Context) -> None:
        self._tracer = tracer
        self._request = request
        self._model = model
        self._parent = parent

    def read(self) -> None:
        """Do nothing, since the timeline keeps everything until the end."""

    def end(self, ending: Ending, now: float) -> None:
        """Make the spans of a sequence that ended at ``now``."""
        phases = _phases(self._request.timeline, now)
        if not phases:
            return  # it was refused
        began, ended = phases[0].start, phases[-1].end
        offset = time.time_ns() - round(time.monotonic() * 1e9)  # from the timeline's clock to the wall clock

        def wall(at: float) -> int:
            return round(at * 1e9) + offset

        attributes = _request_attributes(self._request, self._model) | _answer_attributes(self._request, ending, phases)
        whole = self._tracer.start_span("llm_request", self._parent, attributes=attributes, start_time=wall(began))
        inside = set_span_in_context(whole, self._parent)
        for phase in phases:
            self._tracer.start_span(phase.name, inside, start_time=wall(phase.start)).end(wall(phase.end))
        if ending == "error":
            whole.set_status(StatusCode.ERROR)
        whole.end(wall(ended))


@dataclass(frozen=True)
class _Phase:
    name: str
    attribute: str
    start: float
    end: float


def _phases(timeline: Timeline, now: float) -> list[_Phase]:
    """Return the phases that a sequence has been in; the last one ends ``now``, or with the last token."""
    starts = [timeline.queued_at, timeline.started_at, *timeline.token_at[:1]]
    times = [start for start in starts if start is not None]
    ends = [*times[1:], timeline.token_at[-1] if timeline.token_at else now]
    names = (("queue", "time_in_queue"), ("prefill", "time_in_model_prefill"), ("decode", "time_in_model_decode"))
    return [
        _Phase(name, f"gen_ai.latency.{attribute}", start, end)
        for (name, attribute), start, end in zip(names, times, ends, strict=False)
    ]


def _request_attributes(request: GenerationRequest, model: str) -> dict[str, AttributeValue]:
    sampling, prompt = request.sampling, len(request.prompt)
    return {
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.prompt_tokens": prompt,
        "steering.profile": profile_label(request.steering),
        "steering.profiles": [one.profile.name for one in request.steering],
        "steering.strengths": [float(one.strength) for one in request.steering],
        "steering.content_hashes": [one.key[0] for one in request.steering],
    }


def _answer_attributes(
    request: GenerationRequest, ending: Ending, phases: Sequence[_Phase]
) -> dict[str, AttributeValue]:
    tokens, began = request.timeline.token_at, phases[0].start
    attributes: dict[str, AttributeValue] = {
        "gen_ai.usage.output_tokens": len(tokens),
        "gen_ai.usage.completion_tokens": len(tokens),
        "gen_ai.response.finish_reasons": [ending],
        "gen_ai.latency.e2e": phases[-1].end - began,
    }
    if tokens:
        attributes["gen_ai.latency.time_to_first_token"] = tokens[0] - began
    return attributes | {phase.attribute: phase.end - phase.start for phase in phases}
