"""What the daemon knows of its GPUs: the last reading, and what only several of them can tell."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from gpuq.core.gpus.condition import assess, count_calm, is_busy_outside
from gpuq.core.gpus.gpu import Gpu, GpuProcess, GpuState
from gpuq.core.model import Lease, LeaseState
from gpuq.core.policy import Policy
from gpuq.daemon.gpus.backend import is_identified

# A reading that comes so much too early still counts as the next one.
EARLY_S = 0.1
# The driver's utilisation covers up to a second that has passed (nvmlUtilization_t): so long after
# a job of ours it is still that job's, and would be taken for somebody else's.
UTILIZATION_WINDOW_S = 1.0
# A desktop takes so much of an idle GPU. More than that on a new one is somebody's, though no
# process can be seen, as from within a container.
MAX_BASELINE_BYTES = 2**30
# A change of memory that is worth a new decision.
ROOM_STEP_BYTES = 64 * 2**20
BUSY_STEP_PERCENT = 10


class GpuWatch:
    """`accept` takes each reading; `gpus` is the last one, in bus order, None before the first.

    `policy` gives the settings of the moment, which each reading is judged by. `known` are the GPUs
    that this machine has shown before, with the baselines learned then.
    `locked_by` says of a real GPU that is not leased who else has locked it. `indices` are the GPUs
    that are ours to know of; how CUDA counts them depends on the others too.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        known: Iterable[Gpu] = (),
        locked_by: Callable[[str], str | None] = lambda uuid: None,
        indices: Collection[int] | None = None,
    ) -> None:
        self.busy_limits: frozenset[int] = frozenset()  # --max-util of jobs that wait, percent
        self.room_counts = False  # a sharing job waits: some room more may be what it lacks
        self._policy = policy
        self._locked_by = locked_by
        self._indices = indices
        self._present: frozenset[str] | None = None  # and well; None: CUDA's ordinals are not sure
        self.gpus: tuple[Gpu, ...] | None = None
        self.read_at: float | None = None  # the clock of `at`
        self._known: set[str] = set()
        self._baselines: dict[str, int] = {}
        self._counted_at: dict[str, float] = {}  # when a calm reading last counted, or none was
        self._ours_until: dict[str, float] = {}  # utilisation before this is our own jobs'
        self._recent: dict[str, deque[_Busy]] = {}
        self._verdicts: dict[str, _Verdict] = {}
        self._sizes: dict[str, _Sizes] = {}  # as they were when accept last said True
        for gpu in known:
            self._remember(gpu)
            if gpu.baseline_bytes:
                self._baselines[gpu.uuid] = gpu.baseline_bytes

    @property
    def is_whole(self) -> bool:
        """Every GPU that was ever seen is there and well: only then are CUDA's ordinals sure."""
        return self._present is not None and self._known <= self._present

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
        self._take_census(raw)
        for gpu in sorted(raw, key=lambda gpu: gpu.index):
            if self._indices is not None and gpu.index not in self._indices:
                continue
            own = [lease for lease in leases if lease.gpu == gpu.uuid]
            if gpu.fault is None:
                gpu = _with_owners(gpu, owner_of, self._policy())
                gpu = self._with_lock(gpu, own)
                gpu = self._with_recent(gpu, at)
                gpu = self._without_echo(gpu, own, at)
                gpu = self._with_baseline(gpu, own)
                gpu = self._with_calm(before.get(gpu.uuid), gpu, own, at)
            else:
                self._recent.pop(gpu.uuid, None)
            gpus.append(gpu)
        is_first = self.gpus is None
        self.gpus, self.read_at = tuple(gpus), at
        has_changed = self._has_changed(self.gpus, leases)
        # Whether a cooling GPU is cool depends on the reading alone, and on each new one.
        is_cooling = any(lease.state is LeaseState.COOLING for lease in leases)
        return is_first or is_cooling or has_changed

    def _take_census(self, raw: Sequence[Gpu]) -> None:
        for gpu in raw:
            self._remember(gpu)
        # Nobody says how CUDA counts cards beside one that MIG divides.
        is_sure = not any(gpu.fault or gpu.parent for gpu in raw)
        self._present = frozenset(gpu.uuid for gpu in raw) if is_sure else None

    def veto(self, locked: Mapping[str, str]) -> None:
        """Somebody has locked these GPUs since the last reading; the next one tells whether it is
        still so, and that is news."""
        gpus = self.gpus or ()
        self.gpus = tuple(
            replace(gpu, locked_by=locked.get(gpu.uuid, gpu.locked_by)) for gpu in gpus
        )
        self._verdicts = {}

    def _with_lock(self, gpu: Gpu, leases: Sequence[Lease]) -> Gpu:
        if gpu.simulated or leases:
            return gpu
        return replace(gpu, locked_by=self._locked_by(gpu.uuid))

    def _remember(self, gpu: Gpu) -> None:
        """Simulated GPUs come and go with a setting, and have no ordinals that could shift."""
        if not gpu.simulated and is_identified(gpu):
            self._known.add(gpu.uuid)

    def _with_recent(self, gpu: Gpu, at: float) -> Gpu:
        """With the most that anybody computed in the last few readings, so that a pause between two
        batches does not pass for idleness. A peak between two of them counts for the first."""
        policy, percent = self._policy(), gpu.utilization_percent
        recent = self._recent.setdefault(gpu.uuid, deque())
        if not recent or at - recent[-1].at >= _apart_s(policy):
            recent.append(_Busy(at, percent))
        else:
            last = recent.pop()
            recent.append(_Busy(last.at, _most([last.percent, percent])))
        while len(recent) > policy.calm_samples:
            recent.popleft()
        is_enough = len(recent) == policy.calm_samples
        most = _most([busy.percent for busy in recent]) if is_enough else None
        return replace(gpu, recent_utilization_percent=most)

    def _without_echo(self, gpu: Gpu, leases: Sequence[Lease], at: float) -> Gpu:
        if gpu.simulated:
            return gpu
        if any(lease.is_active for lease in leases):
            self._ours_until[gpu.uuid] = inf
            return gpu
        until = min(self._ours_until.get(gpu.uuid, at), at + UTILIZATION_WINDOW_S)
        self._ours_until[gpu.uuid] = until
        return replace(gpu, utilization_percent=None) if at < until else gpu

    def _with_baseline(self, gpu: Gpu, leases: Sequence[Lease]) -> Gpu:
        """The least that the GPU showed as used while nobody computed on it; what is ignored counts
        for itself."""
        baseline = self._baselines.get(gpu.uuid, MAX_BASELINE_BYTES)
        is_idle = all(process.ignored for process in gpu.processes or ()) and not leases
        if gpu.memory_used_bytes is not None and is_idle:
            own = max(gpu.memory_used_bytes - gpu.ignored_bytes, 0)
            baseline = self._baselines[gpu.uuid] = min(baseline, own)
        return replace(gpu, baseline_bytes=self._baselines.get(gpu.uuid, 0))

    def _with_calm(self, before: Gpu | None, gpu: Gpu, leases: Sequence[Lease], at: float) -> Gpu:
        calm = count_calm(before, gpu, leases, self._policy())
        owed = before.calm_samples if before is not None else None
        too_soon = at - self._counted_at.get(gpu.uuid, -inf) < _apart_s(self._policy())
        if owed is not None and calm != 0 and too_soon:
            return replace(gpu, calm_samples=owed)
        self._counted_at[gpu.uuid] = at
        return replace(gpu, calm_samples=calm)

    def _has_changed(self, gpus: Sequence[Gpu], leases: Sequence[Lease]) -> bool:
        verdicts, sizes = {}, {}
        for gpu in gpus:
            own = [lease for lease in leases if lease.gpu == gpu.uuid]
            verdicts[gpu.uuid] = _judge(gpu, own, self._policy(), self.busy_limits)
            sizes[gpu.uuid] = _measure(gpu)
        step = ROOM_STEP_BYTES // 64 if self.room_counts else ROOM_STEP_BYTES
        changed = verdicts != self._verdicts or any(
            _has_moved(self._sizes[uuid], size, step) for uuid, size in sizes.items()
        )
        self._verdicts = verdicts
        if changed:  # only then, or memory could creep away in steps too small to tell
            self._sizes = sizes
        return changed


def _apart_s(policy: Policy) -> float:
    """Readings count only so far apart, however often somebody asks for one: together they are to
    cover the time in which a job that loads its data shows itself, each the time before it."""
    if policy.calm_samples == 1:
        return 0.0
    apart_s = policy.calm_s / policy.calm_samples
    return apart_s - min(EARLY_S, apart_s / 10)


def _most(percents: Sequence[int | None]) -> int | None:
    known = [percent for percent in percents if percent is not None]
    return max(known) if len(known) == len(percents) else None


def _with_owners(gpu: Gpu, owner_of: Callable[[int], int | None], policy: Policy) -> Gpu:
    if not gpu.processes:
        return gpu
    processes = tuple(_with_owner(process, owner_of, policy) for process in gpu.processes)
    return replace(gpu, processes=processes)


def _with_owner(
    process: GpuProcess, owner_of: Callable[[int], int | None], policy: Policy
) -> GpuProcess:
    """What is of a job of ours is never ignored; what the driver's own servers are always is."""
    job = owner_of(process.pid) if process.job is None else process.job
    is_named = process.command in policy.ignore_processes or process.user in policy.ignore_users
    return replace(process, job=job, ignored=job is None and (process.ignored or is_named))


@dataclass(frozen=True, slots=True)
class _Busy:
    """How much was computed in a reading of `at`, and in those that came too soon after it."""

    at: float
    percent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """All of a GPU that a decision or a reason depends on, but for sizes."""

    index: int
    fault: str | None
    state: tuple[GpuState, str | None]
    busy: str | None
    calm: int | None
    recent: tuple[int, ...] | None
    processes: frozenset[tuple[int, int | None, bool]] | None  # pid, job, ignored


def _judge(
    gpu: Gpu, leases: Sequence[Lease], policy: Policy, busy_limits: frozenset[int]
) -> _Verdict:
    processes = gpu.processes
    return _Verdict(
        index=gpu.index,
        fault=gpu.fault,
        state=assess(gpu, leases, policy),
        busy=is_busy_outside(gpu, leases, policy),
        calm=gpu.calm_samples,
        recent=_judge_recent(gpu.recent_utilization_percent, busy_limits),
        processes=None
        if processes is None
        else frozenset((p.pid, p.job, p.ignored) for p in processes),
    )


def _judge_recent(percent: int | None, limits: frozenset[int]) -> tuple[int, ...] | None:
    """Nobody cares unless a job waits for it: then in steps, which are in its reason, and whether it
    has come below what the job allows."""
    if not limits or percent is None:
        return None
    return percent // BUSY_STEP_PERCENT, *(percent < limit for limit in sorted(limits))


# Total, used, and what of it is measured as our jobs'.
_Sizes = tuple[int | None, int | None, int]


def _measure(gpu: Gpu) -> _Sizes:
    ours = sum(p.memory_bytes or 0 for p in gpu.processes or () if p.job is not None)
    return gpu.memory_total_bytes, gpu.memory_used_bytes, ours


def _has_moved(before: _Sizes, now: _Sizes, step: int) -> bool:
    return any(
        one != other and (one is None or other is None or abs(one - other) > step)
        for one, other in zip(before, now, strict=True)
    )
