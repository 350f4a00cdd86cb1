"""Which GPUs are set aside, which are tested, and how they come back.

A job that fails proves nothing against its GPU: most do so for reasons of their own. Several that fail
quickly one after the other get the GPU tested, and only a test that fails, or the driver's own word
that the hardware is not well, sets it aside. A good test ends that, but for a fault that only a restart
or a reset mends: there a person has to say so, or the machine to be restarted.
"""

from collections.abc import Iterable
from dataclasses import replace

from gpuq.core.decisions import Decision, Readmit, SetAsideGpu, TestGpu
from gpuq.core.gpus.condition import assess
from gpuq.core.gpus.gpu import Bar, Gpu, GpuState
from gpuq.core.model import Exit, GpuHealth, Outcome, Snapshot
from gpuq.core.policy import Policy
from gpuq.core.units import count

FIRST_RETEST_S, LONGEST_RETEST_S = 60.0, 1800.0
# Programs under work fail quickly all day long: their GPU is not tested all day long.
TESTS_APART_S = 300.0

# Errors that the driver tells of and that programs bring about: "user app" in NVIDIA's catalogue of
# XIDs (https://docs.nvidia.com/deploy/xid-errors), and what its plugin for Kubernetes does not take for
# trouble of the GPU (NVIDIA/k8s-device-plugin, internal/rm/health.go).
OF_APPLICATIONS = {
    13: "its own kernel did what the GPU does not allow",
    31: "its own memory access fault",
    43: "its own fault, for which the GPU stopped it",
    45: "what it had on the GPU was cleaned up after an earlier error",
    68: "the video decoder stopped over what it was given",
    109: "it did not let go of the GPU in time",
}
# Some that are the GPU's, by the same catalogue.
_OF_GPUS = {
    48: "an error in its memory that could not be corrected",
    62: "its internal controller halted",
    63: "a row of its memory waits to be remapped",
    64: "it could not take bad memory out of use",
    74: "an error of NVLink",
    79: "it has fallen off the bus",
    92: "many errors in its memory, corrected",
    94: "an error in its memory that was contained",
    95: "an error in its memory that was not contained",
    119: "its system processor does not answer",
    120: "its system processor failed",
}
# Jobs go on, and new ones may start, on a GPU with rows to be remapped; each reading says so anyway
# (https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt, "Row-remapping pending flag").
_ONLY_WARNS = frozenset({63})


def is_of_hardware(xid: int) -> bool:
    """Does this error speak against the GPU itself?"""
    return xid not in OF_APPLICATIONS and xid not in _ONLY_WARNS


def explain_xid(xid: int) -> str:
    """What an XID says, to be read after it."""
    known = OF_APPLICATIONS.get(xid) or _OF_GPUS.get(xid)
    return known or "see https://docs.nvidia.com/deploy/xid-errors"


def tell_xid(xid: int, index: int) -> str:
    """For the sentence of the end of a job that had the GPU of that index."""
    return f"the driver told of XID {xid} on GPU {index} meanwhile: {explain_xid(xid)}"


def plan_health(snapshot: Snapshot) -> tuple[list[Decision], list[float]]:
    """What to do about GPUs that are not well, and the moments on CLOCK_BOOTTIME (s) at which one is to
    be tested without news."""
    known = {health.gpu: health for health in snapshot.health}
    decisions: list[Decision] = []
    deadlines: list[float] = []
    for gpu in snapshot.gpus or ():
        if (health := known.get(gpu.uuid)) is None:
            continue
        if (cause := _cause_to_set_aside(gpu, health)) is not None:
            decisions.append(cause)
        elif (word := _word_of_a_person(gpu, health)) is not None:
            decisions.append(word)
        elif (due := _test_due(gpu, health, snapshot.policy)) is not None:
            at, why = due
            if not _is_idle(gpu, snapshot):
                continue
            if at <= snapshot.boottime:
                decisions.append(TestGpu(gpu=gpu.uuid, why=why))
            else:
                deadlines.append(at)
    return decisions, deadlines


def once_decided(snapshot: Snapshot, decisions: Iterable[Decision]) -> Snapshot:
    """The same with what was just decided of its GPUs: nothing is started on those in this turn."""
    bars: dict[str, Bar] = {}
    for one in decisions:
        if isinstance(one, SetAsideGpu):
            bars[one.gpu] = _set_aside(one.reason)
        elif isinstance(one, TestGpu):
            bars[one.gpu] = _under_test(one.why)
    if not bars:
        return snapshot
    gpus = (replace(gpu, bar=bars.get(gpu.uuid, gpu.bar)) for gpu in snapshot.gpus or ())
    return replace(snapshot, gpus=tuple(gpus))


def bar_of(gpu: Gpu, health: GpuHealth, policy: Policy) -> Bar | None:
    """Why this GPU is given to nobody though it can be read; None where nothing speaks against it."""
    if health.under_test is not None:
        return _under_test(health.under_test)
    if health.drain is not None:
        also = "" if health.quarantine is None else f"; set aside: {health.quarantine}"
        words = f"drained by {health.drain.actor}: {health.drain.reason}{also}"
        return Bar(state=GpuState.DRAINED, reason=words)
    if health.quarantine is not None:
        return _set_aside(health.quarantine)
    if policy.strict_health and gpu.warnings:
        warnings = "; ".join(gpu.warnings)
        return _set_aside(f"{warnings} (strict_health)")
    return None


def judge_test(
    health: GpuHealth, gpu: Gpu | None, *, is_good: bool, trouble: str | None
) -> SetAsideGpu | Readmit | None:
    """What follows from a test that has ended. `trouble` says what the GPU did wrong; a test that
    could not be carried out is not good and found no trouble."""
    if trouble is not None and health.quarantine is None:
        return SetAsideGpu(gpu=health.gpu, reason=f"its test failed: {trouble}")
    if not is_good or health.quarantine is None:
        return None
    defect = None if gpu is None else gpu.defect
    if health.resume is not None:
        why = f"its test was good; resumed by {health.resume.actor}"
        return Readmit(gpu=health.gpu, why=why, accepts=defect)
    if health.is_lasting or defect is not None:
        return None
    return Readmit(gpu=health.gpu, why="its test was good")


def speaks_against_gpu(
    outcome: Outcome, exit: Exit, ran_s: float | None, policy: Policy
) -> bool | None:
    """Does the end of a job speak against the GPUs that it had (True) or for them (False)? None: it
    says nothing of them. `ran_s` is None where nobody knows how long it ran."""
    if outcome is Outcome.SUCCEEDED:
        return False
    if ran_s is None or exit.stage is not None:  # it did not come as far as its GPUs
        return None
    if ran_s > policy.fast_failure_s:
        return False
    return True if outcome in (Outcome.FAILED, Outcome.LOST) else None


def _cause_to_set_aside(gpu: Gpu, health: GpuHealth) -> SetAsideGpu | None:
    """What the driver says of the hardware, where that is not known yet."""
    found = _trouble(gpu, health)
    if found is None:
        return None
    reason, is_lasting = found
    if health.quarantine is not None and (health.is_lasting or not is_lasting):
        return None
    return SetAsideGpu(gpu=gpu.uuid, reason=reason, is_lasting=is_lasting)


def _trouble(gpu: Gpu, health: GpuHealth) -> tuple[str, bool] | None:
    """The sentence, and whether it lasts. A GPU that just cannot be read now is lost while that is so,
    and nothing is held against it afterwards."""
    if gpu.fault is not None and gpu.is_lasting:
        return gpu.fault, True
    if gpu.defect is not None and gpu.defect != health.accepted:
        return gpu.defect, gpu.is_lasting
    if xids := [xid for xid in gpu.xids if is_of_hardware(xid)]:
        return f"the driver told of XID {xids[0]}: {explain_xid(xids[0])}", False
    return None


def _word_of_a_person(gpu: Gpu, health: GpuHealth) -> Readmit | None:
    """Who resumes a GPU untested answers for it, as soon as it can be read at all."""
    wish = health.resume
    if health.quarantine is None or wish is None or not wish.untested:
        return None
    if gpu.fault is not None or health.under_test is not None:
        return None
    why = f"resumed by {wish.actor} without a test"
    return Readmit(gpu=gpu.uuid, why=why, accepts=gpu.defect)


def _test_due(gpu: Gpu, health: GpuHealth, policy: Policy) -> tuple[float, str] | None:
    """When this GPU is to be tested (CLOCK_BOOTTIME, s), and why; None where it is not."""
    if health.under_test is not None:
        return None
    if health.test_wished_by is not None:
        return 0.0, f"asked by {health.test_wished_by}"
    if health.quarantine is not None:
        return _retest_due(gpu, health)
    if health.fast_failures >= policy.fast_failures and health.drain is None:
        jobs = count(health.fast_failures, "job")
        why = f"{jobs} in a row failed within {policy.fast_failure_s:g} s on it"
        return (0.0 if health.tried_at is None else health.tried_at + TESTS_APART_S), why
    return None


def _retest_due(gpu: Gpu, health: GpuHealth) -> tuple[float, str] | None:
    """A GPU that somebody drained, to work on it perhaps, is left alone; and no test can take back
    what the driver goes on saying."""
    if health.resume is not None:
        return 0.0, f"resumed by {health.resume.actor}"
    if health.is_lasting or health.drain is not None or gpu.defect is not None:
        return None
    return retest_at(health), "to see whether it is well again"


def retest_at(health: GpuHealth) -> float:
    """After 1, 2, 4 … and at last every 30 minutes; CLOCK_BOOTTIME, s."""
    if health.tried_at is None:
        return 0.0
    doubled = min(health.failed_tests, 10)
    return health.tried_at + min(FIRST_RETEST_S * 2.0**doubled, LONGEST_RETEST_S)


def _is_idle(gpu: Gpu, snapshot: Snapshot) -> bool:
    """Nobody has it or uses it: a test takes nearly all of its memory."""
    if snapshot.gpu_trouble is not None:
        return False
    held = [lease for lease in snapshot.leases if lease.gpu == gpu.uuid]
    return assess(replace(gpu, bar=None), held, snapshot.policy)[0] is GpuState.FREE


def _set_aside(why: str) -> Bar:
    return Bar(state=GpuState.QUARANTINED, reason=f"set aside: {why}")


def _under_test(why: str) -> Bar:
    return Bar(state=GpuState.QUARANTINED, reason=f"being tested: {why}")
