"""Requests in, tokens out. Knows nothing of HTTP."""
