"""What people asked: submissions with their environments. Written by the handlers alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpuq.core.asked.spec import Spec
from gpuq.core.results.giving_up import format_on_failure
from gpuq.daemon.store.begin import Boot
from gpuq.daemon.store.classes import find_class, limited_tags
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import row_of
from gpuq.daemon.store.events import record_event
from gpuq.daemon.store.job_rows import Batch, Submitter
from gpuq.errors import NothingMatched, NotPermitted, UsageError

LAST_ID = "select seq from sqlite_sequence where name = 'jobs'"


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a submission: the ids of all its jobs, and of each entry."""

    ids: range
    group: int
    entries: Sequence[range]


def entries_of(jobs: range, *, is_array: bool) -> list[tuple[int, int]]:
    """(first, last) of an array, or of each of separate jobs."""
    return [(jobs[0], jobs[-1])] if is_array else [(job, job) for job in jobs]


class Asked:
    def __init__(self, db: Database) -> None:
        self._db = db

    def knows_environment(self, uid: int, digest: bytes) -> bool:
        sql = "select 1 from environments where uid = ? and hash = ?"
        return self._db.value(sql, (uid, digest)) is not None

    def keep_environment(self, uid: int, digest: bytes, content: bytes) -> None:
        with self._db.transaction():
            self._db.write(
                "insert into environments (uid, hash, content) values (?, ?, ?) on conflict do nothing",
                (uid, digest, content),
            )

    def answered(self, uid: int, token: str) -> range | None:
        """The ids that this token got already: a client whose answer was lost asks again."""
        sql = "select first_id, count from tokens where uid = ? and token = ?"
        row = self._db.row(sql, (uid, token))
        return None if row is None else range(row["first_id"], row["first_id"] + row["count"])

    def last_id(self) -> int:
        """The last that was given to a job; 0 before the first."""
        return int(self._db.value(LAST_ID) or 0)

    def class_of(self, spec: Spec, uid: int) -> int | None:
        """The class that such a job would wait in, where one waits there or has waited."""
        group = 0 if spec.max_running is None else self.last_id() + 1
        tags = limited_tags(self._db).intersection(spec.tags)
        return find_class(self._db, uid, spec.request, queue=spec.queue, group=group, tags=tags)

    def living(self, uid: int, key: str) -> range | None:
        """The ids of the submission of that key of which a job has not ended, if there is one."""
        row = self._db.row(
            """
            select min(first) as first, max(last) as last from group_spans where group_id =
              (select group_id from jobs indexed by jobs_key
               where key = ? and state <> 'ended' limit 1)
            """,
            (f"{uid}:{key}",),
        )
        if row is None or row["first"] is None:
            return None
        return range(row["first"], row["last"] + 1)

    def submit(self, by: Submitter, specs: Sequence[Spec], **how: Any) -> range:
        """As `keep`, and returns the ids of its jobs."""
        return self.keep(by, specs, **how).ids

    def keep(
        self,
        by: Submitter,
        specs: Sequence[Spec],
        *,
        now: float,
        token: str | None = None,
        group: int | None = None,
        boot: Boot | None = None,
        stop_after: int = 0,
    ) -> Stored:
        """Stores a submission, all of it or nothing. With `group` its jobs are added to one of the
        submitter's own; NothingMatched and NotPermitted say why they cannot be. `stop_after` failures
        end a new group whose jobs do not say; 0: none do."""
        with self._db.transaction():
            first = 1 + self.last_id()
            ids = range(first, first + sum(spec.count for spec in specs))
            to = first if group is None else group
            is_limited = self._open_group(by, to, ids, specs, stop_after)
            batch = Batch(self._db, by, to, is_limited, now, boot)
            entries: list[range] = []
            for spec in specs:
                entries.append(range(first, first + spec.count))
                batch.store(spec, entries)
                first += spec.count
            if len(entries[-1]) > 1:
                # Only the first id of such jobs is that of a row: the others are taken all the same.
                self._db.write("update sqlite_sequence set seq = ? where name = 'jobs'", (ids[-1],))
            if token is not None:
                self._db.write(
                    "insert into tokens (uid, token, first_id, count, at) values (?, ?, ?, ?, ?)",
                    (by.uid, token, ids.start, len(ids), now),
                )
            detail = {"count": len(ids)}
            record_event(self._db, now, "submitted", job=ids.start, actor=by.user, detail=detail)
        return Stored(ids, to, entries)

    def entries(self, ids: range) -> list[tuple[int, int]]:
        """(first, last) of what each entry of a submission became: an array, or a job."""
        rows = self._db.rows(
            """
            select min(id) as first, max(last_id) as last, array_first from jobs
            where id between ? and ? group by coalesce(array_first, id) order by 1
            """,
            (ids.start, ids.stop - 1),
        )
        entries = []
        for row in rows:
            entry = range(row["first"], row["last"] + 1)
            entries += entries_of(entry, is_array=row["array_first"] is not None)
        return entries

    def group_of(self, job: int) -> int:
        """The group that a job was submitted to."""
        row = row_of(self._db, job)
        return job if row is None else int(row["group_id"])

    def _open_group(
        self, by: Submitter, group: int, ids: range, specs: Sequence[Spec], stop_after: int
    ) -> bool:
        """Makes the group, or makes it longer; returns whether it has a limit of its own."""
        said = _said_stop_after(specs)
        wanted = min((s.max_running for s in specs if s.max_running is not None), default=None)
        if group == ids.start:
            row = {"id": group, "uid": by.uid, "max_running": wanted}
            stop_after = stop_after if said is None else said
            self._db.insert("groups", row | {"stop_after": stop_after or None})
            self._db.insert("group_spans", {"group_id": group, "first": group, "last": ids[-1]})
            return wanted is not None
        row = self._own_group(by, group)
        _check_stop_after(group, said, row["stop_after"])
        limit: int | None = row["max_running"]
        if wanted not in (None, limit):
            raise UsageError(
                f"group g{group} has a limit of {limit or 'no'} running jobs, and {wanted} were asked "
                "for: the first submit of a group says how many. Nothing was queued."
            )
        sql = "update group_spans set last = ? where group_id = ? and last = ?"
        if not self._db.write(sql, (ids[-1], group, ids.start - 1)):
            span = {"group_id": group, "first": ids.start, "last": ids[-1]}
            self._db.insert("group_spans", span)
        return limit is not None or row["max_gpus"] is not None

    def _own_group(self, by: Submitter, group: int) -> Row:
        row = self._db.row("select * from groups where id = ?", (group,))
        if row is None:
            raise NothingMatched(f"no group g{group} to add to. Nothing was queued.")
        if row["uid"] != by.uid:
            raise NotPermitted(f"group g{group} is another user's. Nothing was queued.")
        return row


def _said_stop_after(specs: Sequence[Spec]) -> int | None:
    """What the jobs of a submission say of it together; None: nothing."""
    said = {spec.stop_after for spec in specs} - {None}
    if len(said) > 1:
        words = " and ".join(sorted(map(format_on_failure, said)))
        raise UsageError(
            f"--on-failure: jobs that are submitted together have one, not {words}. Nothing was queued."
        )
    return said.pop() if said else None


def _check_stop_after(group: int, said: int | None, kept: int | None) -> None:
    if said is not None and (said or None) != kept:
        raise UsageError(
            f"--on-failure: that of group g{group} is {format_on_failure(kept)}, as its first submit "
            "said. Leave it out. Nothing was queued."
        )
