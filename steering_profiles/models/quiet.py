"""Keep the libraries beneath from writing to the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from logging import ERROR, getLogger

from huggingface_hub.utils import logging as hub_logging
from transformers import modeling_gguf_pytorch_utils as gguf_reading
from transformers.utils import logging


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers, huggingface_hub and accelerate from writing bars and warnings to the terminal."""
    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    placing = getLogger("accelerate")
    placing_level = placing.level
    bars = logging.is_progress_bar_enabled()
    gguf_bar = gguf_reading.tqdm  # which follows no setting
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    placing.setLevel(ERROR)
    logging.disable_progress_bar()
    gguf_reading.tqdm = partial(gguf_bar, disable=True)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        placing.setLevel(placing_level)
        gguf_reading.tqdm = gguf_bar
        if bars:
            logging.enable_progress_bar()
