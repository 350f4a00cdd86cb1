"""What was agreed for one job: what it is to run, what it may use, and what its end is judged by."""

import json
from dataclasses import dataclass

from gpuq.core.asked.wire_fields import split
from gpuq.core.model import EndCause, Request, StopWish
from gpuq.daemon.store.classes import read_request
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.elements import IS_OF
from gpuq.daemon.store.values import end_cause, stop_wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an attempt's end is judged by: the job's own terms, and how gpuq had begun to end it."""

    attempt: int
    uncounted: int  # attempts that were none of its retries
    fell_back: bool  # it runs on the CPU in place of the GPUs that it asked for
    boot_id: str  # in which it was started
    started_mono: float | None  # CLOCK_MONOTONIC
    paused_s: float  # how long it stood still
    ending: EndCause | None
    ending_since: float | None  # its first signal for that, CLOCK_MONOTONIC
    gives_way_for: str | None  # the job for which it is preempted, in words
    stop: StopWish | None
    time_limit_s: float | None
    heartbeat_s: float | None
    retries: int
    backoff: str | None
    retry_on: str | None
    gpu_mem_from: str | None  # what it asks of a GPU follows from what its command used before
    over_memory: str | None
    mem_bytes: int | None
    memory_peak_bytes: int | None  # as a watch saw it
    request: Request
    gpus: tuple[str, ...]  # the uuids it had
    cool_at_once: bool  # no memory stays on those when it ends


class Agreed:
    def __init__(self, db: Database) -> None:
        self._db = db

    def to_run(self, job: int) -> Row:
        """All that a runner's order is made of: the spec, the environment, what the element has of
        its own."""
        row = self._db.row(
            f"""
            select s.*, (s.seed + :job - coalesce(j.alike_first, :job)) % 4294967296 as seed,
                   e.content as environment_content, :job as job,
                   case when j.array_first is null then null else :job - j.array_first end as element,
                   (select p."values" from parameters p
                    where p.spec = s.id and p.element = :job - j.array_first) as "values",
                   j.group_id, c.queue
            from jobs j join specs s on s.id = j.spec join classes c on c.id = j.class
            join environments e on e.uid = s.uid and e.hash = s.environment
            where {IS_OF}
            """,
            {"job": job},
        )
        assert row is not None
        return row

    def environment_of(self, job: int) -> bytes:
        return bytes(self.to_run(job)["environment_content"])

    def variables_of(self, job: int) -> tuple[bytes, ...]:
        """What was set over the environment that it was submitted in, each like b"NAME=value"."""
        sql = f"select s.changes from jobs j join specs s on s.id = j.spec where {IS_OF}"
        return tuple(split(self._db.value(sql, {"job": job})))

    def terms(self, job: int, attempt: int) -> Terms:
        row = self._db.row(
            """
            select j.uncounted, j.gpu_request, j.stop_asked_at, j.stop_grace_s, j.stop_actor,
                   s.time_limit_s, s.heartbeat_s, s.retries, s.backoff, s.retry_on, s.gpu_mem_from,
                   c.request, a.ending, a.gpus, a.gives_way_for, a.over_memory,
                   s.mem_bytes, a.memory_peak_bytes, a.started_mono, a.boot_id, a.paused_s,
                   a.ending_mono as ending_since
            from jobs j join specs s on s.id = j.spec join classes c on c.id = j.class
            join attempts a on a.job = j.id
            where j.id = ? and a.attempt = ?
            """,
            (job, attempt),
        )
        assert row is not None
        held = json.loads(row["gpus"])
        return Terms(
            attempt=attempt,
            uncounted=row["uncounted"],
            fell_back=row["gpu_request"] is not None,
            boot_id=row["boot_id"],
            started_mono=row["started_mono"],
            paused_s=row["paused_s"],
            ending=end_cause(row),
            ending_since=row["ending_since"],
            gives_way_for=row["gives_way_for"],
            stop=stop_wish(row),
            time_limit_s=row["time_limit_s"],
            heartbeat_s=row["heartbeat_s"],
            retries=row["retries"],
            backoff=row["backoff"],
            retry_on=row["retry_on"],
            gpu_mem_from=row["gpu_mem_from"],
            over_memory=row["over_memory"],
            mem_bytes=row["mem_bytes"],
            memory_peak_bytes=row["memory_peak_bytes"],
            request=read_request(row["request"]),
            gpus=tuple(held["uuids"]),
            cool_at_once=held["cool_at_once"],
        )
