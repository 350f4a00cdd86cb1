"""The thorough test of one GPU, in a process of its own: does it compute and remember right, how fast?

    python -m gpuq.daemon.gpus.deep_test cuda UUID
    python -m gpuq.daemon.gpus.deep_test simulated SPEC INDEX STARTED

It runs while nobody else has the GPU, takes nearly all of its memory, and leaves at the end of stdin:
at once, unless the driver keeps it. STARTED is when the daemon began (CLOCK_MONOTONIC, s). On stdout
stands a line of JSON for each step, and in the last one the verdict:

    {"by": "torch 2.13.0"}
    {"tflops": 51.3}                          10^12 operations of single precision a second
    {"memory_gb_s": 2410.0, "memory_bytes": 134217728000}      10^9 bytes a second, of a copy
    {"verdict": "good"}   or   {"verdict": "bad", "trouble": "…"}   or   {"verdict": "undecided", …}

Undecided is what says nothing of the GPU: no library to test with, or its memory given to others.
"""

from typing import Any, Protocol


class GpuTrouble(Exception):
    """The GPU did something wrong; the text says what, to be read after "its test failed: "."""


class Undecided(Exception):
    """The test could not be carried out; the text says why."""


class Tell(Protocol):
    """Passes a step on."""

    def __call__(self, **facts: Any) -> None: ...
