"""Truncation of prompts, for requests that ask for it."""

from steering_server.api.schemas.requests import GenerationBody


def truncated(tokens: tuple[int, ...], body: GenerationBody, context: int) -> tuple[int, ...]:
    """Return the part of a prompt that ``body`` asks to keep; a ``context`` holds the prompt and its completion."""
    most = body.truncate_prompt_tokens
    if most is None:
        return tokens
    if most < 0:
        most = context - (1 if body.token_limit is None else body.token_limit)
    if not 0 < most < len(tokens):
        return tokens  # nothing to cut off, or no room for a prompt, which is refused later
    return tokens[:most] if body.truncation_side == "right" else tokens[-most:]
