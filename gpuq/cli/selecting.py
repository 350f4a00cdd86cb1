"""Jobs that are chosen by what they are and not by number, and the question before several running ones
are ended."""

from __future__ import annotations

from gpuq.cli import console
from gpuq.cli.fold_text import name_of
from gpuq.cli.render import Job, printable
from gpuq.client import Client
from gpuq.core.units import count
from gpuq.errors import NothingMatched, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

ENDS = "This ends {jobs}: {names}. End them?"


def chosen(
    verb: str,
    client: Client,
    refs: Sequence[str] | None,
    *,
    usual: Sequence[str] = (),
    ended: bool = True,
    state: Sequence[str] | None,
    name: str | None,
    **wanted: Any,
) -> tuple[list[str], list[Job]]:
    """What is to be named to the daemon, and where selectors chose, the jobs that they found. `usual`
    are the states that are meant where none is given; jobs that have ended are, where somebody says so
    and `ended` allows it."""
    from gpuq.cli.jobs import split_words
    from gpuq.core.units import format_spans, merged

    states = split_words(state or [])
    named = list(refs or [])
    if not (states or name or any(wanted.values())):
        if not named:
            raise UsageError(
                f"{verb} what? Give jobs, or a selector such as --mine. See: gpuq status"
            )
        return named, []
    wanted["states"] = states or list(usual)
    found = client.jobs(named, **wanted, changeable=True, runs=name is None)
    if name is not None:
        found = [job for job in found if is_called(job, name)]
    if not (states and ended):  # jobs that are named are listed though they have ended
        found = [job for job in found if job["state"] != "ended"]
    if not found:
        among = f" of {' '.join(named)}" if named else ""
        raise NothingMatched(f"no job{among} matches that may be changed. See: gpuq status")
    # However many they are, as few words as they take: jobs are submitted side by side.
    spans = (range(job["id"], job.get("last_id", job["id"]) + 1) for job in found)
    return format_spans(merged(spans)).split(","), found


def is_called(job: Job, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    if job.get("hidden"):
        return False
    return fnmatchcase(job["name"], pattern) or fnmatchcase(name_of(job), pattern)


def ask_first(jobs: Sequence[Job], question: str = ENDS) -> None:
    """A selector may mean more than its writer thought of; what it ends cannot be brought back."""
    running = [job for job in jobs if job["state"] in ("starting", "running")]
    if len(running) < 2:
        return
    several = len({job["user"] for job in running}) > 1
    names = ", ".join(_called(job, with_user=several) for job in running[:8])
    more = f" and {len(running) - 8} more" if len(running) > 8 else ""
    asked = question.format(jobs=count(len(running), "running job"), names=f"{names}{more}")
    if not console.confirm(asked, instead="-y"):
        console.note("nothing was ended")
        raise console.Leave(1)


def _called(job: Job, *, with_user: bool) -> str:
    owner = f" ({printable(job['user'])})" if with_user else ""
    return f"{job['id']} {printable(job['name'])}{owner}"
