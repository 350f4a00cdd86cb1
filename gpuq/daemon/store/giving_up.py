"""Groups whose jobs only fail: what waits of them is not begun. Written by the loop, in the transaction
of the end that decides it, so that no job of such a group starts in between."""

from gpuq.core.events import GPUQ
from gpuq.core.model import Outcome
from gpuq.core.results.giving_up import FAILURES, is_given_up, why_given_up
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.happened import Happened


class GivingUp:
    def __init__(self, db: Database, happened: Happened) -> None:
        self._db = db
        self._happened = happened

    def heed(self, job: int, outcome: Outcome, *, now: float) -> list[range]:
        """The end of this job may be one too many for its group. Returns the jobs that were cancelled
        for it. Costs as much as there are failures up to those that it takes, and rows that wait."""
        group = self._group_of(job) if outcome in FAILURES else None
        if group is None:
            return []
        group_id, stop_after = group["id"], group["stop_after"]
        has_succeeded = self._has_succeeded(group_id)
        failed = 0 if has_succeeded else self._failed(group_id, stop_after)
        if not is_given_up(stop_after, failed=failed, succeeded=has_succeeded):
            return []
        why = why_given_up(group_id, stop_after, failed)
        with self._db.transaction():
            waiting = self._waiting(group_id)
            for span in waiting:
                self._happened.cancel(span[0], last=span[-1], actor=GPUQ, now=now, why=why)
        return waiting

    def _group_of(self, job: int) -> Row | None:
        """Of a job that failed; None where its group does not mind that."""
        return self._db.row(
            f"""
            select g.id, g.stop_after from jobs j join groups g on g.id = j.group_id
            where j.id = ? and j.outcome in ({_FAILURES}) and g.stop_after is not null
            """,
            (job,),
        )

    def _failed(self, group: int, most: int) -> int:
        """Counted up to `most`."""
        sql = f"""
            select count(*) from (
              select 1 from jobs indexed by jobs_group
              where group_id = ? and state = 'ended' and outcome in ({_FAILURES}) limit ?)
        """
        return int(self._db.value(sql, (group, most)))

    def _has_succeeded(self, group: int) -> bool:
        sql = """
            select 1 from jobs indexed by jobs_group
            where group_id = ? and state = 'ended' and outcome = ? limit 1
        """
        return self._db.value(sql, (group, Outcome.SUCCEEDED.value)) is not None

    def _waiting(self, group: int) -> list[range]:
        sql = """
            select id, last_id from jobs indexed by jobs_group
            where group_id = ? and state = 'queued' order by id
        """
        return [range(row["id"], row["last_id"] + 1) for row in self._db.rows(sql, (group,))]


_FAILURES = ", ".join(f"'{outcome}'" for outcome in FAILURES)
