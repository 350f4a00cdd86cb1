"""What each user has had of the GPUs: one figure that fades, carried on whenever an attempt ends.
Written by the loop alone."""

from gpuq.core.scheduling.fair_share import faded, fading_use
from gpuq.daemon.store.connection import Database, Row


class Shares:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, job: int, attempt: int, *, half_life_s: float) -> None:
        """Counts an attempt that has ended, in the transaction of that. One that had no GPU, or never
        ran, counts nothing."""
        had = self._db.row(
            """
            select s.uid, s.user, json_array_length(a.gpus, '$.uuids') as gpus,
                   a.ended_at - a.started_at as seconds, a.ended_at, k.gpu_s as had_s, k.at as had_at
            from attempts a join jobs j on j.id = a.job join specs s on s.id = j.spec
            left join shares k on k.uid = s.uid
            where a.job = ? and a.attempt = ? and a.started_at is not null
              and a.ended_at is not null
            """,
            (job, attempt),
        )
        if had is None or not had["gpus"]:
            return
        used = fading_use(had["gpus"], had["seconds"], half_life_s)
        at = had["ended_at"] if had["had_at"] is None else max(had["had_at"], had["ended_at"])
        total = faded(used, at - had["ended_at"], half_life_s)
        if had["had_at"] is not None:
            total += faded(had["had_s"], at - had["had_at"], half_life_s)
        with self._db.transaction():
            self._db.write(
                """
                insert into shares (uid, user, gpu_s, at) values (:uid, :user, :gpu_s, :at)
                on conflict (uid) do update set
                  user = excluded.user, gpu_s = excluded.gpu_s, at = excluded.at
                """,
                {"uid": had["uid"], "user": had["user"], "gpu_s": total, "at": at},
            )

    def by_user(self, wall: float, half_life_s: float) -> dict[int, float]:
        """GPU-seconds by uid, as far as they have faded by now, with what runs counted up to now."""
        had = {
            row["uid"]: faded(row["gpu_s"], wall - row["at"], half_life_s)
            for row in self._db.rows("select uid, gpu_s, at from shares")
        }
        for row in self._db.rows(_RUNNING):
            used = fading_use(row["gpus"], wall - row["started_at"], half_life_s)
            had[row["uid"]] = had.get(row["uid"], 0.0) + used
        return had

    def users(self) -> dict[int, str]:
        """The names of all who have ever had a GPU, by uid."""
        return {row["uid"]: row["user"] for row in self._db.rows("select uid, user from shares")}

    def running(self) -> list[Row]:
        """uid, user, jobs and GPUs of each user who has some running."""
        return self._db.rows(
            """
            select s.uid, s.user, count(*) as jobs,
                   coalesce(sum(json_array_length(a.gpus, '$.uuids')), 0) as gpus
            from jobs j indexed by jobs_active join specs s on s.id = j.spec
            join attempts a on a.job = j.id and a.attempt = j.attempt
            where j.state in ('starting', 'running') group by s.uid
            """
        )


_RUNNING = """
select s.uid, json_array_length(a.gpus, '$.uuids') as gpus, a.started_at
from jobs j indexed by jobs_active join specs s on s.id = j.spec
join attempts a on a.job = j.id and a.attempt = j.attempt
where j.state in ('starting', 'running') and a.started_at is not null
"""
