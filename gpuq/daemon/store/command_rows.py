"""The rows of jobs that are as one that was just stored but for their command, and for the seed, which
is one more with each: two statements, however many jobs they are. Stands in the transaction of others.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from gpuq.core.asked.commands import Command
from gpuq.daemon.store.connection import Database


def keep_specs(
    db: Database, first: int, spec: Mapping[str, Any], commands: Sequence[Command]
) -> None:
    """`spec` is the row of the job that they are like, `first` its id; theirs follow it."""
    said = json.dumps([(command.name, command.argv.hex()) for command in commands])
    db.write(_specs_like(tuple(spec)), {**spec, "id": first, "commands": said})


def keep_jobs(db: Database, job: Mapping[str, Any], behind: range, class_id: int) -> None:
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
