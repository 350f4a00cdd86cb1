"""`gpuq kill` and `wait`: the end of jobs, asked for and awaited."""

from __future__ import annotations

from gpuq.cli import console
from gpuq.cli.ending import exit_code, own_failures
from gpuq.cli.fold_text import called, run_of, together
from gpuq.cli.job_options import read_option
from gpuq.cli.job_text import job_row
from gpuq.cli.render import Job, plain, tabbed
from gpuq.cli.selecting import ask_first, chosen
from gpuq.core.units import parse_seconds
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Annotated, Any

    import typer

    from gpuq.cli.declaring import (
        Argument,
        Mine,
        Name,
        Option,
        Queue,
        State,
        Tag,
        Yes,
        selector,
    )


def kill(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    grace: Annotated[
        str | None, Option(metavar="TIME", help="From TERM to KILL, like 30s; 10 s unless said.")
    ] = None,
    now: Annotated[bool, Option("--now", help="KILL at once.")] = False,
    signal: Annotated[
        str | None,
        Option("--signal", metavar="NAME", help="Send one signal, like USR1, and end nothing."),
    ] = None,
    state: State = None,
    name: Name = None,
    tag: Tag = None,
    queue: Queue = None,
    user: Annotated[
        str | None, selector("-u", "--user", metavar="NAME", help="Theirs; for admins.")
    ] = None,
    mine: Mine = False,
    yes: Yes = False,
    wait: Annotated[bool, Option("-w", "--wait", help="Return when they are gone.")] = False,
    json: Annotated[bool, Option("--json", help="Print what was done to each as JSON.")] = False,
) -> int:
    """End jobs: TERM, and KILL after the grace, to everything a job started. Queued ones never start.

    Examples:
      gpuq kill 184
      gpuq kill 12-18,20 --now     KILL at once
      gpuq kill --mine -s queued   all that I have waiting
      gpuq kill -s queued g88      what still waits of g88
      gpuq kill 184 --signal USR1  only a message

    A selector means your own jobs; an admin's means everybody's. The cancel of jobs that waited can be
    taken back for a while: gpuq undo.
    """
    how = _how(grace, now, signal)
    wanted: dict[str, Any] = {
        "state": state,
        "name": name,
        "tag": tag,
        "queue": queue,
        "user": user,
        "mine": mine,
    }
    with console.connect(context) as client:
        refs, found = chosen("kill", client, jobs, ended=False, **wanted)
        if not yes:
            ask_first(found)
        done = client.kill(refs, **how)
        if json:
            console.say_json(jobs=done)
        else:
            _report(context, done, how.get("signal"))
        if wait:
            client.wait([run_of(job) for job in done])
    return 1 if any(job["done"] == "not_running" for job in done) else 0


def _how(grace: str | None, now: bool, signal: str | None) -> dict[str, Any]:
    if sum((grace is not None, now, signal is not None)) > 1:
        raise UsageError("--grace, --now and --signal exclude each other")
    if signal is not None:
        return {"signal": read_signal(signal)}
    if now:
        return {"grace_s": 0}
    grace_s = read_option("--grace", parse_seconds, grace)
    return {} if grace_s is None else {"grace_s": grace_s}


def read_signal(text: str) -> int:
    """A signal by name, with or without SIG, in any case, or by number."""
    from signal import Signals

    word = text.strip().upper()
    try:
        if word.isdigit():
            return int(Signals(int(word)))
        return int(Signals["SIG" + word.removeprefix("SIG")])
    except (KeyError, ValueError):
        raise UsageError(
            f"--signal: {text!r} is no signal: write it like INT, SIGUSR1 or 10"
        ) from None


def _report(context: typer.Context, done: Sequence[Job], signal: int | None) -> None:
    look = console.look(context)
    if look.terminal:
        said = [console.hint(context, sentence(run, signal)) for run in together(done)]
        console.say(*(plain(line, look) for line in said))
    else:
        console.say(*(tabbed([run_of(run), run["done"]]) for run in done))


def sentence(job: Job, signal: int | None, *, tells_undo: bool = True) -> str:
    """What was done to a job, or to those together to which the same was done; and the command that
    would undo it."""
    from gpuq.cli.job_text import signal_name

    grace = f", KILL in {job['grace_s']:g} s" if job.get("grace_s") else ""
    undo = f" (undo: gpuq undo {run_of(job)})" if tells_undo else ""
    what = {
        "cancelled": f"cancelled: it never started{undo}",
        "stopping": f"stopping{grace}",
        "killing": "stopping: KILL",
        "signalled": f"got {signal_name(signal or 0)}",
        "already_ended": "had already ended",
        "not_running": "does not run, so there is nothing to signal",
    }
    return f"{called(job)} {_plural(job, what.get(str(job['done']), str(job['done'])))}"


def _plural(job: Job, said: str) -> str:
    """What is said of one job, of a run of them."""
    if run_of(job) == str(job["id"]):
        return said
    return said.replace("it never started", "they never started").replace(
        "does not run, so there", "do not run, so there"
    )


def wait(
    context: typer.Context,
    jobs: Annotated[list[str], Argument(metavar="JOB ...", show_default=False)],
    any_: Annotated[bool, Option("--any", help="Until the first of them has ended.")] = False,
    timeout: Annotated[
        str | None, Option(metavar="TIME", help="No longer than this, like 2h; then exit 124.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print those that ended as JSON.")] = False,
) -> int:
    """Wait until jobs have ended; exit with the highest of their codes.

    Examples:
      gpuq wait 184 && ./evaluate.sh
      gpuq wait --any 12-18
      gpuq wait --timeout 2h @

    128+N stands for signal N, 125 for a job that ended without a code.
    """
    timeout_s = read_option("--timeout", parse_seconds, timeout)
    with console.connect(context) as client:
        client.call("status", refs=jobs, limit=1)  # who means no job hears so now, as a plain error
        with own_failures():
            ended = client.wait(jobs, any_=any_, timeout_s=timeout_s)
    _say_ended(context, ended, json)
    return max(map(exit_code, ended), default=0)


def _say_ended(context: typer.Context, jobs: Sequence[Job], json: bool) -> None:
    look = console.look(context)
    if json:
        console.say_json(jobs=jobs)
    else:
        from gpuq.cli.several import farewells

        lines = [plain(line, look) for line in farewells(jobs)] if look.terminal else None
        console.say(*(lines if lines is not None else map(job_row, jobs)))
