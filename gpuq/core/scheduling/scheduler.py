"""What to do now: `plan(snapshot)`.

The rooms beside decide one thing each: what a job is ended for (`ending`), what a GPU is given on
for (`cooling`, `breaker`), who goes first (`precedence`, `fair_share`), who may start (`walk`) and what
that may cost those who wait (`protection`).
"""

from collections.abc import Sequence
from dataclasses import replace

from gpuq.core.decisions import Cancel, CountWait, Decision, Plan, Release, Requeue, Undelay
from gpuq.core.ends.ending import plan_endings
from gpuq.core.gpus.breaker import once_decided, plan_health
from gpuq.core.gpus.cooling import plan_releases
from gpuq.core.model import DelayedJob, Snapshot
from gpuq.core.scheduling.judging import judge_needs
from gpuq.core.scheduling.queues import with_priorities
from gpuq.core.scheduling.reasons import standstill
from gpuq.core.scheduling.reservations import next_change
from gpuq.core.scheduling.walk import Walk


def plan(snapshot: Snapshot) -> Plan:
    """The decisions for this moment, a reason for each job left waiting, and the next deadline."""
    snapshot = with_priorities(snapshot)
    cancels = [
        Cancel(job=j.id, last=j.last, actor=j.stop.actor) for j in snapshot.waiting if j.stop
    ]
    still_delayed = [j for j in snapshot.delayed if not _is_due(j, snapshot)]
    undelays = [Undelay(job=j.id) for j in snapshot.delayed if _is_due(j, snapshot)]
    requeues = [Requeue(job=job) for job in snapshot.to_requeue]
    judged = judge_needs(snapshot.touched_needs)
    endings, ending_deadlines = plan_endings(snapshot)
    releases, release_deadlines = plan_releases(snapshot)
    released = _once_released(snapshot, releases)
    health, test_deadlines = plan_health(released)
    walk = Walk(once_decided(released, health))
    # Whose delay is over is back in line, and may come before all who are seen: look again. So it is
    # with whoever is put back, and whoever waited for what has come.
    if not (undelays or requeues or judged):
        walk.through_all()
    moved: list[Decision] = [*judged, *cancels, *requeues, *undelays]
    ended = [*endings, *walk.preemption.signals]
    decisions = [*moved, *ended, *releases, *health, *walk.falls, *walk.starts, *_clocked(walk)]
    return Plan(
        decisions=tuple(decisions),
        reasons=walk.reasons,
        heads=walk.heads,
        wake_at=min([*ending_deadlines, *release_deadlines, *walk.wakes()], default=None),
        undelay_at=min([*_moments(still_delayed), *test_deadlines], default=None),
        wall_at=min([*_moments(still_delayed, by_wall=True), *_bounds(snapshot)], default=None),
        standstill=standstill(snapshot),
    )


def _clocked(walk: Walk) -> list[Decision]:
    """Those that start now have not waited."""
    started = {start.job for start in walk.starts}
    return [CountWait(job=job) for job in walk.snapshot.to_clock if job not in started]


def _moments(delayed: Sequence[DelayedJob], *, by_wall: bool = False) -> list[float]:
    return [job.until for job in delayed if job.by_wall is by_wall]


def _bounds(snapshot: Snapshot) -> list[float]:
    """When a reservation begins or ends, where that matters to anybody."""
    at = next_change(snapshot.reservations, snapshot.wall) if snapshot.waiting else None
    return [] if at is None else [at]


def _is_due(job: DelayedJob, snapshot: Snapshot) -> bool:
    return job.until <= (snapshot.wall if job.by_wall else snapshot.boottime)


def _once_released(snapshot: Snapshot, releases: Sequence[Decision]) -> Snapshot:
    """What cools no longer is there for whoever is first in line, before a later one takes a part
    of it: releases come before starts."""
    released = {(one.gpu, one.slot) for one in releases if isinstance(one, Release)}
    left = (lease for lease in snapshot.leases if (lease.gpu, lease.slot) not in released)
    return replace(snapshot, leases=tuple(left)) if released else snapshot
