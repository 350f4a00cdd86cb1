"""What an earlier daemon left: attempts whose truth has to be found, waits on the clocks of an earlier
boot, steps that were noted and perhaps not taken, control groups of nobody.
"""

import os
from collections.abc import Callable
from signal import SIGTERM

import structlog

from gpuq.config import Config
from gpuq.core.model import EndCause, Exit, JobState
from gpuq.core.scheduling.preemption import preempt_signal
from gpuq.core.states import may_have_gone_with_host
from gpuq.daemon.attempt import record
from gpuq.daemon.clock import Clock
from gpuq.daemon.linux import cgroup, processes
from gpuq.daemon.starting import known_as, uid_of_job
from gpuq.daemon.store import Store
from gpuq.daemon.store.happened import Delay
from gpuq.daemon.store.inherited import UnendedAttempt
from gpuq.daemon.supervisor import Exited, News, Supervisor, read_exit

log = structlog.get_logger()


class Inheritance:
    """`hear` gets what is plain at once, as news."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        supervisor: Supervisor,
        hear: Callable[[News], None],
        cgroup_root: str | None,
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._supervisor = supervisor
        self._hear = hear
        self._cgroup_root = cgroup_root
        self._boot_id = processes.boot_id()

    def take_over(self) -> None:
        """Needs the supervisor at work."""
        self._leave_earlier_boots()
        self._resolve_attempts()

    def sweep_groups(self) -> None:
        """Control groups of runners that died beside their daemon."""
        if self._cgroup_root is not None:
            left = [one.cgroup for one in self._store.inherited.unended_attempts() if one.cgroup]
            cgroup.sweep(self._cgroup_root, {os.path.basename(path) for path in left})

    def _leave_earlier_boots(self) -> None:
        """After a restart of the machine every GPU is cool, and waits go on by the wall clock, which
        alone has gone on; by no more than they were long, should somebody have set it. A wait for GPUs
        begins anew."""
        self._store.falling.forget_waits(self._boot_id)
        for lease in self._store.inherited.stale_cooling(self._boot_id):
            self._store.machine.release(lease.gpu, lease.slot, now=self._clock.wall())
        for job, until_at, length_s in self._store.inherited.stale_delays(self._boot_id):
            left_s = min(max(until_at - self._clock.wall(), 0.0), length_s)
            boottime = self._clock.boottime() + left_s
            delay = Delay(boottime=boottime, boot_id=self._boot_id, at=until_at)
            self._store.happened.delay_anew(job, delay)

    def _resolve_attempts(self) -> None:
        """Each attempt that has not ended is alive and adopted, or ended, or lost, or never ran.

        The supervisor finds out which; only a reboot is plain from here.
        """
        for left in self._store.inherited.unended_attempts():
            if left.boot_id != self._boot_id:
                self._hear(self._end_of_earlier_boot(left))
            else:
                taken_over = "it runs on, taken over from an earlier daemon"
                log.info(taken_over, job=left.job, attempt=left.attempt)
                has_run = left.state is JobState.RUNNING
                uid = uid_of_job(self._config, left.uid)
                self._supervisor.adopt(known_as(left, left.stop_to, uid=uid, has_run=has_run))

    def _end_of_earlier_boot(self, left: UnendedAttempt) -> Exited:
        """What its runner wrote down as the machine went down, if it came to that. Whoever was told to
        end then has not ended by itself, however well it went."""
        folder = self._supervisor.attempt_dir(left.job, left.attempt)
        told = record.read(folder, left.nonce)
        if told is None:
            exit = Exit(lost="the machine was restarted while it ran")
            return Exited(job=left.job, attempt=left.attempt, exit=exit)
        exit = read_exit(told)
        was_told = may_have_gone_with_host(exit) or record.was_told_to_end(told)
        ending = EndCause.SHUTDOWN if was_told else None
        return Exited(job=left.job, attempt=left.attempt, exit=exit, ending=ending)

    def do_again_what_was_noted(self) -> None:
        """A step is noted before it is taken, and a daemon may have died in between. Taken twice, a
        TERM or a pause does no harm; a KILL comes again by itself."""
        table = processes.Table()
        for job in self._store.current.active():
            if job.term_sent_at is not None and not job.term_delivered and job.kill_sent_at is None:
                gives_way = job.ending is EndCause.PREEMPTED
                number = preempt_signal(job, self._config.policy()) if gives_way else SIGTERM
                if job.ending is not None:
                    within_s = job.grace_s if job.stop is None else job.stop.grace_s
                    self._supervisor.mark_ending(job.id, job.ending, within_s)
                self._supervisor.signal(job.id, number, table, only_main=gives_way)
            elif job.paused_since is not None:
                self._supervisor.pause(job.id)
