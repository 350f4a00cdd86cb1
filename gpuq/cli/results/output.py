"""`gpuq output`: where a job's results are, for a person to look into and for a shell to go on with."""

import os
import sys
from typing import Annotated

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.fold_text import span_of
from gpuq.cli.render import Job, printable
from gpuq.cli.several import Several, attempt_of, several, to_choose_from
from gpuq.client import Client
from gpuq.core.units import format_seconds
from gpuq.errors import GpuqError, NotPermitted, UsageError

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def output(
    context: typer.Context,
    job: Annotated[str, Argument(metavar="JOB", show_default=False)],
    attempt: Annotated[
        int | None, Option(metavar="N", help="That attempt; the last unless said.")
    ] = None,
    open_: Annotated[
        bool, Option("--open", help="Show it in this desktop's file manager (xdg-open).")
    ] = False,
) -> int:
    """Where a job's output directory is: the one that it finds in GPUQ_OUTPUT_DIR.

    Examples:
      gpuq output 184
      ls -l "$(gpuq output 184)"
      gpuq output --attempt 1 184    what the first attempt left
      gpuq output g187               of each job of a group that has one, a line each
      gpuq output --open @           look into that of your last submission

    Each attempt has a directory of its own. jobs/184/output in the state directory is a link to that
    of the latest. What lies in there stays until you remove it: gpuq prune --outputs.
    """
    if open_:
        _check_display()
    with console.connect(context) as client:
        if (group := several(client, job)) is None:
            place = _place(client.job(job), attempt)
            if open_:
                return _open(place)
            console.say(place)
            return 0
        if open_:
            raise UsageError(f"--open shows one, and {group.words}: {to_choose_from(group)}")
        return _of_each(client, group, attempt)


def _of_each(client: Client, group: Several, attempt: int | None) -> int:
    """What one of them has not keeps none of the others from being told."""
    started = [number for run in group.runs if run["attempt"] for number in span_of(run)]
    if not started:
        raise GpuqError(f"{group.words}, and none has started yet. See: gpuq why {group.ref}")
    code = 0
    for number in started:
        try:
            console.say(_place(client.job(number), attempt))
        except GpuqError as error:
            console.note(str(error))
            code = error.exit_code
    if group.is_part:
        console.note(f"those before {group.first} were not looked at")
    return code


def _place(job: Job, attempt: int | None) -> str:
    """The path; GpuqError where there is no such directory, or it is not to be seen."""
    if job.get("hidden"):
        user = printable(job["user"])
        raise NotPermitted(f"the output of job {job['id']} is readable to {user} alone")
    path: str | None = attempt_of(job, attempt)["output_dir"]
    if path is None:
        reason = printable(job["reason"] or "it has not started")
        raise GpuqError(f"job {job['id']} has no output yet: {reason}. See: gpuq why {job['id']}")
    if job["files_removed_at"] is not None and not os.path.lexists(path):
        after = format_seconds(job["files_removed_at"] - job["ended_at"])
        raise GpuqError(
            f"job {job['id']} left nothing in its output directory, or somebody removed it: it went "
            f"with the job's log, {after} after the end"
        )
    return path


def _check_display() -> None:
    """A program with a window needs somewhere to show it, and a person to look."""
    if not sys.stdout.isatty():
        raise UsageError("--open is for a person at a terminal. Without it the path is printed")
    if not any(os.environ.get(name) for name in DISPLAYS):
        raise UsageError("--open needs a desktop, and here is none. Without it the path is printed")


def _open(path: str) -> int:
    try:
        pid = os.posix_spawnp("xdg-open", ["xdg-open", path], os.environ)
    except FileNotFoundError:
        raise GpuqError(f"--open needs xdg-open, which is not here. The path is {path}") from None
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise GpuqError(f"xdg-open could not show {path}: it ended with {code}")
    return 0
