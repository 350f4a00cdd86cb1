"""The test of a GPU by torch: a matrix product and a pattern in memory. Only a child that tests imports
this; the daemon never has a context on a GPU.

All numbers are whole and small, so that each sum is exact in single precision whatever the order and
the method of the library: the result has to be right to the last bit, each time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gpuq.daemon.gpus.deep_test import GpuTrouble, Tell, Undecided

NAME = f"torch {torch.__version__}"
LARGEST = 8  # of the numbers that are multiplied; 8 * 8 * 4096 < 2**24, what a float counts to
COPIES = 20
# A check needs a second copy of a chunk and some more; others of the machine may start meanwhile.
SHARE_OF_FREE = 0.9

_IN_USE = "its memory is in use by others"
_EXCLUSIVE = "it is in use by others, and in a compute mode that lets nobody in beside them"
_UNLOADED = "a library that torch needs could not be loaded"
# What stands in an error that says nothing of the GPU's health. A library of CUDA that finds no memory
# to begin with says no more than that it could not begin.
_UNDECIDED = {
    "out of memory": _IN_USE,
    "CUBLAS_STATUS_ALLOC_FAILED": _IN_USE,
    "CUBLAS_STATUS_NOT_INITIALIZED": "the library that multiplies matrices could not begin",
    "busy or unavailable": _EXCLUSIVE,
    "no kernel image is available": "this torch was not built for it",
    "cannot open shared object file": _UNLOADED,
    "Could not load library": _UNLOADED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the test is. Without `memory_bytes` it takes what is free."""

    reference: int = 512
    side: int = 4096
    compute_s: float = 1.5
    chunk_bytes: int = 256 * 2**20
    memory_bytes: int | None = None


def can_use_gpu() -> bool:
    """A torch without CUDA cannot, nor one that was not built for GPUs as old as this one."""
    try:
        return torch.cuda.is_available() and bool((torch.zeros(2, device="cuda") + 1).all())
    except RuntimeError:
        return False


def examine(tell: Tell, device: str = "cuda", sizes: Sizes | None = None) -> None:
    """Raises GpuTrouble or Undecided."""
    sizes = sizes or Sizes()
    try:
        compare_with_cpu(device, sizes.reference)
        tell(tflops=_four_digits(compute(device, sizes.side, sizes.compute_s)))
        room_bytes = _room() if sizes.memory_bytes is None else sizes.memory_bytes
        tested = fill_memory(device, room_bytes, sizes.chunk_bytes)
        speed = copy_speed(device, sizes.chunk_bytes)
        tell(memory_gb_s=_four_digits(speed), memory_bytes=tested)
    except torch.OutOfMemoryError as error:
        raise Undecided(_IN_USE) from error
    except RuntimeError as error:  # of the driver: an error of the memory, a lost GPU
        raise _judge(str(error)) from error


def _judge(words: str) -> GpuTrouble | Undecided:
    first_line = words.split("\n")[0]
    for sign, why in _UNDECIDED.items():
        if sign in words:
            return Undecided(f"{why} ({first_line})")
    return GpuTrouble(first_line)


def compare_with_cpu(device: str, side: int) -> None:
    left, right = _matrix(side, 1), _matrix(side, 2)
    wanted = left.double() @ right.double()
    found = (left.to(device) @ right.to(device)).double().cpu()
    if wrong := int((wanted != found).sum()):
        raise GpuTrouble(f"{wrong} of {side * side} sums of a matrix product came out wrong")


def compute(device: str, side: int, for_s: float) -> float:
    """The same product again and again, each time to the same last bit; returns TFLOP/s."""
    left, right = _matrix(side, 3).to(device), _matrix(side, 4).to(device)
    first = left @ right
    _wait(device)
    times: list[float] = []
    until = time.monotonic() + for_s
    while not times or time.monotonic() < until:
        took_s, again = _timed(device, lambda: left @ right)
        times.append(took_s)
        if not torch.equal(first, again):
            raise GpuTrouble("a matrix product came out otherwise when it was computed again")
    return 2.0 * side**3 / min(times) / 1e12


def fill_memory(device: str, room_bytes: int, chunk_bytes: int) -> int:
    """Each word gets a number that no other one has, and then that number's opposite bits; returns how
    many bytes were tested."""
    words = chunk_bytes // 8
    chunks: list[torch.Tensor] = []
    while (len(chunks) + 1) * chunk_bytes <= room_bytes:
        try:
            chunks.append(torch.empty(words, dtype=torch.int64, device=device))
        except torch.OutOfMemoryError:
            break  # somebody has taken some of it meanwhile
    if len(chunks) < 2:
        raise Undecided(_IN_USE)
    chunks.pop()  # for the numbers to compare with
    for number, chunk in enumerate(chunks):
        torch.arange(number * words, (number + 1) * words, out=chunk)
    for is_opposite in (False, True):
        for number, chunk in enumerate(chunks):
            _check_chunk(chunk, number * words, is_opposite=is_opposite)
            chunk.bitwise_not_()
    return len(chunks) * chunk_bytes


def _check_chunk(chunk: torch.Tensor, first: int, *, is_opposite: bool) -> None:
    wanted = torch.arange(first, first + chunk.numel(), device=chunk.device)
    if is_opposite:
        wanted.bitwise_not_()
    if not torch.equal(chunk, wanted):
        wrong = int((chunk != wanted).sum())
        raise GpuTrouble(f"{wrong} words of its memory came back changed")


def copy_speed(device: str, size: int) -> float:
    """10^9 bytes/s, read and written, of a copy within its memory."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [_timed(device, lambda: target.copy_(source))[0] for _ in range(COPIES)]
    return 2.0 * size / min(times) / 1e9


def _four_digits(number: float) -> float:
    return float(f"{number:.4g}")


def _matrix(side: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-LARGEST, LARGEST + 1, (side, side), generator=generator).float()


def _timed(device: str, deed: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = deed()
    _wait(device)
    return time.perf_counter() - began, made


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _room() -> int:
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    return int(free * SHARE_OF_FREE)
