"""A receiver of traces on a loopback port, which reads OTLP over HTTP as a collector does."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Value = str | int | float | bool | list["Value"]


@dataclass(frozen=True)
class ReceivedSpan:
    """One span, with ids in hexadecimal and times in nanoseconds."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, "Value"]
    failed: bool
    resource: dict[str, "Value"]


class Receiver:
    """All spans received so far."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.paths: list[str] = []
        self.spans: list[ReceivedSpan] = []

    def trace(self, trace: str, spans: int, seconds: float = 20) -> dict[str, list[ReceivedSpan]]:
        """Wait until the trace has that many spans; return them by name, in order of their start."""
        until = time.monotonic() + seconds
        while len(found := [span for span in self.spans if span.trace == trace]) < spans:
            assert time.monotonic() < until, f"{len(found)} of {spans} spans came: {[span.name for span in found]}"
            time.sleep(0.05)
        by_name: dict[str, list[ReceivedSpan]] = {}
        for span in sorted(found, key=lambda span: span.start):
            by_name.setdefault(span.name, []).append(span)
        return by_name


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive traces inside this context."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.paths.append(self.path)
            receiver.spans.extend(_spans(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _spans(body: bytes) -> Iterator[ReceivedSpan]:
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    resource=resource,
                )


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    if value.HasField("array_value"):
        return [_value(each) for each in value.array_value.values]
    held: Value = getattr(value, value.WhichOneof("value"))
    return held
