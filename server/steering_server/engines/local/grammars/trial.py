"""A process that compiles grammars to find out whether that can be done within the limits.

A compilation cannot be interrupted, and some short grammars would take hours or all memory. So each is first compiled
here, where a limit ends the process: the line read from standard input is a grammar as a JSON string, and the line
written to standard output what is wrong with it, as a JSON string, empty if nothing is.
"""

import json
import resource
import signal
import sys

from llguidance import LLMatcher, LLTokenizer

from steering_server.engines.local.grammars.limits import CPU_SECONDS, MEMORY, parser_limits


def main() -> None:
    """Try grammars until standard input ends."""
    # With their default actions, SIGPROF ends the process when its time is over, and Ctrl-C is left to the server.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer, limits = LLTokenizer("byte"), parser_limits()
    for line in sys.stdin:
        grammar = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(matcher.get_error()), flush=True)


if __name__ == "__main__":
    main()
