"""Steering inside vLLM: a plugin for its own server. Nothing here is imported where vLLM is not installed."""
