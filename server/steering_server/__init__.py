"""The inference-time steering server: engine, HTTP API and command line."""
