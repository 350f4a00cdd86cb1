"""`gpuq pause`, `resume` and `drain`: standing still, a job or the whole queue."""

from typing import Annotated, Any

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.fold_text import called, run_of
from gpuq.cli.render import plain, printable, tabbed
from gpuq.core.units import count
from gpuq.errors import UsageError

Jobs = Annotated[list[str], Argument(metavar="JOB ...", show_default=False)]


def pause(context: typer.Context, jobs: Jobs) -> int:
    """Let running jobs stand still. They keep their GPUs, and all the memory that they use there.

    Examples:
      gpuq pause 184
      gpuq resume 184

    Time in which a job stands still does not count for its --time and --heartbeat. A job that
    waits is not paused: nothing of it runs.
    """
    return _ask(context, jobs, off=False)


def resume(context: typer.Context, jobs: Jobs) -> int:
    """Let paused jobs go on.

    Examples:
      gpuq resume 184
      gpuq resume 12-18,20
    """
    return _ask(context, jobs, off=True)


def _ask(context: typer.Context, jobs: list[str], *, off: bool) -> int:
    with console.connect(context) as client:
        done = client.resume(jobs) if off else client.pause(jobs)
    look = console.look(context)
    for job in done:
        if look.terminal:
            console.say(plain(sentence(job, off=off), look))
        else:
            console.say(tabbed([run_of(job), job["done"]]))
    return 1 if any(job["done"] == "not_running" for job in done) else 0


def sentence(job: Any, *, off: bool) -> str:
    do = "does" if run_of(job) == str(job["id"]) else "do"
    what = {
        "paused": "stands still; its memory, and that of its GPUs, stays in use. "
        f"Go on: gpuq resume {job['id']}",
        "resumed": "goes on",
        "already": "was not paused" if off else "stands still already",
        "not_running": f"{do} not run, so there is nothing to {'resume' if off else 'pause'}",
    }
    return f"{called(job)} {what.get(job['done'], job['done'])}"


def drain(
    context: typer.Context,
    reason: Annotated[
        str | None, Option("-m", "--message", metavar="WHY", help="Shown to all who wait.")
    ] = None,
    off: Annotated[bool, Option("--off", help="Start jobs again.")] = False,
) -> None:
    """Start nothing any more: what runs goes on, what is submitted waits. It lasts through restarts.

    Examples:
      gpuq drain -m "riser swap at 18:00"
      gpuq drain --off
    """
    if off and reason is not None:
        raise UsageError("--off needs no reason")
    with console.connect(context) as client:
        answer = client.drain(None if off else reason or "no reason was given")
    console.say(drain_sentence(answer))


def drain_sentence(answer: Any) -> str:
    """What came of a drain, or of its end."""
    counts = answer["counts"]
    if answer["drained"] is None:
        was = "it starts jobs again" if answer["changed"] else "it was not drained"
        return f"{was}; {counts['queued']} queued"
    why, running = printable(answer["drained"]["reason"]), count(counts["running"], "job")
    return f"drained: {why}. {running} running, {counts['queued']} queued will wait"
