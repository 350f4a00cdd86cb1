"""`gpuq kill` and `wait`: the end of jobs, asked for and awaited."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.commands import read_option
from gpuq.cli.ending import exit_code, own_failures
from gpuq.cli.fold_text import called, run_of
from gpuq.cli.job_text import farewell, job_row
from gpuq.cli.jobs import split_words
from gpuq.cli.render import Job, plain, printable, tabbed
from gpuq.client import Client
from gpuq.core.units import count, parse_seconds
from gpuq.errors import NothingMatched, UsageError

selector = partial(Option, rich_help_panel="In place of JOB")


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
    state: Annotated[
        list[str] | None,
        selector("-s", "--state", metavar="WORD", help="queued, running, held, ...; repeatable."),
    ] = None,
    name: Annotated[
        str | None,
        selector("-n", "--name", metavar="NAME", help="By name; * and ? stand for any letters."),
    ] = None,
    tag: Annotated[str | None, selector(metavar="TAG", help="Those with this tag.")] = None,
    queue: Annotated[
        str | None, selector("-q", "--queue", metavar="NAME", help="Those in this queue.")
    ] = None,
    user: Annotated[
        str | None, selector("-u", "--user", metavar="NAME", help="Theirs; for admins.")
    ] = None,
    mine: Annotated[bool, selector("-m", "--mine", help="My own.")] = False,
    yes: Annotated[
        bool, Option("-y", "--yes", help="Do not ask where more than one running job is meant.")
    ] = False,
    wait: Annotated[bool, Option("-w", "--wait", help="Return when they are gone.")] = False,
    json: Annotated[bool, Option("--json", help="Print what was done to each as JSON.")] = False,
) -> int:
    """End jobs: TERM, and KILL after the grace, to everything a job started. Queued ones never start.

    Examples:
      gpuq kill 184
      gpuq kill 12-18,20 --now     KILL at once
      gpuq kill --mine -s queued   all that I have waiting
      gpuq kill 184 --signal USR1  only a message

    A selector means your own jobs; an admin's means everybody's. The cancel of jobs that waited can be
    taken back for a while: gpuq undo.
    """
    how = _how(grace, now, signal)
    states = split_words(state or [])
    wanted = {"states": states, "tag": tag, "queue": queue, "user": user, "mine": mine}
    selects = bool(name or any(wanted.values()))
    if jobs and selects:
        raise UsageError(
            "give either jobs or a selector (--state, --name, --tag, --queue, --user, --mine), "
            "not both"
        )
    with console.connect(context) as client:
        refs = list(jobs or [])
        if selects:
            selected = _select(client, wanted, name)
            if not yes:
                _ask_first(selected)
            refs = [run_of(job) for job in selected]
        if not refs:
            raise UsageError("kill what? Give jobs, or a selector such as --mine. See: gpuq status")
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


def _select(client: Client, wanted: dict[str, Any], name: str | None) -> list[Job]:
    jobs = client.jobs(**wanted, changeable=True, runs=name is None)
    found = [
        job for job in jobs if job["state"] != "ended" and (name is None or _is_called(job, name))
    ]
    if not found:
        raise NothingMatched("no job that waits or runs matches. See: gpuq status")
    return found


def _is_called(job: Job, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return not job.get("hidden") and fnmatchcase(job["name"], pattern)


def _ask_first(jobs: Sequence[Job]) -> None:
    """A selector may mean more than its writer thought of; what it ends cannot be brought back."""
    running = [job for job in jobs if job["state"] in ("starting", "running")]
    if len(running) < 2:
        return
    several = len({job["user"] for job in running}) > 1
    names = ", ".join(_called(job, with_user=several) for job in running[:8])
    more = f" and {len(running) - 8} more" if len(running) > 8 else ""
    question = f"This ends {count(len(running), 'running job')}: {names}{more}. End them?"
    if not console.confirm(question, instead="-y"):
        raise typer.Exit(1)


def _called(job: Job, *, with_user: bool) -> str:
    owner = f" ({printable(job['user'])})" if with_user else ""
    return f"{job['id']} {printable(job['name'])}{owner}"


def _report(context: typer.Context, done: Sequence[Job], signal: int | None) -> None:
    look = console.look(context)
    for job in done:
        if look.terminal:
            console.say(plain(_sentence(job, signal), look))
        else:
            console.say(tabbed([run_of(job), job["done"]]))


def _sentence(job: Job, signal: int | None) -> str:
    from gpuq.cli.job_text import signal_name

    grace = f", KILL in {job['grace_s']:g} s" if job.get("grace_s") else ""
    what = {
        "cancelled": f"cancelled: it never started (undo: gpuq undo {run_of(job)})",
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
        console.say(*(plain(farewell(j), look) if look.terminal else job_row(j) for j in jobs))
