"""Asking the arms: this project's server, other servers with OpenAI's API, and functions."""
