"""GPUs that do not exist, for trying gpuq out and for tests. Their load is what gpuq's jobs declare.

Nothing here is random, and nobody outside gpuq ever uses one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuq.core.gpus.gpu import Gpu, GpuProcess
from gpuq.daemon.gpus.backend import Held

BUSY_PERCENT = 90
IDLE_C, BUSY_C = 34, 68
IDLE_SHARE, BUSY_SHARE = 0.12, 0.85  # of the power limit


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedGpu:
    model: str
    memory_bytes: int


class SimulatedBackend:
    def __init__(self, gpus: Sequence[SimulatedGpu]) -> None:
        self._gpus = gpus
        self._temperatures = [IDLE_C + index % 4 for index in range(len(gpus))]
        self._samples = 0

    def sample(self, held: Sequence[Held], *, processes: bool = True) -> list[Gpu]:
        self._samples += 1
        return [
            self._read(index, [one for one in held if one[0] == simulated_uuid(index)])
            for index in range(len(self._gpus))
        ]

    def close(self) -> None:
        pass

    def _read(self, index: int, held: Sequence[Held]) -> Gpu:
        gpu = self._gpus[index]
        declared = sum(memory or 0 for _, _, _, memory in held)
        limit = power_limit_w(gpu)
        return Gpu(
            index=index,
            uuid=simulated_uuid(index),
            model=gpu.model,
            simulated=True,
            bus_id=f"00000000:{index + 1:02X}:00.0",
            memory_total_bytes=gpu.memory_bytes,
            memory_used_bytes=min(declared, gpu.memory_bytes),
            memory_reserved_bytes=0,
            utilization_percent=BUSY_PERCENT if held else 0,
            temperature_c=self._warm(index, bool(held)),
            power_w=self._power_w(index, bool(held), limit),
            power_limit_w=limit,
            processes=tuple(_process(*one) for one in held),
            cools_at_once=True,
        )

    def _warm(self, index: int, busy: bool) -> int:
        """Two degrees per reading towards where the load leads, as metal does."""
        target = (BUSY_C if busy else IDLE_C) + index % 4
        now = self._temperatures[index]
        now += max(-2, min(2, target - now))
        self._temperatures[index] = now
        return now

    def _power_w(self, index: int, busy: bool, limit_w: float) -> float:
        ripple = (self._samples * 7 + index * 3) % 11 / 200  # up to a twentieth of the limit
        return round(limit_w * ((BUSY_SHARE if busy else IDLE_SHARE) + ripple), 1)


def simulated_uuid(index: int) -> str:
    """Of a shape that every reader of uuids accepts, and of no device."""
    return f"GPU-51750000-0000-4000-8000-{index:012x}"


def power_limit_w(gpu: SimulatedGpu) -> float:
    return 700.0 if gpu.memory_bytes >= 64 * 2**30 else 350.0


def _process(uuid: str, job: int, pid: int, memory_bytes: int | None) -> GpuProcess:
    return GpuProcess(pid=pid, user=None, command=None, memory_bytes=memory_bytes, job=job)
