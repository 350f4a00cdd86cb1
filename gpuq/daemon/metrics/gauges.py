"""How it is now, as samples. What could not be read has none: an absent reading is never 0."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from gpuq.core.gpus.account import Account
from gpuq.core.gpus.condition import assess
from gpuq.core.gpus.gpu import Gpu, GpuState
from gpuq.core.model import JobState, Lease, LeaseState
from gpuq.core.policy import Policy
from gpuq.daemon.metrics.families import Sample
from gpuq.daemon.store.depth import Depth, Holder
from gpuq.daemon.store.health import HealthRow

HIDDEN = "(hidden)"  # in place of a user whose jobs are not the caller's to see


def gpu_samples(
    gpus: Sequence[Gpu],
    leases: Sequence[Lease],
    policy: Policy,
    health: Mapping[str, HealthRow],
) -> list[Sample]:
    """Readings, state, ledger and health of each GPU."""
    samples: list[Sample] = []
    for gpu in gpus:
        held = [lease for lease in leases if lease.gpu == gpu.uuid]
        row = health.get(gpu.uuid, HealthRow(gpu=gpu.uuid))
        what = (*_gpu(gpu), gpu.model, str(gpu.simulated).lower())
        samples.append(Sample("gpuq_gpu_info", 1.0, what))
        samples += _of_gpu(gpu, _readings(gpu))
        samples += _of_gpu(gpu, _ledger(Account(gpu, held), policy))
        samples += _of_gpu(gpu, _health(row))
        samples += _states(gpu, held, policy)
    return samples


def depth_samples(depths: Iterable[Depth]) -> list[Sample]:
    """Each state is there, though no job is in it: a line that is missing is taken for no answer."""
    counts = {(state.value, "", ""): 0 for state in JobState if state is not JobState.ENDED}
    counts |= {(depth.state, depth.substate, depth.queue): depth.jobs for depth in depths}
    return [Sample("gpuq_jobs", float(jobs), labels) for labels, jobs in counts.items()]


def holder_samples(
    holders: Iterable[Holder], gpus: Sequence[Gpu], is_told: Callable[[int], bool]
) -> list[Sample]:
    """Whose jobs are on which GPU. `is_told`: may the jobs of that uid be told of?"""
    present = {gpu.uuid: gpu for gpu in gpus}
    users: dict[tuple[str, ...], float] = {}
    samples = []
    for holder in holders:
        if (gpu := present.get(holder.gpu)) is None:
            continue
        is_open = is_told(holder.uid)
        labels = (*_gpu(gpu), holder.user if is_open else HIDDEN)
        users[labels] = users.get(labels, 0.0) + 1
        if is_open:
            slot = (*_gpu(gpu), str(holder.slot))
            samples.append(Sample("gpuq_gpu_holder_job_id", float(holder.job), slot))
    samples += [Sample("gpuq_gpu_holder", leases, labels) for labels, leases in users.items()]
    return samples


def _gpu(gpu: Gpu) -> tuple[str, str]:
    return gpu.uuid, str(gpu.index)


def _of_gpu(gpu: Gpu, values: Iterable[tuple[str, float | None]]) -> Iterator[Sample]:
    for name, value in values:
        if value is not None:
            yield Sample(f"gpuq_gpu_{name}", float(value), _gpu(gpu))


def _readings(gpu: Gpu) -> list[tuple[str, float | None]]:
    percent = gpu.utilization_percent
    return [
        ("utilization_ratio", None if percent is None else percent / 100),
        ("memory_total_bytes", gpu.memory_total_bytes),
        ("memory_used_bytes", gpu.memory_used_bytes),
        ("memory_driver_bytes", gpu.memory_reserved_bytes),
        ("temperature_celsius", gpu.temperature_c),
        ("power_watts", gpu.power_w),
        ("power_limit_watts", gpu.power_limit_w),
        ("energy_joules", gpu.energy_j),
    ]


def _ledger(account: Account, policy: Policy) -> list[tuple[str, float | None]]:
    declared = sum(lease.memory_bytes or 0 for lease in account.leases)
    values: list[tuple[str, float | None]] = [("memory_declared_bytes", declared)]
    if (room := account.room(policy)) is None:
        return values  # it does not tell its memory
    is_whole = any(lease.exclusive for lease in account.leases)
    return [
        *values,
        ("memory_leased_bytes", account.leased()),
        ("memory_outside_bytes", account.outside()),
        ("memory_room_bytes", 0 if is_whole else max(room, 0)),
    ]


def _health(row: HealthRow) -> list[tuple[str, float | None]]:
    return [
        ("quarantined", row.quarantine is not None),
        ("drained", row.drained_by is not None),
        ("fast_failures", row.fast_failures),
        ("failed_tests", row.failed_tests),
    ]


def _states(gpu: Gpu, held: Sequence[Lease], policy: Policy) -> list[Sample]:
    now, _ = assess(gpu, held, policy)
    states = [
        Sample("gpuq_gpu_state", float(state is now), (*_gpu(gpu), state.value))
        for state in GpuState
    ]
    leases = [
        Sample(
            "gpuq_gpu_leases",
            float(sum(lease.state is state for lease in held)),
            (*_gpu(gpu), state.value),
        )
        for state in LeaseState
    ]
    return states + leases
