"""Classes: what jobs that are interchangeable for the scheduler have in common."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from gpuq.core.model import Request
from gpuq.daemon.store.connection import Database


def class_id(
    db: Database,
    uid: int,
    request: Request,
    *,
    queue: str = "",
    group: int = 0,
    tags: Iterable[str] = (),
) -> int:
    """The class of jobs that ask like this, made where there is none. `group` and `tags` only where
    they have a limit of their own."""
    asked = _row(uid, request, queue, group, tags)
    known = db.value(_KNOWN, asked)
    return db.insert("classes", asked) if known is None else int(known)


def find_class(
    db: Database,
    uid: int,
    request: Request,
    *,
    queue: str = "",
    group: int = 0,
    tags: Iterable[str] = (),
) -> int | None:
    """The same, and None where there is none."""
    known = db.value(_KNOWN, _row(uid, request, queue, group, tags))
    return None if known is None else int(known)


_KNOWN = """
select id from classes where uid = :uid and queue = :queue and request = :request
  and group_id = :group_id and tags = :tags
"""


def _row(
    uid: int, request: Request, queue: str, group: int, tags: Iterable[str]
) -> dict[str, str | int]:
    return {
        "uid": uid,
        "queue": queue,
        "request": _write_request(request),
        "group_id": group,
        "tags": _write_tags(tags) if tags else "[]",
    }


def _write_tags(tags: Iterable[str]) -> str:
    """As json_group_array does, so that SQL finds the same class."""
    return json.dumps(sorted(set(tags)), ensure_ascii=False, separators=(",", ":"))


def reclassify(db: Database, job: int, request: Request) -> None:
    """Puts a job into the class of what it asks for now. Its queue, and what limits it, stay."""
    sql = "select c.* from jobs j join classes c on c.id = j.class where j.id = ?"
    old = db.row(sql, (job,))
    assert old is not None
    wanted = class_id(
        db,
        old["uid"],
        request,
        queue=old["queue"],
        group=old["group_id"],
        tags=json.loads(old["tags"]),
    )
    db.write("update jobs set class = ? where id = ?", (wanted, job))


def classify_anew(db: Database, which: str, values: Mapping[str, Any]) -> None:
    """Puts jobs into the class that they belong to by the limits as they are now: those for which the
    condition `which` holds of their row j and its spec s. Stands in the transaction of what changed
    that."""
    belongs = _BELONGS.format(which=which)
    db.write(
        f"""
        {belongs}
        insert or ignore into classes (uid, queue, request, group_id, tags)
        select distinct uid, queue, request, group_id, tags from belongs
        """,
        values,
    )
    db.write(
        f"""
        {belongs}
        update jobs set class = n.id
        from belongs b join classes n on n.uid = b.uid and n.queue = b.queue
          and n.request = b.request and n.group_id = b.group_id and n.tags = b.tags
        where jobs.id = b.job
        """,
        values,
    )


_BELONGS = """
with belongs (job, uid, queue, request, group_id, tags) as materialized (
  select j.id, c.uid, c.queue, c.request,
         case when g.max_running is null and g.max_gpus is null then 0 else g.id end,
         (select json_group_array(value) from (
            select distinct t.value from json_each(s.tags) t
            join limits l on l.kind = 'tag' and l.name = t.value order by t.value))
  from jobs j join specs s on s.id = j.spec join classes c on c.id = j.class
  left join groups g on g.id = j.group_id
  where {which}
)
"""


def limited_tags(db: Database) -> frozenset[str]:
    """Those of whose jobs only so many may run."""
    rows = db.remembered(("limits",), "select name from limits where kind = 'tag'")
    return frozenset(row["name"] for row in rows)


@lru_cache(maxsize=256)  # most that is submitted asks for what others ask for
def _write_request(request: Request) -> str:
    return json.dumps(asdict(request), sort_keys=True)


@lru_cache(maxsize=4096)  # each turn reads those of all that it sees, and they are few
def read_request(text: str) -> Request:
    """A class's request as stored; fields of a newer gpuq are unknown to an older database only."""
    fields = json.loads(text)
    for name in ("gpu_ids", "exclude_gpus"):
        fields[name] = tuple(fields.get(name, ()))
    return Request(**fields)
