"""All about one GPU in sentences: whose it is, what the ledger reckons, when it counts as free, who is
on it, and what is held against it. The same values that the scheduler decides by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.core.gpus.account import Account
from gpuq.core.gpus.breaker import retest_at
from gpuq.core.gpus.condition import assess
from gpuq.core.gpus.gpu import Gpu, GpuProcess, GpuState
from gpuq.core.model import GpuHealth, Lease
from gpuq.core.policy import Policy
from gpuq.core.units import format_bytes, format_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPast:
    """How long ago (s) things happened to a GPU; None where they did not. `test` is what the last test
    of it measured."""

    drained_s: float | None = None
    quarantined_s: float | None = None
    tested_s: float | None = None
    test: Mapping[str, Any] | None = None


def explain_gpu(
    gpu: Gpu,
    leases: Sequence[Lease],
    policy: Policy,
    health: GpuHealth,
    past: GpuPast,
    *,
    boottime: float,
) -> list[str]:
    """`leases` are those on it; `boottime` is now (CLOCK_BOOTTIME, s)."""
    return [
        _headline(gpu, leases, policy),
        *_health_lines(gpu, health, past, policy, boottime),
        *account_lines(gpu, leases, policy),
        *_idle_lines(gpu, policy),
        *_process_lines(gpu),
        *_readings(gpu),
    ]


def _headline(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> str:
    state, reason = assess(gpu, leases, policy)
    kind = "simulated, " if gpu.simulated else ""
    name = f"GPU {gpu.index} ({kind}{gpu.model}, {gpu.uuid})"
    jobs = sorted({lease.job for lease in leases})
    held = f"held by {'job' if len(jobs) == 1 else 'jobs'} {', '.join(map(str, jobs))}"
    if gpu.fault is None and gpu.bar is not None:
        words = f"{reason}; {held}" if jobs else f"{reason}"
    elif state is GpuState.LEASED:
        words = held
    else:
        words = f"{state.value}: {reason}" if reason else state.value
    return f"{name} is {words}."


# ── what is held against it ──


def _health_lines(
    gpu: Gpu, health: GpuHealth, past: GpuPast, policy: Policy, boottime: float
) -> list[str]:
    lines = []
    if health.drain is not None:
        lines.append(
            f"Drained by {health.drain.actor}, {_ago(past.drained_s)}: {health.drain.reason}. "
            f"End it: gpuq gpus resume {gpu.index}"
        )
    if health.quarantine is not None:
        lines.append(f"Set aside {_ago(past.quarantined_s)}: {health.quarantine}.")
        lines.append(_way_back(gpu, health, boottime))
    if past.test is not None:
        lines.append(f"Last tested {_ago(past.tested_s)}: {words_of_test(past.test)}.")
    if health.quarantine is None and health.fast_failures:
        failures = f"{health.fast_failures} of {policy.fast_failures} quick failures in a row"
        lines.append(f"It has seen {failures}, after which it is tested.")
    if health.accepted is not None:
        lines.append(f"It was resumed though the driver says: {health.accepted}.")
    lines += [f"It warns: {warning}." for warning in gpu.warnings]
    return lines


def _way_back(gpu: Gpu, health: GpuHealth, boottime: float) -> str:
    by_hand = f"gpuq gpus resume {gpu.index}"
    if health.resume is not None:
        untested = "" if not health.resume.untested else " without a test"
        return f"{health.resume.actor} wants it given out again{untested}: as soon as it is idle."
    if health.is_lasting:
        return f"That lasts until the machine is restarted, or somebody says so: {by_hand}"
    if gpu.defect is not None:
        return f"That lasts while the driver says so, or until somebody says so: {by_hand}"
    if health.drain is not None:
        return f"It is not tested while it is drained. Test it and have it back: {by_hand}"
    wait_s = max(retest_at(health) - boottime, 0.0)
    return f"It is tested again in {format_seconds(wait_s)}, once it is idle; now: {by_hand}"


def words_of_test(result: Mapping[str, Any]) -> str:
    """ "good: 51.3 TFLOP/s, 2410 GB/s, 125G of its memory (torch 2.13.0, 4.2s)"."""
    measured = []
    if (tflops := result.get("tflops")) is not None:
        measured.append(f"{tflops:.3g} TFLOP/s")
    if (speed := result.get("memory_gb_s")) is not None:
        measured.append(f"{speed:.4g} GB/s")
    if (tested := result.get("memory_bytes")) is not None and result.get("by") != "simulated":
        measured.append(f"{format_bytes(tested)} of its memory")
    words = str(result.get("verdict"))
    if trouble := result.get("trouble"):
        words += f", {trouble}"
    if measured:
        words += f": {', '.join(measured)}"
    took_s = result.get("seconds")
    how = [result.get("by"), None if took_s is None else format_seconds(took_s)]
    known = ", ".join(word for word in how if word)
    return f"{words} ({known})" if known else words


# ── the ledger ──


def account_lines(gpu: Gpu, leases: Sequence[Lease], policy: Policy) -> list[str]:
    """What the ledger reckons for one GPU: all its memory, who counts for how much, what is left."""
    account = Account(gpu, list(leases))
    if account.capacity is None:
        return ["It does not tell its memory, so it is given to one job at a time, as a whole."]
    reserved = gpu.memory_reserved_bytes or 0
    lines = [
        f"Its memory: {format_bytes(gpu.memory_total_bytes)}, of which the driver keeps "
        f"{format_bytes(reserved)} for itself.",
        *(_lease_line(account, lease) for lease in leases),
        f"  outside gpuq: {format_bytes(account.outside())}",
        f"  kept free when it is shared: {format_bytes(policy.headroom_bytes)}",
    ]
    if any(lease.exclusive for lease in leases):
        return [*lines, "  left to share: nothing, one job has it alone"]
    room = account.room(policy) or 0
    most = 1 if gpu.one_process_only else policy.max_jobs_per_gpu
    jobs = f"{len(leases)} of at most {most} jobs are on it"
    return [*lines, f"  left to share: {format_bytes(max(room, 0))}, and {jobs}"]


def _lease_line(account: Account, lease: Lease) -> str:
    alone = "alone" if lease.exclusive else "sharing"
    declared = "nothing declared" if lease.memory_bytes is None else "declared"
    if lease.memory_bytes is not None:
        declared += f" {format_bytes(lease.memory_bytes)}"
    state = "" if lease.state == "active" else f", {lease.state.value}"
    measured = format_bytes(account.measured(lease))
    return f"  job {lease.job} ({alone}{state}): {declared}, measured {measured}"


# ── when it is free ──


def _idle_lines(gpu: Gpu, policy: Policy) -> list[str]:
    over = f"less than {format_bytes(policy.idle_memory_bytes)} in use over the "
    own = f"{format_bytes(gpu.baseline_bytes)} of its own"
    if gpu.ignored_bytes:
        own += f" and the {format_bytes(gpu.ignored_bytes)} of what is ignored"
    busy = f"less than {policy.idle_utilization_percent} % busy"
    lines = [f"It counts as free of others with {over}{own}, {busy}, and no process of theirs."]
    if gpu.calm_samples is None:
        return lines
    span = f"{policy.calm_samples} readings in a row over {policy.calm_s:g} s"
    return [*lines, f"Others were on it: {span} have to say so, and {gpu.calm_samples} did."]


def _process_lines(gpu: Gpu) -> list[str]:
    if gpu.processes is None:
        return [] if gpu.fault is not None else ["The driver does not say who is on it."]
    if not gpu.processes:
        return ["No process is on it."]
    return ["On it:", *(f"  {_process_words(process)}" for process in gpu.processes)]


def _process_words(process: GpuProcess) -> str:
    where = [word for word in (process.user, process.command, process.unit) if word]
    size = format_bytes(process.memory_bytes)
    if process.job is not None:
        whose = f"of job {process.job}"
    elif process.ignored:
        whose = "ignored: it keeps no job away, and its memory counts"
    else:
        whose = "outside gpuq"
    return f"pid {process.pid} ({', '.join(where) or 'unknown'}): {size}, {whose}"


def _readings(gpu: Gpu) -> list[str]:
    words = []
    if gpu.utilization_percent is not None:
        words.append(f"{gpu.utilization_percent} % busy")
    if gpu.temperature_c is not None:
        words.append(f"{gpu.temperature_c} C")
    if gpu.power_w is not None:
        limit = "" if gpu.power_limit_w is None else f" of {gpu.power_limit_w:.0f}"
        words.append(f"{gpu.power_w:.0f}{limit} W")
    return [f"Now: {', '.join(words)}."] if words else []


def _ago(seconds: float | None) -> str:
    return "some time ago" if seconds is None else f"{format_seconds(seconds)} ago"
