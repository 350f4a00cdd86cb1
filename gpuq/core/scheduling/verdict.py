"""What would become of jobs that nobody has submitted yet: the plan of this moment with them in their
place in the queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpuq.core.decisions import Plan, Start
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Snapshot, WaitingJob
from gpuq.core.scheduling.forecast import Expected, Forecast, forecast
from gpuq.core.scheduling.scheduler import plan
from gpuq.core.units import count, name_gpus

MOST_SHOWN = 512  # jobs, of all of them together: more would not start at once on any machine
MOST_TRIED = 16  # of the jobs that run, for whose end it might wait
MOST_NAMED = 3
MOST_EXPLAINED = 4  # of many that would wait: each costs as many plans as there are to be tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job as it would stand in the queue, or an array of `elements` of them, of which `at_once` may
    run at a time. `waits` is why it would not be considered yet."""

    job: WaitingJob
    elements: int = 1
    at_once: int | None = None
    waits: str | None = None
    is_skipped: bool = False  # what it is to wait for cannot come any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`starting` of its `elements` would start now, on GPUs of these uuids; `reason` is why the first
    of the others would wait, and `expected` when that one would start. `waits_for` are jobs the end of
    any of which would let it start."""

    elements: int
    starting: int = 0
    gpus: tuple[str, ...] = ()
    reason: str | None = None
    waits_for: tuple[int, ...] = ()
    expected: Expected | None = None
    is_skipped: bool = False


def judge(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Verdict]:
    """A verdict for each, in their order, as if they were submitted together."""
    # Whose wait is over this moment is none of the queue yet, and would keep all else from a look.
    now = replace(snapshot, delayed=(), jobs_per_class=None)
    most = max(MOST_SHOWN // max(len(candidates), 1), 1)
    shown = [[] if one.waits is not None else _jobs(one, most) for one in candidates]
    world = _with(now, [job for jobs in shown for job in jobs])
    decided, foreseen = plan(world), forecast(world)
    verdicts, explained = [], 0
    for one, jobs in zip(candidates, shown, strict=True):
        verdict = _verdict(one, jobs, decided, foreseen)
        if not verdict.starting and jobs and explained < MOST_EXPLAINED:
            explained += 1
            verdict = replace(verdict, waits_for=_waits_for(one.job, now))
        verdicts.append(verdict)
    return verdicts


def _with(snapshot: Snapshot, jobs: Sequence[WaitingJob]) -> Snapshot:
    return replace(snapshot, waiting=(*snapshot.waiting, *jobs))


def _jobs(candidate: Candidate, most: int) -> list[WaitingJob]:
    first = candidate.job
    shown = min(candidate.elements, most, candidate.at_once or most)
    return [replace(first, id=first.id + n, place=first.place + n) for n in range(shown)]


def _verdict(
    candidate: Candidate, shown: Sequence[WaitingJob], decided: Plan, foreseen: Forecast
) -> Verdict:
    if candidate.waits is not None:
        why, is_skipped = candidate.waits, candidate.is_skipped
        return Verdict(elements=candidate.elements, reason=why, is_skipped=is_skipped)
    jobs = [job.id for job in shown]
    starts = {one.job: one for one in decided.decisions if isinstance(one, Start)}
    starting = [starts[job] for job in jobs if job in starts]
    left = [job for job in jobs if job not in starts]
    reason = decided.reasons.get(left[0]) if left else None
    if reason is None and len(starting) < candidate.elements:
        reason = f"{count(len(starting), 'job')} of it at a time"  # or no more were looked at
    return Verdict(
        elements=candidate.elements,
        starting=len(starting),
        gpus=tuple(uuid for one in starting for uuid in one.gpus),
        reason=reason,
        expected=foreseen.starts.get(left[0]) if left else None,
    )


def _waits_for(job: WaitingJob, now: Snapshot) -> tuple[int, ...]:
    """Those that run of which it would be enough that one ended."""
    world = _with(now, [job])
    running = world.active[:MOST_TRIED]
    return tuple(one.id for one in running if _starts_without(one.id, job.id, world))


def _starts_without(gone: int, job: int, world: Snapshot) -> bool:
    without = replace(
        world,
        active=tuple(one for one in world.active if one.id != gone),
        leases=tuple(one for one in world.leases if one.job != gone),
    )
    decided = plan(without).decisions
    return any(isinstance(one, Start) and one.job == job for one in decided)


def words(verdict: Verdict, gpus: Sequence[Gpu], clock: str | None = None) -> str:
    """The verdict as a sentence: "would start now on GPUs 4,5", "10 jobs: would start 4 now …". `clock`
    is when it is expected to start as a clock shows it."""
    many = f"{count(verdict.elements, 'job')}: " if verdict.elements > 1 else ""
    return many + _sentence(verdict, gpus, clock)


def _sentence(verdict: Verdict, gpus: Sequence[Gpu], clock: str | None) -> str:
    if verdict.is_skipped:
        return f"would be skipped: {verdict.reason}"
    if not verdict.starting:
        return _would_wait(verdict, clock)
    where = f"now{_on(verdict.gpus, gpus)}"
    if verdict.starting == verdict.elements:
        return f"would start {where}"
    return f"would start {verdict.starting} {where}; the others would wait: {verdict.reason}"


def _would_wait(verdict: Verdict, clock: str | None) -> str:
    whom = " or ".join(map(str, verdict.waits_for[:MOST_NAMED]))
    said = f"would wait{f' for {whom}' if whom else ''}: {verdict.reason}"
    if clock is None or verdict.expected is None:
        return said
    basis = f" ({verdict.expected.words})" if verdict.expected.words else ""
    return f"{said}; expected start ~{clock}{basis}"


def _on(uuids: Sequence[str], gpus: Sequence[Gpu]) -> str:
    known: Mapping[str, Gpu] = {gpu.uuid: gpu for gpu in gpus}
    indices = sorted({known[uuid].index for uuid in uuids if uuid in known})
    if not indices:
        return ""
    kind = "simulated GPU" if all(known[uuid].simulated for uuid in uuids) else "GPU"
    return f" on {name_gpus(indices, kind)}"
