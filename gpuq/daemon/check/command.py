"""gpuqd check: holds what gpuq promises against what is there, beside a daemon or without one.

It changes nothing. Rows and processes move while it looks, so what seems broken is looked at again,
and told only where it is still so; what a daemon is about to put right is no breach.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuq import paths
from gpuq.core.units import count, format_bytes
from gpuq.daemon.check import evidence, promises, scene
from gpuq.daemon.check.promises import Breach, Span
from gpuq.daemon.check.scene import Attempts, Scene
from gpuq.daemon.check.waiting import judge_waiting
from gpuq.daemon.linux import processes
from gpuq.daemon.store import audit_needs
from gpuq.daemon.store.audit import Audit, Damaged, Unreadable, open_audit
from gpuq.daemon.store.audit_numbers import misnumbered
from gpuq.daemon.store.connection import StoreRefused
from gpuq.errors import GpuqError
from gpuq.protocol import SCHEMA

LOOK_AGAIN_S = (0.3, 1.0, 2.0, 4.0)
OPEN_TRIES, OPEN_AGAIN_S = 3, 0.1
SAID_ON_TERMINAL = 256 * 2**20  # bytes of a database that takes a while

Look = Callable[[bool], "Findings"]


@dataclass(slots=True, kw_only=True)
class Findings:
    """What one look found, with how much it looked at."""

    breaches: list[Breach] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    jobs: int = 0
    attempts: int = 0
    events: int = 0
    daemon_pid: int | None = None
    is_whole: bool = True


def run(state_dir: str, socket: str, *, file: str | None, as_json: bool) -> int:
    """The command; returns its exit code. With a `file` only that is looked at, such as a backup."""
    database = file or os.path.join(state_dir, paths.DATABASE_NAME)
    _say_if_long(database)

    def look(whole: bool) -> Findings:
        return _look_patiently(database, None if file else (state_dir, socket), whole)

    try:
        found = look_until_sure(look, time.sleep)
    except StoreRefused as refusal:  # to start it again would be no better, but it is no daemon
        raise GpuqError(str(refusal)) from refusal
    if as_json:
        print(json.dumps(_as_json(found, database)))
    else:
        _say(found, database)
    return 1 if found.breaches else 0


def look_until_sure(
    look: Look, sleep: Callable[[float], None], again_s: Sequence[float] = LOOK_AGAIN_S
) -> Findings:
    """What is broken at each of several looks; most of the time one is enough."""
    found = look(True)
    for pause_s in again_s:
        if not found.breaches:
            return found
        sleep(pause_s)
        before = {breach.identity for breach in found.breaches}
        found = look(not found.is_whole)
        found.breaches = [breach for breach in found.breaches if breach.identity in before]
        if found.daemon_pid is None:
            return found  # nobody is there who would put it right
    return found


def _look_patiently(database: str, place: tuple[str, str] | None, whole: bool) -> Findings:
    """Just as a daemon comes or goes the files beside its database do, too."""
    for _ in range(OPEN_TRIES):
        try:
            return look_once(database, place, whole=whole)
        except Unreadable:
            time.sleep(OPEN_AGAIN_S)
    return look_once(database, place, whole=whole)


def look_once(database: str, place: tuple[str, str] | None, *, whole: bool) -> Findings:
    """One look at the database, and at the machine where it is in its `place` (state directory,
    socket). `whole`: each page of the file is read, too."""
    try:
        seen = None if place is None else _see(database, *place)
        with open_audit(database) as audit:
            return judge(audit, seen, whole=whole)
    except Damaged as error:
        return _damaged([str(error)])


def _see(database: str, state_dir: str, socket: str) -> Scene:
    """Before the rows are read: whoever is seen then is known to rows that are read later."""
    with open_audit(database) as audit:
        roots = audit.group_roots(processes.boot_id())
    return evidence.look(state_dir, socket, roots, time.clock_gettime(time.CLOCK_BOOTTIME))


def judge(audit: Audit, seen: Scene | None, *, whole: bool) -> Findings:
    if whole and (damage := audit.damage()):
        # What a damaged file says of jobs is not worth hearing.
        return _damaged([f"{audit.path} is damaged: {what}" for what in damage])
    found = Findings(events=audit.events())
    attempts = Attempts(scene=seen or _nothing_seen())
    rows = promises.join_spans(_read_jobs(audit, attempts, found, seen))
    found.breaches += _judge_rows(audit, rows, attempts)
    if seen is not None:
        found.daemon_pid = seen.lock_pid
        found.breaches += scene.judge_runners(attempts.active, seen)
        found.breaches += scene.judge_processes(attempts, seen)
        found.breaches += scene.judge_daemon(seen)
        found.notes += scene.find_orphans(seen, rows, audit.pruned())
        found.notes += _notes(audit, attempts, seen)
    return found


def _read_jobs(
    audit: Audit, attempts: Attempts, found: Findings, seen: Scene | None
) -> Iterator[Span]:
    """Goes through all jobs, once; gives their ids."""
    _, events_from = audit.events_pruned()
    for dossier in audit.dossiers():
        found.jobs += dossier.job.last_id - dossier.job.id + 1
        found.attempts += len(dossier.attempts)
        found.breaches += promises.judge_job(dossier, events_from)
        if seen is not None:
            found.breaches += scene.judge_delay(dossier.job, seen)
        for attempt in dossier.attempts:
            attempts.take(attempt)
        yield dossier.job.id, dossier.job.last_id


def _judge_rows(audit: Audit, rows: Sequence[Span], attempts: Attempts) -> Iterator[Breach]:
    for table, parent in sorted(set(audit.foreign_keys())):
        sentence = f"rows of {table} point to {parent} that are not there"
        yield Breach(rule="row_without_parent", sentence=sentence, table=table)
    yield from promises.judge_ids(rows, audit.pruned(), audit.submitted(), audit.last_id_given())
    yield from promises.judge_groups(audit.without_group())
    yield from promises.judge_numbers(misnumbered(audit))
    yield from promises.judge_leases(audit.leases(), attempts.active)
    yield from judge_waiting(audit_needs.miscounted(audit), audit_needs.unjudged(audit))
    pruned_to, _ = audit.events_pruned()
    yield from promises.judge_events(audit.event_runs(), pruned_to, audit.last_event_given())


def _notes(audit: Audit, attempts: Attempts, seen: Scene) -> Iterator[str]:
    for job, trouble in audit.prune_troubles():
        yield f"job {job} is to be forgotten, and cannot be: {trouble}"
    if not seen.has_daemon and attempts.active:
        left = count(len(attempts.active), "attempt")
        yield f"no daemon runs here: what became of {left} the next one finds out"


def _nothing_seen() -> Scene:
    return Scene(state_dir="", boot_id="", boottime=0.0)


def _damaged(sentences: Sequence[str]) -> Findings:
    breaches = [Breach(rule="damaged", sentence=sentence) for sentence in sentences]
    return Findings(breaches=breaches, is_whole=False)


# ── said ──


def _say_if_long(database: str) -> None:
    if not sys.stderr.isatty() or not os.path.exists(database):
        return
    if (size := os.path.getsize(database)) > SAID_ON_TERMINAL:
        print(f"gpuqd: reading all {format_bytes(size)} of {database} …", file=sys.stderr)


def _say(found: Findings, database: str) -> None:
    for note in found.notes:
        print(f"gpuqd: note: {note}", file=sys.stderr)
    for breach in found.breaches:
        print(breach.sentence)
    if not found.breaches:
        looked_at = (
            f"{count(found.jobs, 'job')}, {count(found.attempts, 'attempt')}, "
            f"{count(found.events, 'event')}"
        )
        print(f"all is well: {looked_at}")


def _as_json(found: Findings, database: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "database": database,
        "daemon_pid": found.daemon_pid,
        "well": not found.breaches,
        "jobs": found.jobs,
        "attempts": found.attempts,
        "events": found.events,
        "breaches": [_breach_as_json(breach) for breach in found.breaches],
        "notes": found.notes,
    }


def _breach_as_json(breach: Breach) -> dict[str, Any]:
    return {
        "rule": breach.rule,
        "sentence": breach.sentence,
        "job": breach.job,
        "attempt": breach.attempt,
        "gpu": breach.gpu,
        "pid": None if breach.process is None else breach.process[0],
    }
