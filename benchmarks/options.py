"""Options that benchmarks have in common."""

import argparse


def number_of_rounds(text: str) -> int:
    """Read the number of rounds, of which there must be one.

    Raises:
        argparse.ArgumentTypeError: it is no whole number from 1 on.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; a whole number from 1 on is needed")
    return int(text)
