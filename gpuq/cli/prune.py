"""`gpuq prune`: jobs that have ended, removed for good with all that they left."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.job_options import read_option
from gpuq.cli.job_text import words
from gpuq.cli.jobs import split_words
from gpuq.cli.render import Column, Job, Look, clock, plain, printable, rfc3339, tabbed, table
from gpuq.client import Client
from gpuq.core.units import count, format_bytes, format_spans, parse_seconds
from gpuq.errors import UsageError

AT_ONCE = 500  # jobs of one request
LOOK_S, LOOK_SELDOM_S = 0.05, 1.0
SHOWN = 20  # before the question

selector = partial(Option, rich_help_panel="In place of JOB")


def prune(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    older_than: Annotated[
        str | None, selector(metavar="TIME", help="Those that ended so long ago, like 7d.")
    ] = None,
    state: Annotated[
        list[str] | None,
        selector(
            "-s", "--state", metavar="WORD", help="ended, failed, cancelled, ...; repeatable."
        ),
    ] = None,
    keep: Annotated[
        int | None, selector(metavar="N", min=0, help="All of those but the newest N.")
    ] = None,
    outputs: Annotated[
        bool, Option("--outputs", help="What they put into their output directories, too.")
    ] = False,
    dry_run: Annotated[
        bool, Option("-n", "--dry-run", help="Only say what would be removed.")
    ] = False,
    yes: Annotated[bool, Option("-y", "--yes", help="Do not ask.")] = False,
    json: Annotated[bool, Option("--json", help="Print them as JSON.")] = False,
) -> int:
    """Remove jobs that have ended, for good: their rows, attempts and logs.

    Examples:
      gpuq prune 12-18,20
      gpuq prune --older-than 7d -n        what would go, and how much that is
      gpuq prune -s failed --keep 10       all that failed but the last ten
      gpuq prune --older-than 30d -y       in a script

    Without JOB only your own are meant. An output directory in which something lies stays, unless
    --outputs is given. It returns when all is gone; Ctrl-C only stops waiting. Logs grow old by
    themselves, see keep_for and keep_size in gpuq config; their jobs stay listed.
    """
    query = _query(list(jobs or []), older_than, state, keep)
    look = console.look(context)
    with console.connect(context) as client:
        found = _find(client, query, outputs)
        if dry_run or not found:
            _list(found, look, outputs, json, would=True)
            return 0
        if not yes:
            _ask_first(found, look, outputs)
        troubles = _remove(client, found, outputs)
    _list(found, look, outputs, json, would=False, troubles=troubles)
    return 1 if troubles else 0


def _query(
    jobs: list[str], older_than: str | None, state: list[str] | None, keep: int | None
) -> dict[str, Any]:
    if jobs and (older_than is not None or state or keep is not None):
        raise UsageError("give either jobs or a selector (--older-than, --state, --keep), not both")
    if not jobs and older_than is None and not state and keep is None:
        raise UsageError(
            "prune what? Give jobs, or a selector such as --older-than 7d. See: gpuq prune --help"
        )
    return {
        "refs": jobs,
        "older_than_s": read_option("--older-than", parse_seconds, older_than),
        "states": split_words(state or []),
        "keep": keep,
    }


def _find(client: Client, query: dict[str, Any], outputs: bool) -> list[Job]:
    found: list[Job] = []
    after: int | None = None
    while True:
        page = client.call("prunable", after=after, outputs=outputs, answer_s=None, **query)
        found += page["jobs"]
        after = page["after"]
        if after is None:
            return found


def _remove(client: Client, jobs: Sequence[Job], outputs: bool) -> dict[int, str]:
    """Asks for exactly those that were listed, and waits; returns those that could not be removed,
    each with the reason. What is asked is on disk: a daemon that is restarted goes on with it."""
    for start in range(0, len(jobs), AT_ONCE):
        named = format_spans(_ids(job) for job in jobs[start : start + AT_ONCE])
        client.call("prune", refs=[named], outputs=outputs)
    pause_s = LOOK_S
    while (answer := client.call("pruning"))["pending"]:
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LOOK_SELDOM_S)
    asked = {job["id"] for job in jobs}
    return {one["id"]: one["trouble"] for one in answer["troubles"] if one["id"] in asked}


def _ask_first(jobs: Sequence[Job], look: Look, outputs: bool) -> None:
    if look.terminal:
        shown = jobs[:SHOWN]
        console.say(*_table(shown, look))
        if more := sum(len(_ids(job)) for job in jobs[len(shown) :]):
            console.say(plain(f"… and {more} more", look))
    question = f"This removes {_what(jobs, outputs)} for good. Remove?"
    if not console.confirm(question, instead="-y"):
        raise typer.Exit(1)


# ── said ──


def _list(
    jobs: Sequence[Job],
    look: Look,
    outputs: bool,
    json: bool,
    *,
    would: bool,
    troubles: dict[int, str] | None = None,
) -> None:
    troubles = troubles or {}
    if json:
        console.say_json(dry_run=would, jobs=[_as_json(job, troubles, would) for job in jobs])
        return
    if not jobs:
        console.note("no job that has ended matches: there is nothing to remove")
    elif not look.terminal:
        console.say(*(_row(job, troubles, would) for job in jobs))
    else:
        if would:
            console.say(*_table(jobs, look))
        gone = [job for job in jobs if job["id"] not in troubles]
        verb = "would remove" if would else "removed"
        console.say(plain(f"{verb} {_what(gone, outputs)}", look))
        if kept := _kept(gone, outputs):
            console.say(plain(kept, look))
    for number, trouble in troubles.items():
        console.note(f"job {number} is still there: {printable(trouble)}")


def _what(jobs: Sequence[Job], outputs: bool) -> str:
    number = sum(len(_ids(job)) for job in jobs)
    text = f"{count(number, 'job')} and {format_bytes(_sum(jobs, 'files_bytes'))} of logs"
    return text + (f" and {format_bytes(_sum(jobs, 'output_bytes'))} of outputs" if outputs else "")


def _kept(jobs: Sequence[Job], outputs: bool) -> str | None:
    kept = sum(job["output_bytes"] is None for job in jobs)
    if outputs or not kept:
        return None
    what = "1 output directory" if kept == 1 else f"{kept} output directories"
    return f"{what} with something in it stay{'s' if kept == 1 else ''}; --outputs removes that too"


def _ids(job: Job) -> range:
    """A run of jobs that never started stands in one row."""
    return range(job["id"], (job.get("last_id") or job["id"]) + 1)


def _named(job: Job) -> str:
    return format_spans([_ids(job)])


def _sum(jobs: Sequence[Job], name: str) -> int:
    return sum(job[name] or 0 for job in jobs)


def _row(job: Job, troubles: dict[int, str], would: bool) -> str:
    done = "would_remove" if would else "still_there" if job["id"] in troubles else "removed"
    sizes = (job["files_bytes"], job["output_bytes"])
    return tabbed(
        [_named(job), done, job["outcome"], job["name"], rfc3339(job["ended_at"]), *sizes]
    )


def _as_json(job: Job, troubles: dict[int, str], would: bool) -> Job:
    trouble = troubles.get(job["id"])
    return job | {"removed": not would and trouble is None, "trouble": trouble}


def _table(jobs: Sequence[Job], look: Look) -> list[str]:
    columns = [
        Column("ID", _named),
        Column("END", lambda job: words(job["outcome"])),
        Column("NAME", lambda job: printable(job["name"])),
        Column("USER", lambda job: printable(job["user"]), unused=look.user),
        Column("ENDED", lambda job: clock(job["ended_at"])),
        Column("LOGS", lambda job: format_bytes(job["files_bytes"]), right=True),
        Column("OUTPUT", _output, right=True),
    ]
    return table(columns, jobs, look)


def _output(job: Job) -> str:
    if job["output_bytes"] is None:
        return "stays"
    return format_bytes(job["output_bytes"]) if job["output_bytes"] else ""
