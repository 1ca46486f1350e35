"""Limits on grammars. They hold for the process that tries a grammar and for the one that uses it."""

from llguidance import LLParserLimits

CPU_SECONDS = 0.5
"""Maximum computing time of one compilation."""
MEMORY = 2**29
"""Maximum address space of the process that tries grammars, in bytes."""


def parser_limits() -> LLParserLimits:
    """Return the limits on the work and the memory of one grammar, to compile it and at each token."""
    return LLParserLimits(
        initial_lexer_fuel=300_000,
        max_grammar_size=100_000,
        max_lexer_states=10_000,  # 1 to 2 kB each, for every sequence
        verbose_errors=False,  # errors would contain the whole grammar
    )
