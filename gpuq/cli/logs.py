"""`gpuq logs`: the bytes that a job wrote, as they are."""

import os
import sys
from typing import Annotated

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.job_text import farewell
from gpuq.cli.render import Job, printable
from gpuq.client import Client
from gpuq.errors import GpuqError, NothingMatched, NotPermitted, UsageError
from gpuq.follow import CHUNK, open_log, start_of_last_lines


def logs(
    context: typer.Context,
    job: Annotated[str, Argument(metavar="JOB", show_default=False)],
    follow: Annotated[
        bool, Option("-f", "--follow", help="From before its start to its end.")
    ] = False,
    lines: Annotated[
        int | None, Option("-n", "--lines", metavar="N", help="Only the last N lines.")
    ] = None,
    attempt: Annotated[
        int | None, Option(metavar="N", help="That attempt; the last unless said.")
    ] = None,
    stderr: Annotated[
        bool, Option("--stderr", help="What it wrote to the file of `submit --stderr`.")
    ] = False,
    path: Annotated[bool, Option("--path", help="Print only where the file is.")] = False,
) -> None:
    """What a job wrote.

    Examples:
      gpuq logs 184             all of it
      gpuq logs -f 184          follow it, from before its start to its end
      gpuq logs -n 20 @         the last 20 lines of your last submission
      less $(gpuq logs --path 184)

    Ctrl-C only stops following; the job goes on.
    """
    if follow and (path or stderr):
        raise UsageError("--follow goes with neither --path nor --stderr")
    with console.connect(context) as client:
        if follow:
            _follow(client, job, attempt, lines)
            return
        found = client.job(job)
    file = _file(found, attempt, stderr)
    if path:
        console.say(file)
    else:
        _print(found, file, lines)


def _follow(client: Client, ref: str, attempt: int | None, lines: int | None) -> None:
    following = client.follow(ref, attempt=attempt, tail=lines)
    try:
        for chunk in following:
            pour(chunk)
    except PermissionError:
        raise _not_yours(following.job) from None


def pour(chunk: bytes) -> None:
    """To stdout at once where the log pauses: a pipe is to see a line when the job has written it."""
    if chunk:
        sys.stdout.buffer.write(chunk)
    else:
        sys.stdout.buffer.flush()


def _file(job: Job, attempt: int | None, stderr: bool) -> str:
    path: str | None = job["stderr"] if stderr else _log(job, attempt)
    if path is None and stderr:
        raise NothingMatched(f"job {job['id']} has its errors in its log: gpuq logs {job['id']}")
    if path is None:
        reason = printable(job["reason"] or "it has not started")
        raise GpuqError(
            f"job {job['id']} has no log yet: {reason}. Follow it: gpuq logs -f {job['id']}"
        )
    return path


def _log(job: Job, attempt: int | None) -> str | None:
    if attempt is None:
        log: str | None = job["log"]
        return log
    for one in job["attempts"]:
        if one["attempt"] == attempt:
            found: str | None = one["log"]
            return found
    raise NothingMatched(f"job {job['id']} has no attempt {attempt}. See: gpuq show {job['id']}")


def _print(job: Job, path: str, lines: int | None) -> None:
    try:
        fd = open_log(path)
    except PermissionError:
        raise _not_yours(job) from None
    except FileNotFoundError:
        raise GpuqError(f"there is no log of job {job['id']} at {path}. {farewell(job)}") from None
    except OSError as error:
        raise GpuqError(f"the log of job {job['id']}: {path}: {error.strerror}") from None
    try:
        if lines is not None:
            os.lseek(fd, start_of_last_lines(fd, lines), os.SEEK_SET)
        is_empty = True
        while chunk := os.read(fd, CHUNK):
            pour(chunk)
            is_empty = False
    finally:
        os.close(fd)
    if is_empty and job["state"] == "ended":
        console.note(f"it wrote nothing. {farewell(job)}")


def _not_yours(job: Job) -> NotPermitted:
    return NotPermitted(f"the log of job {job['id']} is readable to {printable(job['user'])} alone")
