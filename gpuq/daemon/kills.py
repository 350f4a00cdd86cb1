"""KILL to jobs that somebody wishes gone without a grace, ahead of the turn that follows from it.

Of what a turn would decide for them, only this is done here, and in the same order: noted before it is
taken, though with the wish itself, in one commit. All the rest, KILL to those who are in no group among
it, is the turn's, for which a noted KILL is one that an earlier daemon may not have sent.

Part of the loop and on its thread.
"""

from collections.abc import Collection, Sequence
from signal import SIGKILL

from gpuq.core.decisions import Signal
from gpuq.core.ends.ending import plan_endings
from gpuq.core.model import ActiveJob, Snapshot
from gpuq.daemon import faults
from gpuq.daemon.bell import Bell
from gpuq.daemon.clock import Clock
from gpuq.daemon.store import Store
from gpuq.daemon.supervisor import Supervisor


class Kills:
    def __init__(self, store: Store, clock: Clock, supervisor: Supervisor, bell: Bell) -> None:
        self._store = store
        self._clock = clock
        self._supervisor = supervisor
        self._bell = bell

    def note(self, jobs: Collection[int]) -> list[Signal]:
        """Notes what is due at once of these jobs' ends, and returns it. Stands in the transaction of
        the wish that they are gone."""
        if not jobs:
            return []
        active = [job for job in self._store.current.active() if job.id in jobs]
        kills = due_at_once(active, self._clock.monotonic())
        for kill in kills:
            self._note(kill)
        return kills

    def _note(self, kill: Signal) -> None:
        now, mono = self._clock.wall(), self._clock.monotonic()
        assert kill.ends is not None
        self._store.happened.stop_step(
            kill.job, kill.attempt, kill=True, cause=kill.ends, mono=mono, now=now
        )

    def strike(self, kills: Sequence[Signal]) -> None:
        """What was noted is committed by now. Who had a group has died with it, or is about to: the
        turn leaves them the time for that, and looks for others of theirs after it."""
        have_died = [self._strike(kill) for kill in kills]
        if kills:
            faults.here("kill.struck")
        if kills and all(have_died):
            self._bell.wake_soon()
        else:
            self._bell.wake()

    def _strike(self, kill: Signal) -> bool:
        """Its runner is told first, where it looks for that, which is for a command of the job's. To
        make a file just after a commit takes longer than all else here."""
        assert kill.ends is not None
        if self._store.agreed.to_run(kill.job)["on_kill"] is not None:
            self._supervisor.mark_ending(kill.job, kill.ends, within_s=0.0)
        return self._supervisor.kill_group(kill.job)


def due_at_once(active: Sequence[ActiveJob], now: float) -> list[Signal]:
    """The KILL of those that run, if that is the first thing to be done for them. Who is about to start
    has no processes to which it could go."""
    jobs = tuple(job for job in active if job.running_since is not None and not job.signal_wishes)
    decisions, _ = plan_endings(Snapshot(now=now, gpus=None, active=jobs))
    killed = {job.id for job in jobs if job.kill_sent_at is not None}
    return [
        one
        for one in decisions
        if isinstance(one, Signal) and one.signal == SIGKILL and one.job not in killed
    ]
