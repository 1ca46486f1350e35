"""Accelerators by their data sheets, and a machine by what was measured on it."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU, and the link between those of one machine."""

    name: str
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes per second."""
    products: float
    """Multiplications with addition per second in bfloat16, dense: half of the FLOP/s of data sheets."""
    link: float
    """Bytes per second that one GPU sends to the others of its machine."""


H100 = Gpu("H100 SXM", 80e9, 3.35e12, 989e12 / 2, 450e9)
H200 = Gpu("H200", 141e9, 4.8e12, 989e12 / 2, 450e9)
B200 = Gpu("B200", 180e9, 7.7e12, 2250e12 / 2, 900e9)
"""NVIDIA's data sheets; of the two directions of NVLink one is counted."""

BANDWIDTH_SHARE = 0.75
"""Share of a GPU's bandwidth that decoding reaches. Assumed: no GPU was at hand."""
PRODUCTS_SHARE = 0.5
"""Share of a GPU's products that prefill reaches. Assumed."""
COLLECTIVE_SECONDS = 12e-6
"""Seconds that a sum over the GPUs of a machine takes besides the transfer. Assumed."""
STEP_SECONDS = 1.5e-3
"""Seconds of a step besides the model: scheduling, sampling, rows of the tables. Assumed."""
KERNEL_SECONDS = 2e-6
"""Seconds of a kernel in a CUDA graph that does next to nothing. Assumed."""
HOP_SECONDS = 30e-6
"""Seconds to hand activations to the next stage of a pipeline in another machine, besides the transfer. Assumed."""
NETWORK = 50e9
"""Bytes per second between machines: 400 Gbit/s."""


@dataclass(frozen=True)
class Cpu:
    """A machine without GPU, as measured apart from any model: see calibration."""

    bandwidth: float
    """Bytes per second that all cores together read from memory."""
    products: Mapping[int, float]
    """Multiplications with addition per second in float32, by the number of rows that a matrix is multiplied with."""
    operator_seconds: float
    """Seconds of an operator on so little data that it does nothing but start."""

    def product_seconds(self, rows: int, weights: float) -> float:
        """Return the seconds in which ``rows`` rows are multiplied with matrices of so many weights together.

        Between the measured numbers of rows the seconds per weight are interpolated.
        """
        measured = sorted(self.products)
        rows = max(rows, measured[0])
        seconds = [count / self.products[count] for count in measured]
        if rows >= measured[-1]:
            return weights * rows / self.products[measured[-1]]
        above = bisect_left(measured, rows)
        if measured[above] == rows:
            return weights * seconds[above]
        low, high = measured[above - 1], measured[above]
        share = (rows - low) / (high - low)
        return weights * (seconds[above - 1] + share * (seconds[above] - seconds[above - 1]))
