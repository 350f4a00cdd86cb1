"""What people asked: submissions with their environments. Written by the handlers alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpuq.core.elements import write_elements
from gpuq.core.spec import Spec, join
from gpuq.daemon.store.classes import class_id
from gpuq.daemon.store.connection import Database
from gpuq.daemon.store.events import record_event

LAST_ID = "select seq from sqlite_sequence where name = 'jobs'"


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who submits, as the kernel told it. `hard_limits` by name, where the job is to have no more."""

    uid: int
    gid: int
    user: str
    hard_limits: Mapping[str, int] = field(default_factory=dict)


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

    def living(self, uid: int, key: str) -> int | None:
        """The job of that key that has not ended, if there is one."""
        sql = "select id from jobs where key = ? and state <> 'ended'"
        job = self._db.value(sql, (f"{uid}:{key}",))
        return None if job is None else int(job)

    def submit(
        self, by: Submitter, specs: Sequence[Spec], *, now: float, token: str | None = None
    ) -> range:
        """Stores a submission, all of it or nothing; returns the ids of its jobs."""
        with self._db.transaction():
            first = 1 + (self._db.value(LAST_ID) or 0)
            group = range(first, first + len(specs))
            for job, spec in zip(group, specs, strict=True):
                self._submit_one(by, spec, job, group, now)
            self._db.insert("groups", {"id": first, "uid": by.uid})
            span = {"group_id": first, "first": first, "last": group.stop - 1}
            self._db.insert("group_spans", span)
            if token is not None:
                self._db.write(
                    "insert into tokens (uid, token, first_id, count, at) values (?, ?, ?, ?, ?)",
                    (by.uid, token, group.start, len(group), now),
                )
            record_event(
                self._db,
                now,
                "submitted",
                job=group.start,
                actor=by.user,
                detail={"count": len(group)},
            )
        return group

    def _submit_one(self, by: Submitter, spec: Spec, job: int, group: range, now: float) -> None:
        spec_id = self._db.insert(
            "specs",
            {
                "uid": by.uid,
                "gid": by.gid,
                "user": by.user,
                "name": spec.name,
                "argv": join(spec.argv),
                "cwd": spec.cwd,
                "umask": spec.umask,
                "limits": json.dumps(dict(spec.limits)),
                "hard_limits": json.dumps(dict(by.hard_limits)),
                "environment": spec.environment,
                "changes": join(tuple(k + b"=" + v for k, v in spec.changes.items())),
                "visible": spec.visible,
                "grace_s": spec.grace_s,
                "stop_to": spec.stop_to,
                "time_limit_s": spec.time_limit_s,
                "heartbeat_s": spec.heartbeat_s,
                "retries": spec.retries,
                "backoff": spec.backoff,
                "retry_on": spec.retry_on,
                "seed": spec.seed,
                "output": spec.output,
                "stderr": spec.stderr,
                "tags": json.dumps(spec.tags),
                "gpu_mem_from": spec.gpu_mem_from,
                "mem_bytes": spec.bounds.mem_bytes,
                "cpu_bound": spec.bounds.cpus,
                "elements": None if spec.elements is None else write_elements(spec.elements),
                "script": spec.script,
                "interpreter": join(spec.interpreter) or None,
                "as_slurm": int(spec.as_slurm),
                "preemptible": int(spec.preemptible),
                "preempt_signal": spec.preempt_signal,
                "commit_id": spec.commit_id,
                "snapshot": spec.snapshot,
            },
        )
        row = {
            "id": job,
            "last_id": job,
            "group_id": group.start,
            "place": job,
            "spec": spec_id,
            "class": class_id(self._db, by.uid, spec.request),
            "submitted_at": now,
            "priority": spec.priority,
            "key": None if spec.key is None else f"{by.uid}:{spec.key}",
        }
        self._db.insert("jobs", row)
