"""How the daemon is, in one line for `systemctl status`."""

from collections.abc import Iterable, Sequence

from gpuq.core.gpus.condition import CLOSED, assess
from gpuq.core.gpus.gpu import Gpu, GpuState
from gpuq.core.model import Lease
from gpuq.core.policy import Policy


def status_line(
    running: int,
    queued: int,
    gpus: Sequence[Gpu] | None,
    leases: Sequence[Lease],
    policy: Policy,
    troubles: Iterable[str | None],
) -> str:
    """Such as "3 running, 5 queued; 8 GPUs, 2 of them free"; then each trouble that there is."""
    jobs = f"{running} running, {queued} queued"
    return "; ".join([jobs, _gpu_words(gpus, leases, policy), *filter(None, troubles)])


def _gpu_words(gpus: Sequence[Gpu] | None, leases: Sequence[Lease], policy: Policy) -> str:
    if gpus is None:
        return "GPUs not read yet"
    states = [
        assess(gpu, [held for held in leases if held.gpu == gpu.uuid], policy)[0] for gpu in gpus
    ]
    free = states.count(GpuState.FREE)
    closed = sum(state in CLOSED for state in states)
    if not states:
        return "no GPU"
    words = f"{len(states)} GPU{'s' if len(states) > 1 else ''}, {free} of them free"
    if len(states) == 1:
        words = f"1 GPU, {'free' if free else 'not free'}"
    return f"{words}, {closed} given to nobody" if closed else words
