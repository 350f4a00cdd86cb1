"""Who computes on a GPU, by name: the driver's records beside what /proc says of each process."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gpuq.core.gpus.gpu import GpuProcess
from gpuq.daemon.gpus.holders import UserNames, command_of, sees_pids_of_the_driver, unit_of
from gpuq.daemon.gpus.nvml.records import compute_processes
from gpuq.daemon.linux import processes

# It holds a GPU for the processes that share it through it, and computes nothing itself.
MPS_SERVER = "nvidia-cuda-mps-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    process: GpuProcess
    start: int  # ticks after boot: the same pid may be somebody else a moment later


class Occupants:
    """`are_visible` is False where the driver's pids mean nothing here, as in a container."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._names = UserNames()
        self.are_visible = sees_pids_of_the_driver(proc)

    def on(self, handle: Any, total_bytes: int | None) -> tuple[Occupant, ...] | None:
        """None where it cannot be known."""
        if not self.are_visible:
            return None
        records = compute_processes(handle, total_bytes, self._is_alive)
        if records is None:
            return None
        described = (self._describe(*record) for record in records.items())
        return tuple(occupant for occupant in described if occupant is not None)

    def remaining(self, occupants: Iterable[Occupant]) -> tuple[GpuProcess, ...]:
        """Those that have not left since they were listed."""
        return tuple(
            one.process
            for one in occupants
            if processes.identity(one.process.pid, self._proc) == (one.process.pid, one.start)
        )

    def _is_alive(self, pid: int) -> bool:
        return processes.identity(pid, self._proc) is not None

    def _describe(self, pid: int, memory_bytes: int | None) -> Occupant | None:
        identity = processes.identity(pid, self._proc)
        if identity is None:
            return None
        command = command_of(pid, self._proc)
        process = GpuProcess(
            pid=pid,
            user=self._names.owner_of(pid, self._proc),
            command=command,
            memory_bytes=memory_bytes,
            unit=unit_of(pid, self._proc),
            ignored=command == MPS_SERVER,
        )
        return Occupant(process=process, start=identity[1])
