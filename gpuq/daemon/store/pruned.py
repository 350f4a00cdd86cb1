"""What is kept of jobs that have ended, and for how long: their files, their rows, what else grows old.

The loop alone writes here. Each method is bounded, so that no turn has to wait for it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gpuq.core.units import format_ranges, format_spans
from gpuq.daemon.store.asked import LAST_ID
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import FIRST_IN_SPAN, IN_SPANS, LARGEST, LAST_IN_SPAN
from gpuq.daemon.store.events import record_event
from gpuq.daemon.store.tallies import count_events

EVENTS_PRUNED_TO = "events_pruned_to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a job that has ended may have left on disk, or a run of jobs that never started: nothing."""

    id: int
    attempts: int
    files_bytes: int | None = None  # None: not yet measured
    outputs: bool = False  # those are to go too
    actor: str | None = None  # who wants it forgotten
    came_back: bool = False  # it had ended before, and was run once more


class Pruned:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ── files ──

    def unmeasured(self, limit: int) -> list[Remains]:
        sql = """
            select id, attempt as attempts, requeued_for is not null as came_back
            from jobs indexed by jobs_unmeasured
            where state = 'ended' and files_bytes is null order by id limit ?
        """
        rows = self._db.rows(sql, (limit,))
        return [Remains(**row | {"came_back": bool(row["came_back"])}) for row in rows]

    def measured(self, sizes: Mapping[int, int]) -> None:
        """How many bytes of files each job has left, of those that are gpuq's to remove."""
        with self._db.transaction():
            for job, size in sizes.items():
                self._db.write(
                    "update jobs set files_bytes = ? where id = ? and state = 'ended'", (size, job)
                )

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
                self._db.write(
                    """
                    update jobs set files_removed_at = ?
                    where id = ? and files_bytes is not null  -- it is not run once more meanwhile
                    """,
                    (now, job),
                )
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
        came stands in the facts, for who comes with a cursor from before, and for `check`. They are
        counted first."""
        with self._db.transaction():
            first = self._db.rows("select seq, at from events order by seq limit ?", (limit,))
            old = _leading(first, before)
            if not old:
                return 0
            count_events(self._db, limit, up_to=old[-1]["seq"])
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
        """Jobs that somebody wants forgotten; one whose GPU still cools down waits for that, and one
        that others wait for until it is judged what its end means for them."""
        sql = f"""
            select id, attempt as attempts, prune_outputs as outputs,
                   prune_actor as actor,
                   case when files_removed_at is null then files_bytes else 0 end as files_bytes
            from jobs indexed by jobs_to_prune
            where prune_asked_at is not null and {_NOT_TRIED}
              and not exists (select 1 from leases l where l.job = jobs.id)
              and not exists (select 1 from needs n indexed by needs_touched
                              where n.touched and n.on_first <= jobs.last_id and n.on_last >= jobs.id)
            order by id limit ?
        """
        rows = self._db.rows(sql, (limit,))
        return [Remains(**row | {"outputs": bool(row["outputs"])}) for row in rows]

    def forget(self, jobs: Sequence[Remains], sizes: Mapping[int, int], *, now: float) -> None:
        """Their files are gone; now their rows go, and the event stays. Ids are never given again."""
        with self._db.transaction():
            forgotten = {job.id: self._forget_row(job.id) for job in jobs}
            for actor in sorted({job.actor or "somebody" for job in jobs}):
                theirs = [job for job in jobs if (job.actor or "somebody") == actor]
                runs = [forgotten[job.id] for job in theirs]
                freed = sum(sizes.get(job.id, 0) for job in theirs)
                count = sum(map(len, runs))
                detail = {"jobs": format_spans(runs), "count": count, "bytes": freed}
                record_event(self._db, now, "pruned", actor=actor, detail=detail)

    def not_forgotten(self, job: int, trouble: str, *, now: float) -> None:
        """What it left could not be removed, so it stays; asking again tries again."""
        with self._db.transaction():
            self._db.write(
                "update jobs set prune_failed_for = prune_asked_at, prune_trouble = ? where id = ?",
                (trouble, job),
            )
            record_event(self._db, now, "prune_failed", job=job, cause=trouble)

    def _forget_row(self, job: int) -> range:
        """Returns the jobs of that row, which may be fewer by now: somebody may have split it."""
        row = self._db.row(
            "select last_id, spec, group_id, array_first from jobs where id = ?", (job,)
        )
        assert row is not None
        self._db.write("delete from signals where job = ?", (job,))
        self._db.write("delete from attempts where job = ?", (job,))
        self._db.write(_FORGET_NOTICES, (job,))
        self._db.write("delete from jobs where id = ?", (job,))
        self._forget_needs(row["array_first"] or job)
        self._forget_spec(row["spec"])
        self._forget_group(row["group_id"])
        jobs = range(job, row["last_id"] + 1)
        self._note_ids(jobs)
        return jobs

    def _forget_needs(self, entry: int) -> None:
        """What those waited for of whom nothing is known any more."""
        self._db.write(
            """
            delete from needs where entry = ? and not exists
              (select 1 from jobs j where j.id between needs.first and needs.last)
            """,
            (entry,),
        )

    def _forget_spec(self, spec: int) -> None:
        """With its table of parameters, once no job is of it any more."""
        if not self._db.value("select 1 from jobs where spec = ?", (spec,)):
            self._db.write("delete from parameters where spec = ?", (spec,))
            self._db.write("delete from specs where id = ?", (spec,))

    def _forget_group(self, group: int) -> None:
        if not self._db.value("select 1 from jobs where group_id = ?", (group,)):
            self._db.write("delete from group_spans where group_id = ?", (group,))
            self._db.write("delete from groups where id = ?", (group,))

    def _note_ids(self, jobs: range) -> None:
        """Joined with its neighbours, so that these rows remain few."""
        before = self._db.row(
            "select first, last from pruned where first <= ? order by first desc limit 1",
            (jobs.start,),
        )
        after = self._db.row("select first, last from pruned where first = ?", (jobs.stop,))
        first = before["first"] if before and before["last"] == jobs.start - 1 else jobs.start
        last = after["last"] if after else jobs[-1]
        self._db.write("delete from pruned where first in (?, ?)", (first, jobs.stop))
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
        """Ended jobs that these words mean, as runs of such as are alike, by id from `after` on: with
        such ids, of one user or (None) of all, with one of these outcomes, ended before that time; the
        newest `keep` of them excepted."""
        clauses = ["j.state = 'ended'"]
        source, first, last = "jobs j", "j.id", "j.last_id"
        if spans is not None:
            source, first, last = IN_SPANS.format(spans=":spans"), FIRST_IN_SPAN, LAST_IN_SPAN
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
            "after": after,
            "limit": limit,
            "up_to": LARGEST,
        }
        ended = f"from {source} join specs s on s.id = j.spec where {' and '.join(clauses)}"
        if keep:
            rows = (
                f"select {first} as id, {last} as last_id {ended} order by 1 desc limit {keep + 1}"
            )
            wanted["up_to"] = _before_newest(self._db.rows(rows, wanted), keep)
        page = f"""
            select max({first}, :after + 1) as id, min({last}, :up_to) as last_id, {_PRUNABLE_COLUMNS}
            {ended} and {last} > :after and {first} <= :up_to
              and j.id >= (select coalesce(max(id), 0) from jobs where id <= :after)
            order by j.id{", span.value ->> 0" if spans is not None else ""} limit :limit
        """
        return self._db.rows(page, wanted)

    def pending(self, uid: int | None) -> int:
        """How many jobs are still to be forgotten."""
        sql = f"""
            select coalesce(sum(last_id - jobs.id + 1), 0)
            from jobs indexed by jobs_to_prune join specs s on s.id = jobs.spec
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


# What is under way is noted yet.
_FORGET_NOTICES = "delete from notices where job = ? and state <> 'claimed'"
_WITH_FILES = "where files_bytes > 0 and files_removed_at is null"
_NOT_TRIED = "(prune_failed_for is null or prune_failed_for <> prune_asked_at)"
_PRUNABLE_COLUMNS = """
s.uid, s.user, s.name, j.state, j.outcome, j.ended_at, j.attempt, j.files_bytes, j.files_removed_at
"""


def _before_newest(rows: Sequence[Row], keep: int) -> int:
    """The last id before the newest `keep` jobs of these runs, which come from the newest on."""
    for row in rows:
        if keep <= row["last_id"] - row["id"]:
            return int(row["last_id"]) - keep
        keep -= row["last_id"] - row["id"] + 1
    return 0


def _leading(events: Sequence[Row], before: float) -> list[Row]:
    old: list[Row] = []
    for row in events:
        if row["at"] >= before:
            break
        old.append(row)
    return old
