"""A server as its operators see it: metrics for Prometheus and traces for OpenTelemetry."""
