"""`gpuq history`: what has ended, the last one first."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.fold_text import name_of
from gpuq.cli.job_text import PIPE_COLUMNS, column_values, elapsed, gpus_of, letter
from gpuq.cli.render import NAME_LEAST, Column, Job, Look, fitting, moment, printable, tabbed, table
from gpuq.cli.results.past_options import (
    Export,
    Json,
    Mine,
    Name,
    Queue,
    Tag,
    User,
    check_export,
    read_moment,
    which,
    write_export,
)
from gpuq.cli.results.past_text import (
    NOTHING,
    foot,
    idle_words,
    is_simulated,
    simulated_jobs,
    utilization,
    why,
)
from gpuq.client import Client
from gpuq.core.units import format_bytes, format_energy, format_seconds
from gpuq.errors import UsageError

ROWS_ON_A_TERMINAL = 25
WHY_LEAST = 16
FAILED = ["failed", "timed_out", "out_of_memory", "lost"]


def history(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    since: Annotated[
        str | None, which("--since", metavar="TIME", help="Ended since: 24h, 2026-07-31, ...")
    ] = None,
    until: Annotated[
        str | None, which("--until", metavar="TIME", help="Ended before that.")
    ] = None,
    failed: Annotated[
        bool, which("--failed", help="Failed, out of time or memory, or lost.")
    ] = False,
    state: Annotated[
        list[str] | None,
        which("-s", "--state", metavar="WORD", help="succeeded, failed, oom, ...; repeatable."),
    ] = None,
    idle: Annotated[
        bool, which("--idle", help="Only those that held a GPU and did not use it.")
    ] = False,
    mine: Mine = False,
    user: User = None,
    name: Name = None,
    tag: Tag = None,
    queue: Queue = None,
    limit: Annotated[
        int | None, Option(metavar="N", help="At most N; 0: all. On a terminal 25.")
    ] = None,
    json: Json = False,
    export: Export = None,
) -> None:
    """What has ended, the last one first.

    Examples:
      gpuq history                      the last 25
      gpuq history --failed --since 24h
      gpuq history -u bob -n 'sweep*'
      gpuq history --idle               who held GPUs for nothing
      gpuq history g12 --export runs.csv
      gpuq history --json | jq '.jobs[] | [.id, .gpu_util_mean]'

    UTIL is how busy its GPUs were in the mean, MEMORY the most that it used of one of them; idle
    is who computed nothing for long until its end, or hardly anything in all of its time. On a
    pipe the columns are those of status (id, state, substate, outcome, name, user, gpus, priority,
    started, ended, reason, command), then attempt, utilisation (percent), GPU memory (bytes),
    energy (J), idle or nothing.
    """
    check_export(export, json)
    look = console.look(context)
    asked: dict[str, Any] = {
        "refs": list(jobs or []),
        "since": read_moment(since, look.now),
        "until": read_moment(until, look.now),
        "states": _states(state, failed),
        "idle": idle,
        "mine": mine,
        "user": user,
        "name": name,
        "tag": tag,
        "queue": queue,
    }
    with console.connect(context) as client:
        if export is not None:
            found = [_kept(job) for page in _pages(client, asked, limit or None) for job in page]
            write_export(export, "jobs", found)
        elif json:
            found = [job for page in _pages(client, asked, limit or None) for job in page]
            console.say_json(jobs=found)
        elif look.terminal:
            _show(client, asked, ROWS_ON_A_TERMINAL if limit is None else limit or None, look)
        else:
            for page in _pages(client, asked, limit or None):
                console.say(*map(_row, page))


def _states(state: list[str] | None, failed: bool) -> list[str]:
    from gpuq.cli.jobs import split_words

    if state and failed:
        raise UsageError("--state and --failed exclude each other: name all states that are meant")
    return FAILED if failed else split_words(state or [])


def _pages(client: Client, asked: dict[str, Any], limit: int | None) -> Iterator[list[Job]]:
    from gpuq.past import pages

    return pages(client.call, asked, limit)


# ── shown ──


def _show(client: Client, asked: dict[str, Any], limit: int | None, look: Look) -> None:
    more = None if limit is None else limit + 1
    found = [job for page in _pages(client, asked, more) for job in page]
    shown = found[:limit]
    columns = _columns(shown, look)
    console.say(*table(fitting(columns, shown, look), shown, look))
    said = [simulated_jobs(shown), "more not shown: --limit 0" if len(found) > len(shown) else ""]
    for line in said if found else ["nothing of that has ended"]:
        console.say(*foot(line, look))


def _columns(jobs: Sequence[Job], look: Look) -> list[Column]:
    are_all_simulated = simulated_jobs(jobs)

    def mark(job: Job) -> str:
        return "simulated" if is_simulated(job) and not are_all_simulated else ""

    return [
        Column("ID", lambda job: str(job["id"])),
        Column("ST", letter),
        Column("NAME", lambda job: printable(name_of(job)), least=NAME_LEAST),
        Column("USER", lambda job: printable(job["user"]), unused=look.user, least=NAME_LEAST),
        Column("GPU", gpus_of, unused="-"),
        Column("", mark),
        Column("ENDED", lambda job: moment(job["ended_at"], look.now)),
        Column("TIME", lambda job: format_seconds(elapsed(job, look.now)), right=True, unused="-"),
        Column("RUNS", lambda job: str(job["attempt"]), right=True, unused="1"),
        Column("UTIL", utilization, right=True, unused=NOTHING),
        Column("", idle_words),
        Column(
            "MEMORY",
            lambda job: format_bytes(job["gpu_peak_bytes"]),
            right=True,
            unused=NOTHING,
            optional=1,
        ),
        Column(
            "ENERGY",
            lambda job: format_energy(job["gpu_energy_j"]),
            right=True,
            unused=NOTHING,
            optional=2,
        ),
        Column("WHY", why, least=WHY_LEAST),
    ]


def _row(job: Job) -> str:
    values = column_values(0.0)
    idle = "idle" if job["held_idle"] else None
    used = [job["attempt"], job["gpu_util_mean"], job["gpu_peak_bytes"], job["gpu_energy_j"], idle]
    return tabbed([*(values[name](job) for name in PIPE_COLUMNS), *used])


_EXPORTED = (
    "id name user group array_index parameters queue tags outcome exit_code signal attempt "
    "submitted_at started_at ended_at gpu_count gpus gpu_uuids gpus_simulated cpu_fallback "
    "gpu_util_mean gpu_util_peak gpu_peak_bytes gpu_energy_j held_idle memory_peak_bytes "
    "peak_rss_bytes paused_s metrics error_signature reason command cwd"
)


def _kept(job: Job) -> dict[str, Any]:
    """The same fields for every job."""
    return {name: job.get(name) for name in _EXPORTED.split()}
