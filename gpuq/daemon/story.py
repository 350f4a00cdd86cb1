"""What happened to jobs, told to the journal in sentences: `journalctl GPUQ_JOB=12` is the story of
job 12. It follows the events, so nobody else has to think of it. What a job was given to run, and its
environment, are in none of them.

Only where there is a journal, which limits its own size: nothing cuts a log file of the daemon's.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from gpuq.core.events import GPUQ, special_cause
from gpuq.daemon.store.connection import Row
from gpuq.daemon.store.told import Told
from gpuq.daemon.systemd.journal import Journal
from gpuq.daemon.watchers import Watchers

EVENTS_AT_ONCE = 100

WORDS = {
    "starting": "is being started",
    "running": "runs",
    "main_ended": "has ended itself, and others of its processes have not",
    "attempt_ended": "has ended an attempt",
    "backoff": "waits for its next attempt",
    "backoff_over": "may be started again",
    "due": "may be started, as its time has come",
    "returned": "is back in the queue",
    "stop_asked": "is to end",
    "signal_asked": "is to get a signal",
    "pause_asked": "is to stand still",
    "resume_asked": "is to go on",
    "paused": "stands still",
    "resumed": "goes on",
    "term_sent": "was sent TERM",
    "kill_sent": "was sent KILL",
    "signal_sent": "was sent a signal",
    "unkillable": "lives on after KILL",
    "over_memory": "uses more GPU memory than it asked for",
    "notice_failed": "has a notice that could not be delivered",
    "notice_dropped": "has a notice that is not delivered",
}
WARNED_OF = ("returned", "unkillable", "over_memory", "notice_failed", "notice_dropped")


class Story:
    """Tells what is written down from now on. `run` goes on until it is cancelled."""

    def __init__(self, told: Told, watchers: Watchers, journal: Journal) -> None:
        self._told = told
        self._watchers = watchers
        self._journal = journal
        self._told_to = told.last_event()

    async def run(self) -> None:
        try:
            while True:
                if self.tell():
                    await asyncio.sleep(0)  # clients are answered in between
                else:
                    await self._watchers.next_commit(None)
        finally:
            while self.tell():
                pass

    def tell(self) -> bool:
        """Some of what is not told yet; False where that was nothing."""
        rows = self._told.story(self._told_to, EVENTS_AT_ONCE)
        for row in rows:
            self._told_to = row["seq"]
            self._tell_one(row)
        return bool(rows)

    def _tell_one(self, row: Row) -> None:
        detail = json.loads(row["detail"] or "{}")
        held = json.loads(row["gpus"] or "{}")
        is_bad = row["kind"] in WARNED_OF or detail.get("outcome") == "lost"
        fields = {
            "job": row["job"],
            "attempt": row["attempt"],
            "user": row["user"],
            "gpu": [*held.get("uuids", ()), *held.get("indices", ())],
            "moment": row["kind"],
            "by": row["actor"],
            "why": row["cause"],
            **{name: detail[name] for name in detail if name != "gpus"},
        }
        self._journal.tell("warning" if is_bad else "info", _sentence(row, detail, held), fields)


def _sentence(row: Row, detail: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    kind, job = row["kind"], row["job"]
    if kind == "submitted":
        return _submitted(job, detail.get("count", 1), row["actor"])
    last = detail.get("last")
    which = f"job {job}" if last is None else f"each of jobs {job} to {last}"
    words = f"{which} {WORDS.get(kind, kind.replace('_', ' '))}"
    if kind == "ended":
        words = f"{which} of {row['user']} has ended, {detail.get('outcome')}"
    if kind in ("starting", "running") and (indices := held.get("indices")):
        words += f" on {'GPUs' if len(indices) > 1 else 'GPU'} {', '.join(map(str, indices))}"
    words += f", attempt {row['attempt']}" if (row["attempt"] or 1) > 1 else ""
    words += f", {row['actor']} wants" if row["actor"] != GPUQ else ""
    cause = special_cause(kind, row["cause"])
    return f"{words}: {cause}" if cause else words


def _submitted(first: int, count: int, user: str) -> str:
    if count == 1:
        return f"job {first} was queued by {user}"
    return f"jobs {first} to {first + count - 1} were queued by {user}"
