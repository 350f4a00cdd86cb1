"""What one GPU has to give, who holds what of it, and how it will be once some of them have left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gpuq.core.gpus.condition import strays
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Lease
from gpuq.core.policy import Policy


@dataclass(slots=True)
class Account:
    """One GPU, and who holds what of it. All sizes are bytes."""

    gpu: Gpu
    leases: list[Lease] = field(default_factory=list)

    @property
    def capacity(self) -> int | None:
        """What there is to be given; None where the GPU does not tell its memory."""
        if self.gpu.memory_total_bytes is None or self.gpu.memory_used_bytes is None:
            return None
        return self.gpu.memory_total_bytes - (self.gpu.memory_reserved_bytes or 0)

    def outside(self) -> int:
        """What others use: the reading less what is measured of ours; less what ours declared where
        the driver shows our processes without their sizes, or none at all."""
        processes = self.gpu.processes
        if processes == ():
            return max(self.gpu.memory_used_bytes or 0, 0)
        stray = strays(self.gpu, self.leases)
        ours = [p for p in processes or () if p.job is not None and p not in stray]
        sizeless = {process.job for process in ours if process.memory_bytes is None}
        unmeasured = [o for o in self.leases if processes is None or o.job in sizeless]
        if any(lease.memory_bytes is None for lease in unmeasured):
            return 0  # a whole GPU was given away, and nobody can say whose bytes these are
        known = sum(process.memory_bytes or 0 for process in ours)
        known += sum(lease.memory_bytes or 0 for lease in unmeasured)
        return max((self.gpu.memory_used_bytes or 0) - known, 0)

    def leased(self) -> int:
        """Per lease the larger of what was declared and what is measured."""
        return sum(max(lease.memory_bytes or 0, self.measured(lease)) for lease in self.leases)

    def measured(self, lease: Lease) -> int:
        processes = self.gpu.processes
        if not processes:
            return 0
        return sum(p.memory_bytes or 0 for p in processes if p.job == lease.job)

    def shown(self, lease: Lease) -> int:
        """What of the reading is this one's: what it declared where nobody can tell."""
        own = [p for p in self.gpu.processes or () if p.job == lease.job]
        is_told = self.gpu.processes is not None and all(p.memory_bytes is not None for p in own)
        return self.measured(lease) if is_told else lease.memory_bytes or 0

    def room(self, policy: Policy) -> int | None:
        """What is left for one more sharing job; None where it cannot be told."""
        if self.capacity is None:
            return None
        return self.capacity - self.leased() - self.outside() - policy.headroom_bytes

    @property
    def is_shared(self) -> bool:
        return bool(self.leases) and not any(lease.exclusive for lease in self.leases)

    @property
    def is_unleased(self) -> bool:
        """Left to people outside gpuq, and well."""
        return not self.leases and self.gpu.fault is None and self.gpu.bar is None


def without_ours(account: Account) -> Gpu:
    """The GPU as its reading will be when our jobs on it have ended; others stay.

    Memory that nobody is seen to hold is taken for ours where ours is not measured: our jobs end
    one day, and who is waited for in vain shows himself then.
    """
    gpu = account.gpu
    if not account.leases:  # what is only not known yet to be free will be, unless he comes back
        return gpu if gpu.calm_samples is None else replace(gpu, calm_samples=None)
    measured = {p.job for p in gpu.processes or () if p.memory_bytes is not None}
    if all(not lease.exclusive and lease.job in measured for lease in account.leases):
        left = account.outside()
    else:
        left = sum(process.memory_bytes or 0 for process in gpu.foreign_processes)
    return replace(
        gpu,
        memory_used_bytes=max(gpu.baseline_bytes, left),
        utilization_percent=0,
        recent_utilization_percent=0,
        processes=gpu.foreign_processes,
        calm_samples=None,
    )


def once_ended(account: Account, is_gone: Callable[[Lease], bool], *, calm: bool) -> Account:
    """The account once those leases are given back, others of ours and strangers still being there. It
    is another one in any case: what is taken of it is not taken of this one."""
    left = [lease for lease in account.leases if not is_gone(lease)]
    if account.leases and not left:
        return Account(without_ours(account))
    gpu = _with_less(account, left)
    return Account(replace(gpu, calm_samples=None) if calm and gpu.calm_samples else gpu, left)


def _with_less(account: Account, left: Sequence[Lease]) -> Gpu:
    """Its reading without what is known to be of those who leave."""
    jobs = {lease.job for lease in account.leases} - {lease.job for lease in left}
    if not jobs:
        return account.gpu
    freed = sum(account.shown(lease) for lease in account.leases if lease.job in jobs)
    gpu, processes = account.gpu, account.gpu.processes
    used = gpu.memory_used_bytes
    return replace(
        gpu,
        memory_used_bytes=None if used is None else max(used - freed, gpu.baseline_bytes),
        processes=None if processes is None else tuple(p for p in processes if p.job not in jobs),
    )
