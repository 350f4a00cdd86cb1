"""The world as a turn sees it: what is stored, what was read of the GPUs, and what only this daemon
knows, as one Snapshot. Part of the loop and on its thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gpuq.core.gpus.gpu import Gpu
from gpuq.core.hours import is_within
from gpuq.core.model import ActiveJob, Closing, GpuHealth, Limit, Snapshot, WaitingJob
from gpuq.core.policy import Policy
from gpuq.daemon.chronicle import Chronicle
from gpuq.daemon.clock import Clock
from gpuq.daemon.deeds import Deeds
from gpuq.daemon.health import HealthWatch
from gpuq.daemon.lookout import Lookout
from gpuq.daemon.memory_watch import MemoryWatch
from gpuq.daemon.recent_starts import RecentStarts
from gpuq.daemon.requests.reserving import read_reservations
from gpuq.daemon.store import Store
from gpuq.daemon.supervisor import Supervisor

JOBS_PER_CLASS = 4  # seen of each class in one turn


class Survey:
    """`wake_in` rings after so many seconds, where a moment comes that no plan can name."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        policy: Callable[[], Policy],
        *,
        lookout: Lookout,
        health: HealthWatch,
        memory: MemoryWatch,
        supervisor: Supervisor,
        deeds: Deeds,
        recent: RecentStarts,
        chronicle: Chronicle,
        wake_in: Callable[[float], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy  # asked each time: settings change while we live
        self._lookout = lookout
        self._health = health
        self._memory = memory
        self._supervisor = supervisor
        self._deeds = deeds
        self._recent = recent
        self._chronicle = chronicle
        self._wake_in = wake_in
        self._beats: dict[tuple[int, int], float] = {}  # by job and attempt

    def take(self, closing: Closing | None) -> Snapshot:
        current = self._store.current
        now, wall, policy = self._clock.monotonic(), self._clock.wall(), self._policy()
        health = self._health.known()
        seldom = current.seldom()
        waiting = tuple(current.waiting(JOBS_PER_CLASS, to_cancel=seldom["to_cancel"]))
        return Snapshot(
            now=now,
            boottime=self._clock.boottime(),
            wall=wall,
            gpus=self.gpus(health),
            health=health,
            leases=tuple(current.leases()),
            waiting=waiting,
            active=tuple(self._with_signs(job, now) for job in current.active()),
            delayed=tuple(current.delayed()) if seldom["delayed"] else (),
            reservations=read_reservations(self._store.reserved.open(wall), wall),
            to_requeue=current.to_requeue() if seldom["to_requeue"] else (),
            to_clock=self._store.falling.to_clock() if seldom["to_clock"] else (),
            touched_needs=tuple(self._store.needs.touched()) if seldom["touched"] else (),
            drain=current.drain(),
            closing=closing,
            start_trouble=self._start_trouble(now),
            policy=policy,
            jobs_per_class=JOBS_PER_CLASS,
            gpus_read_at=self._lookout.read_at,
            gpu_trouble=self._lookout.trouble,
            kept_idle=self._kept_idle(),
            limits=self._limits(waiting),
            recent_starts=self._recent.as_of(now, policy),
            usage=self._usage(wall, policy),
        )

    def gpus(self, health: Sequence[GpuHealth]) -> tuple[Gpu, ...] | None:
        """As they were last read, without those that are not given out; None before the first time."""
        return self._health.barred(self._lookout.gpus, health, self._policy())

    def forget(self, job: int, attempt: int) -> None:
        """It is over."""
        self._beats.pop((job, attempt), None)

    def _limits(self, waiting: Sequence[WaitingJob]) -> tuple[Limit, ...]:
        """Those that hold for somebody who waits."""
        limited = self._store.limited
        groups = {job.group for job in waiting if job.group is not None}
        return (*limited.of_users_and_tags(), *(limited.of_groups(groups) if groups else ()))

    def _usage(self, wall: float, policy: Policy) -> Mapping[int, float]:
        """What each user has had of the GPUs, where that counts."""
        if not policy.fair_share:
            return {}
        return self._store.shares.by_user(wall, policy.fair_share_half_life_s)

    def _kept_idle(self) -> int:
        """How many GPUs are left to others at this time of the week."""
        policy = self._policy()
        if policy.reserve_hours and not is_within(policy.reserve_hours, *self._clock.local()):
            return 0
        return policy.reserve_idle

    def _start_trouble(self, now: float) -> str | None:
        """The machine had no room for a job to begin; it is tried again after a while."""
        if self._chronicle.start_trouble is None:
            return None
        why, until = self._chronicle.start_trouble
        if now >= until:
            self._chronicle.start_trouble = None
            return None
        self._wake_in(until - now)
        return why

    def _with_signs(self, job: ActiveJob, now: float) -> ActiveJob:
        """With what only this daemon knows: when it last killed, whether the job uses too much of a
        GPU, and when it last reported. That is looked up only once its silence would be too long."""
        key = job.id, job.attempt
        last_kill_at, beat_at = self._deeds.last_kills.get(key), self._beats.get(key)
        over_memory, used = self._lookout.usage.over_memory(*key), self._memory.used(*key)
        if any(sign is not None for sign in (last_kill_at, beat_at, over_memory, used)):
            job = replace(
                job,
                last_kill_at=last_kill_at,
                beat_at=beat_at,
                over_memory=over_memory,
                mem_used_bytes=used,
            )
        if job.heartbeat_s is None or job.running_since is None:
            return job
        if now < max(job.running_since, job.beat_at or 0.0) + job.heartbeat_s:
            return job
        beat = self._supervisor.last_beat(job.id)
        if beat is not None:
            self._beats[key] = beat
        return replace(job, beat_at=beat)
