"""The ledger: which GPUs are free for whom, and which to take.

A reading may veto a GPU, never grant one: what grants is that no lease stands in the way, and leases
are committed before anything starts.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from gpuq.core.model import Gpu, GpuProcess, GpuState, Lease, LeaseState, Policy, Request
from gpuq.core.units import count, format_bytes, format_ranges

GIB = 2**30


def matches(gpu: Gpu, request: Request) -> bool:
    """Could this GPU ever serve the request, were nobody else on the machine?"""
    if request.gpu_model and request.gpu_model.lower() not in gpu.model.lower():
        return False
    if request.gpu_mem_bytes is None:
        return True
    if gpu.memory_total_bytes is None:
        return request.exclusive
    if request.exclusive:
        # A card sold as 80G shows 79.6G: who asks for a whole GPU reads the label.
        return request.gpu_mem_bytes <= -(-gpu.memory_total_bytes // GIB) * GIB
    return request.gpu_mem_bytes <= gpu.memory_total_bytes - (gpu.memory_reserved_bytes or 0)


def never_fits(request: Request, gpus: Sequence[Gpu], policy: Policy) -> str | None:
    """Why no GPU that this machine has ever shown can serve the request; None if some can."""
    if request.cpu_slots > policy.cpu_slots:
        return (
            f"--cpus {request.cpus} can never start: "
            f"this machine has {count(policy.cpu_slots, 'CPU slot')}"
        )
    fitting = sum(matches(gpu, request) for gpu in gpus)
    if request.gpus <= fitting:
        return None
    wanted = f"--gpus {request.gpus}{_wish_words(request)}"
    if not gpus:
        return f"{wanted} can never start: this machine has no GPU"
    if fitting == len(gpus):
        return f"{wanted} can never start: this machine has {count(len(gpus), 'GPU')}"
    have = f"{fitting} of this machine's {len(gpus)} GPUs would do"
    return f"{wanted} can never start: {have} ({_census(gpus)})"


def _census(gpus: Sequence[Gpu]) -> str:
    """ "2 x NVIDIA H100 with 79.6G, 1 x …"."""
    kinds = Counter((gpu.model, gpu.memory_total_bytes) for gpu in gpus)
    return ", ".join(
        f"{number} x {model} with {format_bytes(memory)}"
        for (model, memory), number in kinds.items()
    )


def _wish_words(request: Request) -> str:
    words = f" --gpu-model {request.gpu_model}" if request.gpu_model else ""
    if request.gpu_mem_bytes is not None:
        words += f" --gpu-mem {format_bytes(request.gpu_mem_bytes)}"
    return words


def is_busy_outside(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> str | None:
    """Who uses this GPU without having been given it, in words; None if nobody does."""
    if gpu.foreign_processes:
        return f"outside gpuq: {_processes_words(gpu.foreign_processes)}"
    if strays := _strays(gpu, leases):
        return f"job {strays[0].job} uses it without holding it: {_processes_words(strays)}"
    if leases or any(process.job is not None for process in gpu.processes or ()):
        return None  # memory and utilisation are our own jobs' then, or were at the reading
    used = gpu.memory_used_bytes
    if used is not None and used > gpu.baseline_bytes + policy.idle_memory_bytes:
        return f"outside gpuq: {format_bytes(used)} in use, and no process to be seen"
    if (gpu.utilization_percent or 0) >= policy.idle_utilization_percent:
        return f"outside gpuq: {gpu.utilization_percent} % busy, and no process to be seen"
    return None


def _strays(gpu: Gpu, leases: Sequence[Lease]) -> tuple[GpuProcess, ...]:
    """Processes of our jobs on a GPU that those do not hold, as of a script that sets
    CUDA_VISIBLE_DEVICES itself. On a simulated GPU they are of a job that has just ended."""
    if gpu.simulated:
        return ()
    holders = {lease.job for lease in leases}
    ours = (process for process in gpu.processes or () if process.job is not None)
    return tuple(process for process in ours if process.job not in holders)


def _processes_words(processes: Sequence[GpuProcess]) -> str:
    first = processes[0]
    words = f"{first.command or 'process'} {first.pid} {first.user or ''}".rstrip()
    return words if len(processes) == 1 else f"{words} and {len(processes) - 1} more"


def count_calm(before: Gpu | None, now: Gpu, leases: Sequence[Lease], policy: Policy) -> int | None:
    """The calm readings that a GPU has given, or None where it owes none (any longer).

    Asked of a GPU that is new or was last seen in use by somebody outside gpuq, and never between
    two of gpuq's own jobs. Simulated GPUs start calm.
    """
    if is_busy_outside(now, leases, policy) is not None:
        return 0
    if before is None:
        return None if now.simulated or leases else 1
    if before.calm_samples is None or before.calm_samples + 1 >= policy.calm_samples:
        return None
    return before.calm_samples + 1


def assess(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> tuple[GpuState, str | None]:
    """The state of a GPU and the sentence for it, as every screen shows them."""
    if gpu.fault is not None:
        return GpuState.LOST, gpu.fault
    active = [lease for lease in leases if lease.state is LeaseState.ACTIVE]
    if active:
        return GpuState.LEASED, None
    if dirty := [lease for lease in leases if lease.state is LeaseState.DIRTY]:
        return GpuState.DIRTY, f"memory of job {dirty[0].job} has not come back: {dirty[0].dirt}"
    if leases:
        return GpuState.COOLING, "waiting until the memory of the last job is free again"
    if busy := is_busy_outside(gpu, leases, policy):
        return GpuState.FOREIGN, busy
    if gpu.calm_samples is not None:
        seen = f"{gpu.calm_samples} of {policy.calm_samples} readings"
        return GpuState.FOREIGN, f"not known to be free yet: calm for {seen}"
    return GpuState.FREE, None


@dataclass(slots=True)
class _Account:
    gpu: Gpu
    leases: list[Lease] = field(default_factory=list)

    def outside_bytes(self) -> int:
        """What others use: the reading less what is measured of ours; less what ours declared where
        the driver shows our processes without their sizes, or none at all."""
        processes = self.gpu.processes
        strays = _strays(self.gpu, self.leases)
        ours = [p for p in processes or () if p.job is not None and p not in strays]
        sizeless = {process.job for process in ours if process.memory_bytes is None}
        unmeasured = [o for o in self.leases if processes is None or o.job in sizeless]
        if any(lease.memory_bytes is None for lease in unmeasured):
            return 0  # a whole GPU was given away, and nobody can say whose bytes these are
        known = sum(process.memory_bytes or 0 for process in ours)
        known += sum(lease.memory_bytes or 0 for lease in unmeasured)
        return max((self.gpu.memory_used_bytes or 0) - known, 0)

    def is_shared(self) -> bool:
        return bool(self.leases) and not any(lease.exclusive for lease in self.leases)

    def leased_bytes(self) -> int:
        """Per lease the larger of what was declared and what is measured."""
        return sum(max(lease.memory_bytes or 0, self._measured(lease)) for lease in self.leases)

    def _measured(self, lease: Lease) -> int:
        processes = self.gpu.processes or ()
        return sum(p.memory_bytes or 0 for p in processes if p.job == lease.job)


class Ledger:
    """The GPUs of one snapshot with who holds them; `take` notes what this turn has given away."""

    def __init__(self, gpus: Iterable[Gpu], leases: Iterable[Lease], policy: Policy) -> None:
        self._policy = policy
        self._accounts = {gpu.uuid: _Account(gpu) for gpu in gpus}
        for lease in leases:
            if lease.gpu in self._accounts:
                self._accounts[lease.gpu].leases.append(lease)

    def choose(
        self, request: Request, reluctance: Callable[[str], int] = lambda uuid: 0
    ) -> tuple[str, ...] | None:
        """The GPUs to give to such a job now, those with the least reluctance first; None where too
        few are free for it."""
        fitting = [
            account for account in self._accounts.values() if self._accepts(account, request)
        ]
        if len(fitting) < request.gpus:
            return None
        # A sharing job goes where the least is loaded; among equals the lowest index.
        fitting.sort(
            key=lambda account: (
                reluctance(account.gpu.uuid),
                0 if request.exclusive else account.leased_bytes(),
                account.gpu.index,
            )
        )
        return tuple(account.gpu.uuid for account in fitting[: request.gpus])

    def take(self, uuids: Iterable[str], job: int, request: Request) -> None:
        for uuid in uuids:
            account = self._accounts[uuid]
            slot = 0 if request.exclusive else len(account.leases)
            account.leases.append(
                Lease(
                    gpu=uuid,
                    slot=slot,
                    job=job,
                    attempt=0,
                    exclusive=request.exclusive,
                    memory_bytes=request.gpu_mem_bytes,
                )
            )

    def eligible(self, request: Request) -> frozenset[str]:
        """The GPUs on which such a job could ever run."""
        return frozenset(
            uuid for uuid, account in self._accounts.items() if matches(account.gpu, request)
        )

    def without_ours(self) -> "Ledger":
        """The ledger as it will be when every lease of ours has ended and its memory is free."""
        return Ledger(map(_without_ours, self._accounts.values()), (), self._policy)

    def wants(self, request: Request) -> str:
        """ "wants 2 GPUs with 60G, 1 free (…)" with what stands in the way of the others."""
        eligible = [a for a in self._accounts.values() if matches(a.gpu, request)]
        blocked = [a for a in eligible if not self._accepts(a, request)]
        whole = "whole " if request.exclusive and request.gpu_mem_bytes is not None else ""
        wish = f"wants {count(request.gpus, whole + 'GPU')}"
        if request.gpu_mem_bytes is not None:
            wish += f" with {format_bytes(request.gpu_mem_bytes)}"
        if request.gpu_model is not None:
            wish += f" of model {request.gpu_model}"
        obstacles = self._obstacles(blocked)
        if not request.exclusive and (shared := [a for a in blocked if a.is_shared()]):
            obstacles.append(self._shared_words(shared))
        if len(eligible) < request.gpus:
            obstacles.insert(0, f"{len(eligible)} such to be seen")
        because = f" ({'; '.join(obstacles)})" if obstacles else ""
        return f"{wish}, {len(eligible) - len(blocked)} free{because}"

    def _shared_words(self, accounts: Sequence[_Account]) -> str:
        most = self._policy.max_jobs_per_gpu
        rooms = [self._room(account) or 0 for account in accounts if len(account.leases) < most]
        if not rooms:
            return f"a shared one takes {count(most, 'job')} at most"
        return f"a shared one has {format_bytes(max(*rooms, 0))} left at most"

    def _accepts(self, account: _Account, request: Request) -> bool:
        gpu, policy = account.gpu, self._policy
        if gpu.fault is not None or not matches(gpu, request):
            return False
        if request.exclusive:
            return assess(gpu, account.leases, policy)[0] is GpuState.FREE
        if any(lease.exclusive for lease in account.leases):
            return False
        if len(account.leases) >= policy.max_jobs_per_gpu:
            return False
        room = self._room(account)
        return room is not None and room >= (request.gpu_mem_bytes or 0)

    def _room(self, account: _Account) -> int | None:
        """Bytes that the ledger leaves for one more sharing job; None where it cannot tell."""
        gpu = account.gpu
        if gpu.memory_total_bytes is None or gpu.memory_used_bytes is None:
            return None
        capacity = gpu.memory_total_bytes - (gpu.memory_reserved_bytes or 0)
        taken = account.leased_bytes() + account.outside_bytes() + self._policy.headroom_bytes
        return capacity - taken

    def _obstacles(self, accounts: Sequence[_Account]) -> list[str]:
        leases = [lease for account in accounts for lease in account.leases]
        jobs = sorted({lease.job for lease in leases if lease.state is LeaseState.ACTIVE})
        words = []
        if jobs:
            words.append(f"in use by {'job' if len(jobs) == 1 else 'jobs'} {format_ranges(jobs)}")
        for account in accounts:
            state, reason = assess(account.gpu, account.leases, self._policy)
            if reason is not None:
                words.append(f"GPU {account.gpu.index} {reason}")
            elif state is GpuState.FREE:
                words.append(f"GPU {account.gpu.index} {self._room_words(account)}")
        return words

    def _room_words(self, account: _Account) -> str:
        room = self._room(account)
        if room is None:
            return "does not tell its memory"
        return f"has {format_bytes(max(room, 0))} left"


def _without_ours(account: _Account) -> Gpu:
    """The GPU as its reading will be when our jobs on it have ended; others stay.

    Memory that nobody is seen to hold is taken for ours where ours is not measured: our jobs end
    one day, and who is waited for in vain shows himself then.
    """
    gpu = account.gpu
    if not account.leases:
        return gpu
    measured = {p.job for p in gpu.processes or () if p.memory_bytes is not None}
    if all(not lease.exclusive and lease.job in measured for lease in account.leases):
        left = account.outside_bytes()
    else:
        left = sum(process.memory_bytes or 0 for process in gpu.foreign_processes)
    return replace(
        gpu,
        memory_used_bytes=max(gpu.baseline_bytes, left),
        utilization_percent=0,
        processes=gpu.foreign_processes,
        calm_samples=None,
    )
