"""What a daemon takes over from the one before it, and from before the machine was restarted."""

from dataclasses import dataclass

from gpuq.core.model import JobState, Lease
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.values import lease


@dataclass(frozen=True, slots=True, kw_only=True)
class UnendedAttempt:
    """An attempt that a daemon finds when it starts, and must find the truth about."""

    job: int
    attempt: int
    state: JobState
    nonce: str
    boot_id: str
    runner_pid: int
    runner_start: int
    cgroup: str | None
    stop_to: str
    uid: int  # the submitter's


class Inherited:
    def __init__(self, db: Database) -> None:
        self._db = db

    def unended_attempts(self) -> list[UnendedAttempt]:
        rows = self._db.rows(
            """
            select a.job, a.attempt, j.state, a.nonce, a.boot_id, a.runner_pid, a.runner_start,
                   a.cgroup, s.stop_to, s.uid
            from jobs j indexed by jobs_active
            join specs s on s.id = j.spec
            join attempts a on a.job = j.id and a.attempt = j.attempt
            where j.state in ('starting', 'running')
            """
        )
        return [UnendedAttempt(**row | {"state": JobState(row["state"])}) for row in rows]

    def stale_cooling(self, boot_id: str) -> list[Lease]:
        """Cooling leases of an earlier boot: after a restart every GPU is cool."""
        sql = "select * from leases where state <> 'active' and cooling_boot <> ?"
        return [lease(row) for row in self._db.rows(sql, (boot_id,))]

    def stale_delays(self, boot_id: str) -> list[tuple[int, float, float]]:
        """(job, until on the wall clock, its length in s) of each wait of an earlier boot."""
        rows = self._db.rows(
            """
            select j.id, j.delayed_until_at as until_at,
              j.delayed_until_at
                - case delayed_for when 'begin' then j.submitted_at else a.ended_at end as length_s
            from jobs j indexed by jobs_delayed
            left join attempts a on a.job = j.id and a.attempt = j.attempt
            where j.delayed_until_boottime is not null and j.state = 'queued'
              and j.delayed_boot <> ?
            """,
            (boot_id,),
        )
        return [(row["id"], row["until_at"], max(row["length_s"], 0.0)) for row in rows]
