"""What a job that waits asks for, changed: read back as its submit would have said it, with the changes
over that, and judged as a submit is. What runs and what has ended stays as it was.
"""

import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gpuq.core.asked.elements import Elements, read_elements
from gpuq.core.asked.spec import Spec
from gpuq.core.asked.wire_fields import read_integer, split, to_text
from gpuq.core.model import Request
from gpuq.daemon import faults
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.requests import fields
from gpuq.daemon.requests.changes import HIGHEST, Answer, FindOwn, check_priority, is_done, refused
from gpuq.daemon.requests.world import World
from gpuq.daemon.store import Store
from gpuq.daemon.store.classes import read_request
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.specs import spec_columns
from gpuq.errors import GpuqError, NotPermitted, UsageError

Wire = dict[str, Any]


class ReadSpecs(Protocol):
    """Reads jobs as a submit does, by their digest of an environment and who asks."""

    def __call__(
        self, jobs: Sequence[Wire], env_hash: str, peer: Peer, *, judged: bool
    ) -> Awaitable[list[Spec]]: ...


# What can be edited, and the columns of the spec that it stands in. What is part of the request has
# none there, or others beside.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "name": ("name",),
    "argv": ("argv",),
    "cwd": ("cwd",),
    "env": ("changes",),
    "gpus": (),
    "gpu_mem_bytes": ("gpu_mem_from",),
    "gpu_mem": ("gpu_mem_from",),
    "exclusive": (),
    "max_util": (),
    "gpu_model": (),
    "gpu_ids": (),
    "exclude_gpus": (),
    "visible": ("visible",),
    "cpus": ("cpu_bound",),
    "mem_bytes": ("mem_bytes",),
    "time_limit_s": ("time_limit_s",),
    "heartbeat_s": ("heartbeat_s",),
    "cpu_after_s": (),
    "on_kill": ("on_kill",),
    "grace_s": ("grace_s",),
    "stop_to": ("stop_to",),
    "retries": ("retries", "backoff", "retry_on"),
    "backoff": ("backoff",),
    "retry_on": ("retry_on",),
    "priority": (),
    "queue": ("time_limit_s",),
    "tags": ("tags",),
    "output": ("output",),
    "stderr": ("stderr",),
    "on_start": ("on_start",),
    "on_end": ("on_end",),
    "preemptible": ("preemptible",),
    "preempt_signal": ("preempt_signal",),
}
_OF_REQUEST = frozenset(
    (
        *("gpus", "gpu_mem_bytes", "gpu_mem", "exclusive", "max_util", "gpu_model", "gpu_ids"),
        *("exclude_gpus", "cpus", "time_limit_s", "queue", "cpu_after_s"),
    )
)
# What a job that has turned to the CPU has given up, and gets back as a whole.
_OF_GPUS = _OF_REQUEST - {"cpus", "time_limit_s", "queue"}
# Whoever may say these may do whatever the owner may.
_OF_ITS_OWNER = frozenset(("argv", "cwd", "output", "stderr", "on_kill", "on_start", "on_end"))
# What decides whether it can ever start, and where. Nothing else is kept from being mended in a job
# that for now cannot.
_JUDGED = _OF_REQUEST | {"tags"}
# All others wait while these are written, each with a copy of what it is to run.
MOST_EDITED, MOST_EDITED_BYTES = 1000, 32 * 2**20
STAYS = "only what waits can be edited"


class Editing:
    def __init__(
        self, store: Store, world: World, find_own: FindOwn, read_specs: ReadSpecs
    ) -> None:
        self._store = store
        self._world = world
        self._find_own = find_own
        self._read_specs = read_specs

    async def editable(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """One job, or elements of an array that do not differ, as `edit` takes it: `options`, without
        those that say nothing, and the `version` that they are of."""
        rows = self._find_own(request, peer, "edit")
        if len(rows) != 1:
            raise UsageError(
                f"these are {len(rows)} jobs that differ: name one, or say by options what is to change"
            )
        (row,) = rows
        if (why := _not_editable(row)) is not None:
            raise GpuqError(f"job {row['id']}: {why}. Nothing was changed.")
        wire = wire_of(self._store.changed.spec_of(row["id"]), peer)
        options = {name: wire[name] for name in COLUMNS if wire.get(name) not in (None, [], {}, "")}
        return {"id": row["id"], "last_id": row["last_id"], "user": row["user"]} | {
            "version": row["version"],
            "options": options,
        }

    async def edit(self, request: Mapping[str, Any], peer: Peer) -> Answer:
        """Changes all of the jobs named that wait, in one commit. With `version` only one that was not
        changed since then."""
        changes, version = _changes(request), fields.cursor(request, "version")
        token = fields.token(request)
        rows = self._find_own(request, peer, "edit")
        if version is not None and len(rows) != 1:
            raise UsageError("version: that of one job")
        if len(rows) > MOST_EDITED:
            raise UsageError(f"{len(rows)} jobs that differ at once: name up to {MOST_EDITED}")
        drafts, held = [], 0
        for row in rows:
            drafts.append(await self._draft(row, changes, version, peer, token))
            held += drafts[-1].old_bytes
            if held > MOST_EDITED_BYTES:
                raise UsageError("the commands of these jobs are too long for one edit: name fewer")
        with self._store.transaction():
            done = [self._carry_out(draft, peer, token) for draft in drafts]
        faults.here("edit.committed")
        self._world.wake()
        return {"jobs": done}

    async def _draft(
        self,
        row: Row,
        changes: Mapping[str, Any],
        version: int | None,
        peer: Peer,
        token: str | None,
    ) -> "_Draft":
        if is_done(row, token):
            return _Draft(row, changed=list(changes))
        if (why := _not_editable(row)) is not None:
            return _Draft(row, why=why)
        if version not in (None, row["version"]):
            return _Draft(row, why="somebody has changed it meanwhile")
        old = self._store.changed.spec_of(row["id"])
        wire = wire_of(old, peer)
        if "env" in changes and wire["env"] is None:
            raise NotPermitted(
                f"the environment of job {row['id']} is {row['user']}'s alone. Nothing was changed."
            )
        new = edited(wire, changes)
        changed = [name for name in COLUMNS if wire.get(name) != new.get(name)]
        if row["gpu_request"] is not None and not _OF_GPUS.isdisjoint(changed):
            return _Draft(row, why=f"it turned to the CPU: first gpuq requeue {row['id']}")
        if not _OF_ITS_OWNER.isdisjoint(changed) and not peer.may_see_secrets_of(row["uid"]):
            raise NotPermitted(
                f"what job {row['id']} runs, where, and to which files is {row['user']}'s alone, as "
                "whom it runs. Nothing was changed."
            )
        if "priority" in changed:
            check_priority(read_integer(new, "priority", 0, -HIGHEST, HIGHEST), row, peer)
        count = row["last_id"] - row["id"] + 1
        judged = not _JUDGED.isdisjoint(changed)
        spec = await self._read(new, old, count, peer, judged=judged) if changed else None
        return _Draft(row, changed=changed, spec=spec, old=old)

    async def _read(self, wire: Wire, old: Row, count: int, peer: Peer, *, judged: bool) -> Spec:
        """Judged as the job, or so many elements, that its submitter would submit like this."""
        wire = {name: value for name, value in wire.items() if value is not None}
        wire["changes"], env_hash = wire.pop("env", {}), old["environment"].hex()
        if old["elements"] is not None:
            wire["array"] = _array_like(read_elements(old["elements"]), count)
        try:
            (spec,) = await self._read_specs([wire], env_hash, peer, judged=judged)
        except GpuqError as error:
            raise type(error)(_of_an_edit(str(error))) from None
        return spec

    def _carry_out(self, draft: "_Draft", peer: Peer, token: str | None) -> Answer:
        row, spec, old = draft.row, draft.spec, draft.old
        if draft.why is not None:
            return refused(row, draft.why)
        answer = {"id": row["id"], "last_id": row["last_id"], "why": None}
        if spec is None or old is None:
            done = "edited" if draft.changed else "already"
            return answer | {"done": done, "changed": draft.changed}
        columns = {name for option in draft.changed for name in COLUMNS[option]}
        values = spec_columns(spec)
        is_changed = self._store.changed.edit(
            row["id"],
            row["last_id"],
            version=row["version"],
            spec={name: values[name] for name in columns},
            request=_request(spec, old, draft.changed),
            queue=spec.queue if "queue" in draft.changed else old["queue"],
            priority=spec.priority if "priority" in draft.changed else old["priority"],
            changed=draft.changed,
            actor=peer.user,
            now=time.time(),
            token=token,
        )
        if not is_changed:
            return refused(row, "it has started, or was changed, meanwhile")
        return answer | {"done": "edited", "changed": draft.changed}


class _Draft:
    """What is to become of one row: refused, with the reason; as it was; or something else."""

    def __init__(
        self,
        row: Row,
        *,
        why: str | None = None,
        changed: Sequence[str] = (),
        spec: Spec | None = None,
        old: Row | None = None,
    ) -> None:
        self.row = row
        self.why = why
        self.changed = list(changed)
        self.spec = spec
        self.old = old

    @property
    def old_bytes(self) -> int:
        values = () if self.old is None else self.old.values()
        return sum(len(value) for value in values if isinstance(value, str | bytes))


def wire_of(row: Row, peer: Peer) -> Wire:
    """A stored job as its submit says it; `env` is None where the caller may not see that."""
    request = read_request(row["request"])
    variables = dict(to_text(one).partition("=")[::2] for one in split(row["changes"]))
    wire: Wire = {name: row[name] for name in _AS_STORED}
    wire |= {name: getattr(request, name) for name in _AS_REQUESTED}
    wire |= {
        "argv": [to_text(word) for word in split(row["argv"])],
        "cwd": to_text(row["cwd"]),
        "env": variables if peer.may_see_secrets_of(row["uid"]) else None,
        "gpu_ids": list(request.gpu_ids),
        "exclude_gpus": list(request.exclude_gpus),
        "exclusive": request.exclusive if request.gpu_mem_bytes is not None else None,
        "cpus": row["cpu_bound"],
        "tags": json.loads(row["tags"]),
        "preemptible": bool(row["preemptible"]),
    }
    for name in ("on_start", "on_end"):  # an address may hold a token
        wire[name] = row[name] if peer.may_see_secrets_of(row["uid"]) else None
    for name in ("output", "stderr", "script", "on_kill"):
        wire[name] = None if row[name] is None else to_text(row[name])
    if row["script"] is not None:
        wire["interpreter"] = [to_text(word) for word in split(row["interpreter"])]
    return wire | {"as_slurm": bool(row["as_slurm"])}


_AS_STORED = (
    *("name", "visible", "grace_s", "stop_to", "time_limit_s", "heartbeat_s", "retries", "backoff"),
    *("retry_on", "priority", "queue", "preempt_signal", "mem_bytes"),
)
_AS_REQUESTED = ("gpus", "gpu_mem_bytes", "gpu_model", "max_util", "cpu_after_s")


def edited(wire: Wire, changes: Mapping[str, Any]) -> Wire:
    """The job with these changes, and without what says something only beside what they take away."""
    new = wire | {name: value for name, value in changes.items() if name != "env"}
    if "env" in changes:
        merged = {**wire["env"], **(changes["env"] or {})} if changes["env"] is not None else {}
        new["env"] = {name: value for name, value in merged.items() if value is not None}
    if new.get("gpu_mem") is not None:
        new["gpu_mem_bytes"] = new["exclusive"] = None
    if new["gpu_mem_bytes"] is None and "exclusive" not in changes:
        new["exclusive"] = None
    if not new["retries"]:
        kept = {name: changes.get(name) for name in ("backoff", "retry_on")}
        new |= kept
    for name, usual in (
        ("tags", []),
        ("gpu_ids", []),
        ("exclude_gpus", []),
        ("preemptible", False),
    ):
        new[name] = usual if new[name] is None else new[name]
    return new


def _array_like(elements: Elements, count: int) -> Wire:
    """One element, or two that stand for all: what a job may say depends on no more than whether there
    are others, and on what they differ in."""
    names = [*(name for name, _ in elements.axes), *elements.columns]
    shown = min(count, 2)
    rows = [[""] * len(names)] * shown if names else []
    return {"indices": [[0, shown, 1]], "columns": names, "rows": rows}


def _changes(request: Mapping[str, Any]) -> Mapping[str, Any]:
    changes = request.get("changes")
    if not isinstance(changes, dict) or not changes:
        raise UsageError("changes: what is to change is wanted, as options of submit")
    if unknown := sorted(changes.keys() - COLUMNS.keys()):
        raise UsageError(f"{unknown[0]} cannot be edited. What can: {', '.join(COLUMNS)}")
    env = changes.get("env")
    if env is not None and not isinstance(env, dict):
        raise UsageError(f"env: {env!r} is not a mapping")
    return changes


def _not_editable(row: Row) -> str | None:
    if row["state"] == "ended":
        return f"it has ended, and {STAYS}: gpuq requeue {row['id']} brings it back into the queue"
    if row["state"] != "queued":
        return f"it runs, and {STAYS}: gpuq pause, kill and requeue are for what runs"
    if row["stop_asked_at"] is not None:
        return "it is about to be cancelled"
    return None


def _request(spec: Spec, old: Row, changed: Sequence[str]) -> Request:
    """What it has come to ask for stays, where that was not changed. How long it runs is known anew
    where its time limit is another one."""
    before = read_request(old["request"])
    if not _OF_REQUEST.intersection(changed):
        return before
    lasts_s = spec.request.lasts_s or spec.time_limit_s or before.lasts_s
    return replace(spec.request, lasts_s=lasts_s)


def _of_an_edit(sentence: str) -> str:
    said = "Nothing was queued."
    return sentence.replace(said, "Nothing was changed.") if said in sentence else sentence
