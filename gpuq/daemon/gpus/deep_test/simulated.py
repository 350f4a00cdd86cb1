"""The test of a GPU that does not exist: the same steps in little, on the CPU. A scenario may say how
they go."""

import time
from collections.abc import Sequence

from gpuq.daemon.gpus.choice import parse_gpus
from gpuq.daemon.gpus.deep_test import GpuTrouble, Tell

SIDE = 48
MEMORY_BYTES = 4 * 2**20
PATTERNS = (b"\xaa", b"\x55")  # each bit is once 1 and once 0


def examine(spec_text: str, index: int, started_s: float, tell: Tell) -> None:
    """Raises GpuTrouble. There are no speeds but those of a scenario."""
    tell(by="simulated")
    fails, tflops, memory_gb_s = _scripted(spec_text, index, started_s)
    _multiply()
    tell(tflops=tflops)
    _remember()
    tell(memory_gb_s=memory_gb_s, memory_bytes=MEMORY_BYTES)
    if fails is not None:
        raise GpuTrouble(fails)


def _scripted(
    spec_text: str, index: int, started_s: float
) -> tuple[str | None, float | None, float | None]:
    """Why the test fails, if it does, and the speeds, where a scenario says so."""
    spec = parse_gpus(spec_text)
    if spec.scenario is None:
        return None, None, None
    from gpuq.daemon.gpus.simulated.scenario import test_failure, test_speeds
    from gpuq.daemon.gpus.simulated.scenario_file import read_scenario

    scenario = read_scenario(spec.scenario)
    elapsed_s = time.monotonic() - started_s
    return test_failure(scenario, index, elapsed_s), *test_speeds(scenario, index, elapsed_s)


def _multiply() -> None:
    """A product held against another way to the same numbers: (A·B)·x is A·(B·x)."""
    left = [[(row * 7 + column * 3) % 17 - 8 for column in range(SIDE)] for row in range(SIDE)]
    right = [[(row * 5 + column * 11) % 17 - 8 for column in range(SIDE)] for row in range(SIDE)]
    columns = list(zip(*right, strict=True))
    product = [[_dot(row, column) for column in columns] for row in left]
    probe = [index % 3 - 1 for index in range(SIDE)]
    through = [_dot(row, probe) for row in right]
    if [_dot(row, probe) for row in product] != [_dot(row, through) for row in left]:
        raise GpuTrouble("a matrix product came out wrong")


def _dot(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _remember() -> None:
    memory = bytearray(MEMORY_BYTES)
    for pattern in PATTERNS:
        memory[:] = pattern * MEMORY_BYTES
        if memory.count(pattern) != MEMORY_BYTES:
            raise GpuTrouble("what was written to its memory came back changed")
