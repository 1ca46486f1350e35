"""Measurements of one engine in random order, so that nothing but what is compared differs between two rows."""

import random
from collections.abc import Mapping

from rich.console import Console
from rich.progress import track

from benchmarks.contenders import Measure
from benchmarks.lineup import BATCHES
from benchmarks.machine import model_folder
from benchmarks.prompts import NEW_TOKENS, Prompts

Seconds = dict[str, dict[int, list[float]]]
"""Seconds of each round, by row and batch size."""


def seconds_in_turns(measures: Mapping[str, Measure], rounds: int, console: Console) -> Seconds:
    """Return the seconds of ``rounds`` rounds of each of ``measures`` at each batch size."""
    prompts, order = Prompts(model_folder()), random.Random(0)
    seconds: Seconds = {name: {batch: [] for batch in BATCHES} for name in measures}
    for batch in BATCHES:
        for measure in measures.values():
            measure(prompts.take(batch), 4)  # warm up
        for _ in track(range(rounds), f"batch {batch}", console=console):
            for name in order.sample(list(measures), len(measures)):
                seconds[name][batch].append(measures[name](prompts.take(batch), NEW_TOKENS))
    return seconds
