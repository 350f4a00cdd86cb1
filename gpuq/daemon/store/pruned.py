"""What is kept of jobs that have ended, and for how long: their files, their rows, what else grows old.

The loop alone writes here. Each method is bounded, so that no turn has to wait for it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gpuq.core.units import format_ranges
from gpuq.daemon.store.asked import LAST_ID
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.events import record_event

EVENTS_PRUNED_TO = "events_pruned_to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a job that has ended may have left on disk."""

    id: int
    attempts: int
    files_bytes: int | None = None  # None: not yet measured
    outputs: bool = False  # those are to go too
    actor: str | None = None  # who wants it forgotten


class Pruned:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ── files ──

    def unmeasured(self, limit: int) -> list[Remains]:
        sql = """
            select id, attempt as attempts from jobs indexed by jobs_unmeasured
            where state = 'ended' and files_bytes is null order by id limit ?
        """
        return [Remains(**row) for row in self._db.rows(sql, (limit,))]

    def measured(self, sizes: Mapping[int, int]) -> None:
        """How many bytes of files each job has left, of those that are gpuq's to remove."""
        with self._db.transaction():
            for job, size in sizes.items():
                self._db.write("update jobs set files_bytes = ? where id = ?", (size, job))

    def files_total(self) -> int:
        """Bytes of files that are there. Costs as much as there are jobs with files."""
        sql = f"select coalesce(sum(files_bytes), 0) from jobs indexed by jobs_with_files {_WITH_FILES}"
        return int(self._db.value(sql))

    def oldest_files(self, limit: int, *, but: Collection[int] = ()) -> list[Row]:
        """id, attempts, files_bytes and ended_at of jobs with files, what ended first at the front."""
        sql = f"""
            select id, attempt as attempts, files_bytes, ended_at
            from jobs indexed by jobs_with_files {_WITH_FILES}
              and id not in (select value from json_each(?))
            order by ended_at limit ?
        """
        return self._db.rows(sql, (json.dumps(list(but)), limit))

    def files_removed(self, sizes: Mapping[int, int], *, cause: str, now: float) -> None:
        """Their logs and records are gone; the rows stay, as history."""
        with self._db.transaction():
            for job in sizes:
                self._db.write("update jobs set files_removed_at = ? where id = ?", (now, job))
            detail = {"jobs": format_ranges(list(sizes)), "bytes": sum(sizes.values())}
            record_event(self._db, now, "files_removed", cause=cause, detail=detail)

    def lost_attempts(self, jobs: Collection[int]) -> list[Row]:
        """job, attempt and nonce of attempts of these jobs whose runner could not clean up."""
        sql = """
            select job, attempt, nonce from attempts
            where job in (select value from json_each(?)) and lost is not null
        """
        return self._db.rows(sql, (json.dumps(list(jobs)),))

    # ── what else grows old ──

    def forget_tokens(self, before: float, limit: int) -> int:
        with self._db.transaction():
            return self._db.write(
                """
                delete from tokens where (uid, token) in
                  (select uid, token from tokens where at < ? order by at limit ?)
                """,
                (before, limit),
            )

    def forget_environments(self, limit: int) -> int:
        """Those that no job has any more."""
        with self._db.transaction():
            return self._db.write(
                """
                delete from environments where (uid, hash) in (
                  select uid, hash from environments e where not exists
                    (select 1 from specs s where s.uid = e.uid and s.environment = e.hash)
                  limit ?)
                """,
                (limit,),
            )

    def prune_events(self, before: float, limit: int) -> int:
        """Removes the first events, up to one that is younger; what is left has no gaps. How far it
        came stands in the facts, for who comes with a cursor from before, and for `check`."""
        with self._db.transaction():
            first = self._db.rows("select seq, at from events order by seq limit ?", (limit,))
            old = _leading(first, before)
            if not old:
                return 0
            self._db.write("delete from events where seq <= ?", (old[-1]["seq"],))
            known = self._db.value("select value from facts where name = ?", (EVENTS_PRUNED_TO,))
            latest = max(row["at"] for row in old)
            if known is not None:
                latest = max(latest, json.loads(known)["at"])
            self._db.write(
                "insert into facts (name, value) values (?, ?) "
                "on conflict (name) do update set value = excluded.value",
                (EVENTS_PRUNED_TO, json.dumps({"seq": old[-1]["seq"], "at": latest})),
            )
        return len(old)

    # ── jobs that are to be forgotten ──

    def wished(self, limit: int) -> list[Remains]:
        """Jobs that somebody wants forgotten; one whose GPU still cools down waits for that."""
        sql = f"""
            select id, attempt as attempts, prune_outputs as outputs, prune_actor as actor,
                   case when files_removed_at is null then files_bytes else 0 end as files_bytes
            from jobs indexed by jobs_to_prune
            where prune_asked_at is not null and {_NOT_TRIED}
              and not exists (select 1 from leases l where l.job = jobs.id)
            order by id limit ?
        """
        rows = self._db.rows(sql, (limit,))
        return [Remains(**row | {"outputs": bool(row["outputs"])}) for row in rows]

    def forget(self, jobs: Sequence[Remains], sizes: Mapping[int, int], *, now: float) -> None:
        """Their files are gone; now their rows go, and the event stays. Ids are never given again."""
        with self._db.transaction():
            for job in jobs:
                self._forget_one(job.id)
            for actor in sorted({job.actor or "somebody" for job in jobs}):
                ids = [job.id for job in jobs if (job.actor or "somebody") == actor]
                freed = sum(sizes.get(job, 0) for job in ids)
                detail = {"jobs": format_ranges(ids), "count": len(ids), "bytes": freed}
                record_event(self._db, now, "pruned", actor=actor, detail=detail)

    def not_forgotten(self, job: int, trouble: str, *, now: float) -> None:
        """What it left could not be removed, so it stays; asking again tries again."""
        with self._db.transaction():
            self._db.write(
                "update jobs set prune_failed_for = prune_asked_at, prune_trouble = ? where id = ?",
                (trouble, job),
            )
            record_event(self._db, now, "prune_failed", job=job, cause=trouble)

    def _forget_one(self, job: int) -> None:
        spec = self._db.value("select spec from jobs where id = ?", (job,))
        self._db.write("delete from signals where job = ?", (job,))
        self._db.write("delete from attempts where job = ?", (job,))
        self._db.write("delete from jobs where id = ?", (job,))
        self._db.write(
            "delete from specs where id = ? and not exists (select 1 from jobs where spec = specs.id)",
            (spec,),
        )
        self._note_id(job)

    def _note_id(self, job: int) -> None:
        """Joined with its neighbours, so that these rows remain few."""
        before = self._db.row(
            "select first, last from pruned where first <= ? order by first desc limit 1", (job,)
        )
        after = self._db.row("select first, last from pruned where first = ?", (job + 1,))
        first = before["first"] if before and before["last"] == job - 1 else job
        last = after["last"] if after else job
        self._db.write("delete from pruned where first in (?, ?)", (first, job + 1))
        self._db.insert("pruned", {"first": first, "last": last})

    def skip_ids(self, up_to: int, *, now: float) -> int:
        """Makes sure that no id up to that is given out any more; returns how many that is new for.
        An older database that was put back does not know of the jobs that came after it."""
        with self._db.transaction():
            first = 1 + int(self._db.value(LAST_ID) or 0)
            if first > up_to:
                return 0
            if not self._db.write(
                "update sqlite_sequence set seq = ? where name = 'jobs'", (up_to,)
            ):
                self._db.write(
                    "insert into sqlite_sequence (name, seq) values ('jobs', ?)", (up_to,)
                )
            self._db.insert("pruned", {"first": first, "last": up_to})
            cause = "folders of such jobs are there, and nothing is known of them"
            detail = {"jobs": f"{first}-{up_to}"}
            record_event(self._db, now, "ids_skipped", cause=cause, detail=detail)
        return up_to - first + 1

    # ── for people ──

    def choose(
        self,
        *,
        spans: Sequence[range] | None = None,
        uid: int | None,
        outcomes: Sequence[str] = (),
        ended_before: float | None = None,
        keep: int = 0,
        after: int = 0,
        limit: int,
    ) -> list[Row]:
        """Ended jobs that these words mean, by id from `after` on: with such ids, of one user or
        (None) of all, with one of these outcomes, ended before that time; the newest `keep` of them
        excepted."""
        clauses = ["j.state = 'ended'"]
        if spans is not None:
            clauses.append(_IN_SPANS)
        if uid is not None:
            clauses.append("s.uid = :uid")
        if outcomes:
            clauses.append("j.outcome in (select value from json_each(:outcomes))")
        if ended_before is not None:
            clauses.append("j.ended_at < :ended_before")
        wanted = {
            "spans": json.dumps([(span.start, span.stop - 1) for span in spans or ()]),
            "uid": uid,
            "outcomes": json.dumps(list(outcomes)),
            "ended_before": ended_before,
        }
        ended = f"from jobs j join specs s on s.id = j.spec where {' and '.join(clauses)}"
        if keep:
            newest = f"select j.id {ended} order by j.id desc limit 1 offset :keep"
            last = self._db.value(newest, wanted | {"keep": keep})
            if last is None:
                return []
            ended += f" and j.id <= {int(last)}"
        page = f"{_PRUNABLE_COLUMNS} {ended} and j.id > :after order by j.id limit :limit"
        return self._db.rows(page, wanted | {"after": after, "limit": limit})

    def pending(self, uid: int | None) -> int:
        """How many jobs are still to be forgotten."""
        sql = f"""
            select count(*) from jobs indexed by jobs_to_prune join specs s on s.id = jobs.spec
            where prune_asked_at is not null and {_NOT_TRIED} and (? is null or s.uid = ?)
        """
        return int(self._db.value(sql, (uid, uid)))

    def troubles(self, uid: int | None) -> list[Row]:
        """id and trouble of jobs that were to be forgotten, and could not be."""
        sql = """
            select jobs.id, prune_trouble as trouble
            from jobs indexed by jobs_to_prune join specs s on s.id = jobs.spec
            where prune_asked_at is not null and prune_failed_for = prune_asked_at
              and (? is null or s.uid = ?)
            order by jobs.id
        """
        return self._db.rows(sql, (uid, uid))


_IN_SPANS = """
j.id in (
  select k.id from json_each(:spans) span
  cross join jobs k on k.id between span.value ->> 0 and span.value ->> 1
)
"""
_WITH_FILES = "where files_bytes > 0 and files_removed_at is null"
_NOT_TRIED = "(prune_failed_for is null or prune_failed_for <> prune_asked_at)"
_PRUNABLE_COLUMNS = """
select j.id, s.uid, s.user, s.name, j.state, j.outcome, j.ended_at, j.attempt, j.files_bytes,
       j.files_removed_at
"""


def _leading(events: Sequence[Row], before: float) -> list[Row]:
    old: list[Row] = []
    for row in events:
        if row["at"] >= before:
            break
        old.append(row)
    return old
