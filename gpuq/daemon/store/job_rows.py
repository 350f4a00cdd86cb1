"""The rows that a submission becomes. Jobs that are as one that was just stored but for their command,
and for the seed, which is one more with each, take two statements, however many they are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from gpuq.core.asked.commands import Command
from gpuq.core.asked.spec import Spec
from gpuq.core.model import Request
from gpuq.daemon.store.begin import Boot, begin_columns
from gpuq.daemon.store.classes import class_id, limited_tags
from gpuq.daemon.store.connection import Database, Row
from gpuq.daemon.store.need_rows import keep_needs
from gpuq.daemon.store.specs import spec_columns


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who submits, as the kernel told it. `hard_limits` by name, where the job is to have no more."""

    uid: int
    gid: int
    user: str
    hard_limits: Mapping[str, int] = field(default_factory=dict)


class Batch:
    """The rows of one submission: what many of its jobs have in common is looked up once."""

    def __init__(
        self,
        db: Database,
        by: Submitter,
        group: int,
        is_limited: bool,
        now: float,
        boot: Boot | None,
    ) -> None:
        self._db = db
        self._by = by
        self._group = group
        self._limited_group = group if is_limited else 0
        self._limited_tags = limited_tags(db)
        self._hard_limits = json.dumps(dict(by.hard_limits))
        self._classes: dict[tuple[Request, str, frozenset[str]], int] = {}
        self._now = now
        self._boot = boot

    def store(self, spec: Spec, entries: Sequence[range]) -> None:
        """Stores the last of these entries."""
        first, last = entries[-1][0], entries[-1][-1]
        row = self._spec_row(spec)
        spec_id = self._db.insert("specs", row)
        if spec.rows:
            self._db.write_many(
                'insert into parameters (spec, element, "values") values (?, ?, ?)',
                ((spec_id, n, json.dumps(row)) for n, row in enumerate(spec.rows)),
            )
        job = {
            "id": first,
            "last_id": last - len(spec.commands),
            "array_first": None if spec.elements is None else first,
            "alike_first": first if spec.times > 1 else None,
            "group_id": self._group,
            "place": first,
            "open_needs": keep_needs(self._db, entries[-1], spec.needs, entries),
            "spec": spec_id,
            "class": self._class(spec, spec.request),
            "submitted_at": self._now,
            "priority": spec.priority,
            "held_by": self._by.user if spec.held else None,
            "key": None if spec.key is None else f"{self._by.uid}:{spec.key}",
            "cpu_after_s": spec.request.cpu_after_s,
            **begin_columns(spec, self._now, self._boot),
        }
        self._db.insert("jobs", job)
        if spec.commands:
            _keep_specs(self._db, spec_id, row, spec.commands)
            self._store_others(job, spec)

    def _store_others(self, job: Row, spec: Spec) -> None:
        """Those that differ in their command: they may be of several classes."""
        behind = 1
        for request, alike in groupby(spec.commands, key=attrgetter("request")):
            end = behind + sum(1 for _ in alike)
            _keep_jobs(
                self._db, job, range(behind, end), self._class(spec, request or spec.request)
            )
            behind = end

    def _class(self, spec: Spec, request: Request) -> int:
        key = request, spec.queue, self._limited_tags.intersection(spec.tags)
        if key not in self._classes:
            request, queue, tags = key
            self._classes[key] = class_id(
                self._db, self._by.uid, request, queue=queue, group=self._limited_group, tags=tags
            )
        return self._classes[key]

    def _spec_row(self, spec: Spec) -> dict[str, Any]:
        return {
            "uid": self._by.uid,
            "gid": self._by.gid,
            "user": self._by.user,
            "hard_limits": self._hard_limits,
            **spec_columns(spec),
        }


def _keep_specs(
    db: Database, first: int, spec: Mapping[str, Any], commands: Sequence[Command]
) -> None:
    """`spec` is the row of the job that they are like, `first` its id; theirs follow it."""
    said = json.dumps([(command.name, command.argv.hex()) for command in commands])
    db.write(_specs_like(tuple(spec)), {**spec, "id": first, "commands": said})


def _keep_jobs(db: Database, job: Mapping[str, Any], behind: range, class_id: int) -> None:
    """`job` is the row of the job that they are like; they come so far behind it."""
    among = {"first": behind.start, "last": behind[-1], "class": class_id}
    db.write(_jobs_like(tuple(job)), {**job, **among})


@cache
def _specs_like(columns: tuple[str, ...]) -> str:
    own = {
        "id": ":id + c.key + 1",
        "name": "c.value ->> 0",
        "argv": "unhex(c.value ->> 1)",
        "seed": "(:seed + c.key + 1) % 4294967296",
    }
    return f"insert into specs {_selected(columns, own)} from json_each(:commands) c"


@cache
def _jobs_like(columns: tuple[str, ...]) -> str:
    own = {name: f":{name} + b.n" for name in ("id", "last_id", "place", "spec")}
    return f"""
        with recursive behind (n) as (select :first union all select n + 1 from behind where n < :last)
        insert into jobs {_selected(columns, own)} from behind b
    """


def _selected(columns: tuple[str, ...], own: Mapping[str, str]) -> str:
    names = dict.fromkeys(("id", *columns))
    return f"({', '.join(names)}) select {', '.join(own.get(name, f':{name}') for name in names)}"
