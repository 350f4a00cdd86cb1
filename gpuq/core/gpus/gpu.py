"""A GPU as it was read at one moment. An absent reading is None, never 0."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class GpuState(StrEnum):
    FREE = "free"
    LEASED = "leased"
    FOREIGN = "foreign"
    COOLING = "cooling"
    DIRTY = "dirty"
    DRAINED = "drained"
    QUARANTINED = "quarantined"
    LOST = "lost"


class Closeness(IntEnum):
    """How data gets from one GPU to another, the fastest way first (nvmlGpuTopologyLevel_t)."""

    NVLINK = 0
    BOARD = 1
    SWITCH = 2
    SWITCHES = 3
    HOST_BRIDGE = 4
    NODE = 5  # one NUMA node
    SYSTEM = 6
    UNKNOWN = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A compute process that the driver sees on a GPU. `job` is None for a foreign one; `unit` is the
    container or the unit of systemd that it runs in; `ignored` is what the settings say is nobody's
    work, such as a desktop."""

    pid: int
    user: str | None
    command: str | None
    memory_bytes: int | None
    unit: str | None = None
    job: int | None = None
    ignored: bool = False

    @property
    def words(self) -> str:
        """ "python 40121 carol"."""
        return f"{self.command or 'process'} {self.pid} {self.user or ''}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Why a GPU is given to nobody though it can be read: somebody drained it, or gpuq set it aside."""

    state: GpuState  # DRAINED or QUARANTINED
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One reading of one GPU, the same value for every backend.

    `index` is the position in PCI bus order, which is what CUDA calls the GPU under
    CUDA_DEVICE_ORDER=PCI_BUS_ID. `memory_used_bytes` leaves out what the driver keeps for itself
    (`memory_reserved_bytes`); it is None where a GPU has no memory of its own. `calm_samples` counts
    the readings in a row in which nobody outside gpuq used the GPU; None means that this GPU owes
    nobody any. An instance of MIG is a Gpu of its own, with the uuid of the card in `parent`.
    """

    index: int
    uuid: str
    model: str
    simulated: bool
    bus_id: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    utilization_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    processes: tuple[GpuProcess, ...] | None = ()  # None: the driver would not say
    baseline_bytes: int = 0  # what the idle GPU itself shows as used
    calm_samples: int | None = None
    fault: str | None = None  # why this GPU gave no reading
    is_lasting: bool = (
        False  # a fault or defect that no good reading ends: a reset or a reboot does
    )
    defect: str | None = None  # it can be read, and the driver says that its hardware is not well
    warnings: tuple[str, ...] = ()  # what somebody should see to, and that keeps no job away
    xids: tuple[int, ...] = ()  # errors that the driver told of since the last reading
    parent: str | None = None
    minor: int | None = None  # of its device file, which is not its index
    one_process_only: bool = False  # compute mode Exclusive_Process
    energy_j: float | None = None  # since its driver was loaded
    links: tuple[tuple[str, int], ...] = ()  # how far other GPUs are: (uuid, Closeness)
    recent_utilization_percent: int | None = (
        None  # the most of the last readings, once there are enough
    )
    locked_by: str | None = None  # another daemon of gpuq, in words
    bar: Bar | None = None
    cools_at_once: bool = False  # no memory is left on it when a job of ours has ended

    @property
    def memory_free_bytes(self) -> int | None:
        if self.memory_total_bytes is None or self.memory_used_bytes is None:
            return None
        taken = self.memory_used_bytes + (self.memory_reserved_bytes or 0)
        return max(self.memory_total_bytes - taken, 0)

    @property
    def memory_usage_percent(self) -> float | None:
        """0.0 where the total is 0, so that no reader divides by it."""
        if self.memory_total_bytes is None or self.memory_used_bytes is None:
            return None
        if self.memory_total_bytes == 0:
            return 0.0
        return round(100.0 * self.memory_used_bytes / self.memory_total_bytes, 1)

    @property
    def is_available(self) -> bool:
        """More than 1000 MB free: information for people, not what gpuq schedules by."""
        return (self.memory_free_bytes or 0) > 1000 * 2**20

    @property
    def ignored_bytes(self) -> int:
        """What is taken by what the settings call nobody's work, as far as it is told."""
        return sum(p.memory_bytes or 0 for p in self.processes or () if p.ignored)

    @property
    def foreign_processes(self) -> tuple[GpuProcess, ...]:
        return tuple(p for p in self.processes or () if p.job is None and not p.ignored)
