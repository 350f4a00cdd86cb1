"""The one door to NVML, NVIDIA's library. Only the probe process may go through: a call can hang.

Trouble with a single GPU becomes the `fault` of its reading, in words a person understands, and the
others go on. Where there is nothing to be read at all it is GpusUnavailable. No handle, error or
constant of NVML leaves this package.

`reading.py` puts a reading together. `cards.py` knows which GPUs there are and what they are divided
into, `memory.py` how full they are, `records.py` and `occupants.py` who computes on them, `health.py`
how well they are, `events.py` what has befallen them, `topology.py` how far they are from each other.
`errors.py` has the words, and `measure.py` tells what each call costs.
"""

from gpuq.daemon.gpus.nvml.reading import NvmlBackend

__all__ = ["NvmlBackend"]
