"""What the daemon knows of its GPUs: the last reading, and what only several of them can tell."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from gpuq.core.model import Gpu, GpuState, Lease, LeaseState, Policy
from gpuq.core.placement import assess, count_calm, is_busy_outside
from gpuq.daemon.gpus.backend import is_identified

# Calm readings count only so far apart, however often somebody asks for one: three of them are to
# span some seconds, in which a job that loads its data shows itself.
CALM_APART_S = 0.9
# The driver's utilisation covers up to a second that has passed (nvmlUtilization_t): so long after
# a job of ours it is still that job's, and would be taken for somebody else's.
UTILIZATION_WINDOW_S = 1.0
# A desktop takes so much of an idle GPU. More than that on a new one is somebody's, though no
# process can be seen, as from within a container.
MAX_BASELINE_BYTES = 2**30
# A change of memory that is worth a new decision.
ROOM_STEP_BYTES = 64 * 2**20


class GpuWatch:
    """`accept` takes each reading; `gpus` is the last one, in bus order, None before the first.

    `known` are the GPUs that this machine has shown before, with the baselines learned then.
    """

    def __init__(self, policy: Policy, known: Iterable[Gpu] = ()) -> None:
        self.policy = policy
        self.gpus: tuple[Gpu, ...] | None = None
        self.read_at: float | None = None  # the clock of `at`
        self._known: set[str] = set()
        self._baselines: dict[str, int] = {}
        self._counted_at: dict[str, float] = {}  # when a calm reading last counted, or none was
        self._ours_until: dict[str, float] = {}  # utilisation before this is our own jobs'
        self._verdicts: dict[str, _Verdict] = {}
        self._sizes: dict[str, _Sizes] = {}  # as they were when accept last said True
        for gpu in known:
            self._remember(gpu)
            if gpu.baseline_bytes:
                self._baselines[gpu.uuid] = gpu.baseline_bytes

    @property
    def is_whole(self) -> bool:
        """Every GPU that was ever seen is there and well: only then are CUDA's ordinals sure."""
        if self.gpus is None or any(gpu.fault for gpu in self.gpus):
            return False
        return self._known <= {gpu.uuid for gpu in self.gpus}

    def accept(
        self,
        raw: list[Gpu],
        leases: Sequence[Lease],
        owner_of: Callable[[int], int | None],
        at: float,
    ) -> bool:
        """Take a reading of `at` (s, monotonic). True where a decision or a reason may change.

        `owner_of` gives the job that a process belongs to, None for a foreign one.
        """
        before = {gpu.uuid: gpu for gpu in self.gpus or () if gpu.fault is None}
        gpus = []
        for gpu in sorted(raw, key=lambda gpu: gpu.index):
            self._remember(gpu)
            own = [lease for lease in leases if lease.gpu == gpu.uuid]
            if gpu.fault is None:
                gpu = _with_owners(gpu, owner_of)
                gpu = self._without_echo(gpu, own, at)
                gpu = self._with_baseline(gpu, own)
                gpu = self._with_calm(before.get(gpu.uuid), gpu, own, at)
            gpus.append(gpu)
        is_first = self.gpus is None
        self.gpus, self.read_at = tuple(gpus), at
        has_changed = self._has_changed(self.gpus, leases)
        # Whether a cooling GPU is cool depends on the reading alone, and on each new one.
        is_cooling = any(lease.state is LeaseState.COOLING for lease in leases)
        return is_first or is_cooling or has_changed

    def _remember(self, gpu: Gpu) -> None:
        """Simulated GPUs come and go with a setting, and have no ordinals that could shift."""
        if not gpu.simulated and is_identified(gpu):
            self._known.add(gpu.uuid)

    def _without_echo(self, gpu: Gpu, leases: Sequence[Lease], at: float) -> Gpu:
        if gpu.simulated:
            return gpu
        if any(lease.state is LeaseState.ACTIVE for lease in leases):
            self._ours_until[gpu.uuid] = inf
            return gpu
        until = min(self._ours_until.get(gpu.uuid, at), at + UTILIZATION_WINDOW_S)
        self._ours_until[gpu.uuid] = until
        return replace(gpu, utilization_percent=None) if at < until else gpu

    def _with_baseline(self, gpu: Gpu, leases: Sequence[Lease]) -> Gpu:
        """The least that the GPU showed as used while nobody computed on it."""
        baseline = self._baselines.get(gpu.uuid, MAX_BASELINE_BYTES)
        if gpu.memory_used_bytes is not None and not gpu.processes and not leases:
            baseline = self._baselines[gpu.uuid] = min(baseline, gpu.memory_used_bytes)
        return replace(gpu, baseline_bytes=self._baselines.get(gpu.uuid, 0))

    def _with_calm(self, before: Gpu | None, gpu: Gpu, leases: Sequence[Lease], at: float) -> Gpu:
        calm = count_calm(before, gpu, leases, self.policy)
        owed = before.calm_samples if before is not None else None
        too_soon = at - self._counted_at.get(gpu.uuid, -inf) < CALM_APART_S
        if owed is not None and calm != 0 and too_soon:
            return replace(gpu, calm_samples=owed)
        self._counted_at[gpu.uuid] = at
        return replace(gpu, calm_samples=calm)

    def _has_changed(self, gpus: Sequence[Gpu], leases: Sequence[Lease]) -> bool:
        verdicts, sizes = {}, {}
        for gpu in gpus:
            own = [lease for lease in leases if lease.gpu == gpu.uuid]
            verdicts[gpu.uuid] = _judge(gpu, own, self.policy)
            sizes[gpu.uuid] = _measure(gpu)
        changed = verdicts != self._verdicts or any(
            _has_moved(self._sizes[uuid], size) for uuid, size in sizes.items()
        )
        self._verdicts = verdicts
        if changed:  # only then, or memory could creep away in steps too small to tell
            self._sizes = sizes
        return changed


def _with_owners(gpu: Gpu, owner_of: Callable[[int], int | None]) -> Gpu:
    if not gpu.processes:
        return gpu
    return replace(
        gpu,
        processes=tuple(
            process if process.job is not None else replace(process, job=owner_of(process.pid))
            for process in gpu.processes
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """All of a GPU that a decision or a reason depends on, but for sizes."""

    index: int
    fault: str | None
    state: tuple[GpuState, str | None]
    busy: str | None
    calm: int | None
    processes: frozenset[tuple[int, int | None]] | None  # pid, job


def _judge(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> _Verdict:
    processes = gpu.processes
    return _Verdict(
        index=gpu.index,
        fault=gpu.fault,
        state=assess(gpu, leases, policy),
        busy=is_busy_outside(gpu, leases, policy),
        calm=gpu.calm_samples,
        processes=None if processes is None else frozenset((p.pid, p.job) for p in processes),
    )


# Total, used, and what of it is measured as our jobs'.
_Sizes = tuple[int | None, int | None, int]


def _measure(gpu: Gpu) -> _Sizes:
    ours = sum(p.memory_bytes or 0 for p in gpu.processes or () if p.job is not None)
    return gpu.memory_total_bytes, gpu.memory_used_bytes, ours


def _has_moved(before: _Sizes, now: _Sizes) -> bool:
    return any(
        one != other and (one is None or other is None or abs(one - other) > ROOM_STEP_BYTES)
        for one, other in zip(before, now, strict=True)
    )
