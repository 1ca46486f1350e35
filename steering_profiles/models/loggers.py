"""Loggers of quantisation libraries, silenced but for errors.

What they report is nothing that a user of a model could act on: kernels for other hardware that do not load, at every
import, and that 8-bit products round their inputs, at every product. Imported before transformers, which imports them.
"""

import logging

for _name in ("bitsandbytes", "compressed_tensors", "torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
