"""Silencing of libraries that write to the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger
from typing import Any

from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress progress bars and warnings of transformers, huggingface_hub and accelerate inside this context."""
    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    placing = getLogger("accelerate")
    placing_level = placing.level
    bars = logging.is_progress_bar_enabled()
    bar = tqdm.__init__  # the bars for GGUF and compressed-tensors have no setting
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    placing.setLevel(ERROR)
    logging.disable_progress_bar()

    def disabled(self: tqdm, *args: Any, **kwargs: Any) -> None:
        bar(self, *args, **kwargs | {"disable": True})

    tqdm.__init__ = disabled
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        placing.setLevel(placing_level)
        tqdm.__init__ = bar
        if bars:
            logging.enable_progress_bar()
