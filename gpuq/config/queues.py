"""Named queues in the settings file: `[queues.night]`, each a table of its own."""

import re
from collections.abc import Iterable
from typing import Any

from gpuq.config.forms import (
    read_list,
    read_rate,
    read_time,
    show_list,
    show_time,
    whole_number,
)
from gpuq.config.setting import Setting
from gpuq.core.policy import Queue
from gpuq.core.scheduling.rate import format_rate
from gpuq.errors import UsageError

MOST_QUEUES = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")

# Beside each what it is called in Queue.
_FIELDS = {
    "priority": Setting(
        "priority", whole_number(-(10**6), 10**6), 0, "added to the priority of its jobs"
    ),
    "gpus": Setting(
        "gpus", read_list, (), "only these GPUs: index, UUID or bus id", show=show_list
    ),
    "max_running": Setting(
        "max_running", whole_number(0, 10**6), None, "jobs of it that run at a time"
    ),
    "max_gpus": Setting(
        "max_gpus", whole_number(0, 1024), None, "GPUs that its jobs hold at a time"
    ),
    "time_limit_s": Setting(
        "time_limit", read_time, None, "the time limit of a job that names none", show=show_time
    ),
    "max_time_limit_s": Setting(
        "max_time_limit", read_time, None, "the longest that a job may ask for", show=show_time
    ),
    "users": Setting(
        "users", read_list, (), "who may use it: names, and groups as @lab", show=show_list
    ),
    "start_rate": Setting(
        "start_rate",
        read_rate,
        None,
        "how many of its jobs may be started in what time",
        show=format_rate,
    ),
}
QUEUE_SETTINGS = tuple(_FIELDS.values())


def read_queues(written: Any, path: str) -> tuple[Queue, ...]:
    """The queues of a file, in its order; UsageError names the table and what is wrong in it."""
    if not isinstance(written, dict):
        raise UsageError(f"{path}: queues: each has a table of its own, as [queues.night]")
    if len(written) > MOST_QUEUES:
        raise UsageError(f"{path}: {len(written)} queues: there can be {MOST_QUEUES}")
    return tuple(_read_queue(name, table, path) for name, table in written.items())


def _read_queue(name: str, table: Any, path: str) -> Queue:
    place = f"{path}: queues.{name}"
    if not isinstance(table, dict):
        raise UsageError(f"{place}: it is a table of its own, as [queues.night]")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{path}: queues: {name!r} is no name of a queue: up to 40 letters, digits, - _ and ."
        )
    fields = {setting.name: field for field, setting in _FIELDS.items()}
    if unknown := [word for word in table if word not in fields]:
        raise UsageError(f"{place}: there is no {unknown[0]!r}{_hint(unknown[0], fields)}")
    said = {
        fields[word]: _FIELDS[fields[word]].checked(value, f"{place}.{word}")
        for word, value in table.items()
    }
    queue = Queue(name=name, **said)
    _check_times(queue, place)
    return queue


def _check_times(queue: Queue, place: str) -> None:
    usual, most = queue.time_limit_s, queue.max_time_limit_s
    if 0.0 in (usual, most):
        raise UsageError(f"{place}: in no time at all nothing can be done")
    if usual is not None and most is not None and usual > most:
        raise UsageError(
            f"{place}: a time_limit of {show_time(usual)} is more than its max_time_limit of "
            f"{show_time(most)}"
        )


def _hint(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # a client that only peeks does not pay for it

    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def queue_rows(queues: Iterable[Queue]) -> dict[str, str]:
    """ "queues.night.max_running" and its value as people write it, for all that is said of each."""
    rows: dict[str, str] = {}
    for queue in queues:
        said = {
            f"queues.{queue.name}.{setting.name}": setting.shown(getattr(queue, field))
            for field, setting in _FIELDS.items()
            if getattr(queue, field) != setting.default
        }
        rows |= said or {f"queues.{queue.name}": "as any other"}
    return rows
