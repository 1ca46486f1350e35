"""Loggers of quantisation libraries, set to show errors only.

They warn about kernels for other hardware at every import and about rounded inputs at every 8-bit product, which users
cannot change. This module is imported before transformers, which imports these libraries.
"""

import logging

for _name in ("bitsandbytes", "compressed_tensors", "torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
