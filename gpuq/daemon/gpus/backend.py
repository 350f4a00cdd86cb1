"""What every kind of GPUs has to be able to do."""

from collections.abc import Sequence
from typing import Protocol

from gpuq.core.gpus.gpu import Gpu
from gpuq.errors import GpuqError

MAX_GPUS = 64

# A GPU that one of gpuq's jobs holds: its uuid, the job, a pid of the job, the bytes it declared.
Held = tuple[str, int, int, int | None]


class GpusUnavailable(GpuqError):
    """There is no GPU to be read at all; the text says why and what to do. `is_absent`: nor can there
    be any, since this machine has no driver."""

    def __init__(self, why: str, *, is_absent: bool = False) -> None:
        super().__init__(why)
        self.is_absent = is_absent


class Backend(Protocol):
    def sample(self, held: Sequence[Held], *, processes: bool = True) -> list[Gpu]:
        """A reading of every GPU. Without `processes` a list of them that is some seconds old will
        do. Raises GpusUnavailable; trouble with a single GPU is its fault."""

    def close(self) -> None: ...


# A GPU that the driver lists and will not open has no uuid to be remembered by.
_UNIDENTIFIED = "unidentified-"


def unidentified(number: int) -> str:
    return f"{_UNIDENTIFIED}{number}"


def is_identified(gpu: Gpu) -> bool:
    """Is its uuid one by which this GPU will be known again?"""
    return not gpu.uuid.startswith(_UNIDENTIFIED)
