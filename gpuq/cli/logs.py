"""`gpuq logs`: the bytes that a job wrote, as they are; lines only where lines are asked for."""

from __future__ import annotations

import sys
from typing import NamedTuple

from gpuq.cli import console
from gpuq.cli.fold_text import name_of, span_of
from gpuq.cli.job_text import farewell
from gpuq.cli.log_times import Page, Part
from gpuq.cli.render import Job, Look, printable
from gpuq.cli.several import Several, attempt_of, several, to_choose_from
from gpuq.core.units import format_seconds
from gpuq.errors import GpuqError, NothingMatched, NotPermitted, UsageError
from gpuq.follow import LogFile, is_ours, open_log, rights_of_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated

    import typer

    from gpuq.cli.declaring import Argument, Option
    from gpuq.client import Client


def logs(
    context: typer.Context,
    job: Annotated[str, Argument(metavar="JOB", show_default=False)],
    follow: Annotated[
        bool, Option("-f", "--follow", help="From before its start to its end.")
    ] = False,
    lines: Annotated[
        int | None, Option("-n", "--lines", metavar="N", help="Only the last N lines.")
    ] = None,
    since: Annotated[
        str | None, Option(metavar="TIME", help="Only what came since: 2h, 2026-07-31T14:00, ...")
    ] = None,
    times: Annotated[
        bool, Option("-t", "--times", help="When each line came, to the second.")
    ] = False,
    attempt: Annotated[
        int | None, Option(metavar="N", help="That attempt; the last unless said.")
    ] = None,
    stderr: Annotated[
        bool, Option("--stderr", help="What it wrote to the file of `submit --stderr`.")
    ] = False,
    path: Annotated[bool, Option("--path", help="Print only where the file is.")] = False,
) -> int:
    """What a job wrote.

    Examples:
      gpuq logs 184             all of it
      gpuq logs -f 184          follow it, from before its start to its end
      gpuq logs -n 20 @         the last 20 lines of your last submission
      gpuq logs -t --since 2h 184
      less "$(gpuq logs --path 184)"
      gpuq logs -n 3 g187       the last 3 lines of each job of a group that has a log

    The bytes come as the job wrote them; with -t or -n a progress bar is one line, in its last
    state. When a job is tried again, -f goes on with the next attempt. Ctrl-C only stops following;
    the job goes on.
    """
    if follow and (path or stderr):
        raise UsageError("--follow goes with neither --path nor --stderr")
    if stderr and (since is not None or times):
        raise UsageError("nobody notes when the file of --stderr grows: no --since and no --times")
    look = console.look(context)
    columns = look.width if sys.stdout.isatty() else 0
    part = Part(lines, _moment(since, look), times, columns)
    with console.connect(context) as client:
        if (group := several(client, job)) is not None:
            if follow:
                raise UsageError(
                    f"--follow follows one job, and {group.words}. Choose one, as in "
                    f"gpuq logs -f {group.first}: {to_choose_from(group)}"
                )
            return _logs_of(client, group, _Wanted(attempt, part, stderr, path))
        if follow:
            _follow(client, job, attempt, part)
        else:
            _one_log(client.job(job), _Wanted(attempt, part, stderr, path))
    return 0


class _Wanted(NamedTuple):
    attempt: int | None
    part: Part
    stderr: bool
    path: bool  # only where it is


def _one_log(job: Job, wanted: _Wanted, head: bytes = b"") -> None:
    check_yours(job)
    one = attempt_of(job, wanted.attempt)
    file = path_of(job, one, wanted.stderr)
    if wanted.path:
        console.say(file)
        return
    log = LogFile(opened(job, file), is_ours=is_ours(job) and not wanted.stderr)
    pour(head)
    _print(job, one, log, wanted.part)


def _logs_of(client: Client, group: Several, wanted: _Wanted) -> int:
    """One after the other, each with a line before it, as `tail` does with several files. What cannot
    be shown of one is said and keeps none of the others from being shown."""
    started = [job for run in group.runs if run["attempt"] for job in span_of(run)]
    if not started:
        raise GpuqError(f"{group.words}, and none has a log yet. See: gpuq why {group.ref}")
    code, gap = 0, ""
    for number in started:
        job = client.job(number)
        try:
            _one_log(job, wanted, f"{gap}==> {number} {printable(name_of(job))} <==\n".encode())
            gap = "\n"
        except GpuqError as error:
            console.note(str(error))
            code = error.exit_code
    if group.is_part:
        console.note(f"those before {group.first} were not looked at")
    return code


def _moment(since: str | None, look: Look) -> float | None:
    if since is None:
        return None
    from gpuq.cli.jobs import read_since

    return read_since(since, look.now)


# ── as it comes ──


def _follow(client: Client, ref: str, attempt: int | None, part: Part) -> None:
    def start(log: LogFile) -> int:
        page.turn_to(following.attempt)
        return page.start(log)

    def say(line: str) -> None:
        pour(page.end_line())
        console.note(line)

    following = client.follow(ref, attempt=attempt, start=start, say=say)
    check_yours(following.job)
    _check_kept(following.job)
    if not following.job["attempt"]:
        part = part._replace(since=None)  # all of it is still to come
    page = Page(following.job, part)
    try:
        for chunk in following:
            if chunk:
                page.turn_to(following.attempt)
            pour(page.show(chunk, following.log))
            if not chunk:
                pour(b"")
        pour(page.rest())
    except PermissionError:
        raise _not_yours(following.job) from None
    finally:
        page.close()


def pour(chunk: bytes) -> None:
    """To stdout at once where the log pauses: a pipe is to see a line when the job has written it."""
    if chunk:
        sys.stdout.buffer.write(chunk)
    else:
        sys.stdout.buffer.flush()


def _poured(chunk: bytes) -> bytes:
    """Its last sign."""
    pour(chunk)
    return chunk[-1:]


# ── what is there ──


def path_of(job: Job, attempt: Job, stderr: bool) -> str:
    """Where its log is, or the file of its errors; GpuqError where there is none."""
    path: str | None = job["stderr"] if stderr else attempt["log"]
    if path is None and stderr:
        raise NothingMatched(f"job {job['id']} has its errors in its log: gpuq logs {job['id']}")
    if path is None:
        reason = printable(job["reason"] or "it has not started")
        raise GpuqError(
            f"job {job['id']} has no log yet: {reason}. Follow it: gpuq logs -f {job['id']}"
        )
    return path


def _print(job: Job, attempt: Job, log: LogFile, part: Part) -> None:
    page = Page(job, part)
    try:
        page.turn_to(attempt)
        log.position = page.start(log)
        last = b""
        for chunk in log.read():
            last = _poured(page.show(chunk, log)) or last
        last = _poured(page.rest()) or last
        if last not in (b"", b"\n") and sys.stdout.isatty():
            pour(b"\n")  # for the prompt to begin a line
    except PermissionError:
        raise _not_yours(job) from None
    finally:
        page.close()
        log.close()
    if log.position == 0 and job["state"] == "ended":
        console.note(f"it wrote nothing. {farewell(job)}")


def opened(job: Job, path: str) -> int:
    """A descriptor of its log; GpuqError says why it cannot be read."""
    try:
        with rights_of_owner(job):
            return open_log(path)
    except PermissionError:
        raise _not_yours(job) from None
    except FileNotFoundError:
        _check_kept(job)
        so_far = farewell(job) if job["state"] == "ended" else f"Job {job['id']} is {job['state']}"
        raise GpuqError(f"there is no log of job {job['id']} at {path}. {so_far}") from None
    except OSError as error:
        raise GpuqError(f"the log of job {job['id']}: {path}: {error.strerror}") from None


def _check_kept(job: Job) -> None:
    """Logs grow old, and are removed; the job stays listed."""
    if job.get("files_removed_at") is None or not is_ours(job):
        return
    after = format_seconds(job["files_removed_at"] - job["ended_at"])
    raise GpuqError(
        f"the log of job {job['id']} was removed {after} after its end. {farewell(job)}. "
        "How long logs are kept: gpuq config (keep_for, keep_size)"
    )


def check_yours(job: Job) -> None:
    if job.get("hidden"):
        raise _not_yours(job)


def _not_yours(job: Job) -> NotPermitted:
    return NotPermitted(f"the log of job {job['id']} is readable to {printable(job['user'])} alone")
