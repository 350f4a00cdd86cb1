"""`gpuq events`: what happened, in order, and what happens now."""

from typing import Annotated, Any, TypeAlias

import typer
from typer import Argument, Option

from gpuq.cli import console
from gpuq.cli.render import Column, Look, clock, plain, printable, rfc3339, tabbed, table
from gpuq.client import Client
from gpuq.errors import UsageError
from gpuq.protocol import SCHEMA

LAST_ON_A_TERMINAL = 50

Event: TypeAlias = Any


def events(
    context: typer.Context,
    jobs: Annotated[list[str] | None, Argument(metavar="JOB ...", show_default=False)] = None,
    follow: Annotated[
        bool, Option("-f", "--follow", help="Go on with what happens, until Ctrl-C.")
    ] = False,
    since: Annotated[
        int | None, Option(metavar="SEQ", help="Those after this number; 0: all that are kept.")
    ] = None,
    json: Annotated[bool, Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """What happened, each with its number, in order.

    Examples:
      gpuq events                     the last ones
      gpuq events 184                 all about one job
      gpuq events -f --json           one line of JSON for each, as it happens
      gpuq events --since 4711 -f     go on behind the one that was seen last

    On a pipe the columns are seq, time, kind, job, attempt, gpu, actor, cause. What nobody asked for
    is by gpuq itself. A follower comes back by itself when the daemon is restarted, and misses nothing;
    where events after a number are kept no more, that is an error.
    """
    if since is not None and since < 0:
        raise UsageError("--since: events are numbered from 1 on")
    look = console.look(context)
    with console.connect(context) as client:
        first = _start(client, jobs or [], since, follow)
        for batch in client.events(jobs or [], since=first, follow=follow):
            _say(batch, look, json)


def _start(client: Client, jobs: list[str], since: int | None, follow: bool) -> int:
    """Without a number: of jobs that are named all, else only the last."""
    if since is not None:
        return since
    if jobs:
        return 0
    last = int(client.call("events", since=None)["last"])
    return last if follow else max(last - LAST_ON_A_TERMINAL, 0)


def _say(batch: list[Event], look: Look, json: bool) -> None:
    from json import dumps
    from sys import stdout

    if not batch:
        return
    if json:
        console.say(*(dumps({"schema": SCHEMA, **event}) for event in batch))
    elif look.terminal:
        console.say(*(plain(line, look) for line in table(_COLUMNS, batch, look)))
    else:
        console.say(*map(_row, batch))
    stdout.flush()


def _job(event: Event) -> str:
    if event["job"] is None:
        return _gpu_name(event)
    return _jobs(event) + (f".{event['attempt']}" if event["attempt"] else "")


def _jobs(event: Event) -> str:
    """ "12", or "12-499" where it befell a run of jobs at once."""
    last = (event["detail"] or {}).get("last")
    return f"{event['job']}" if last is None else f"{event['job']}-{last}"


def _gpu_name(event: Event) -> str:
    """By its index, where the GPU is there; a daemon of an earlier version tells none."""
    index = event.get("gpu_index")
    return event["gpu"] or "" if index is None else f"GPU {index}"


def _cause(event: Event) -> str:
    """What is special about it, or what is told beside; else what is always behind its kind."""
    from gpuq.core.events import special_cause

    return special_cause(event["kind"], event["cause"]) or _details(event) or event["cause"] or ""


def _details(event: Event) -> str:
    detail = event["detail"] or {}
    told = {name: value for name, value in detail.items() if name not in _NOT_SHOWN}
    changed = told.pop("changed", None)
    said = [] if changed is None else [_changed(changed)]
    return " ".join(said + [f"{name}={value}" for name, value in told.items() if value is not None])


def _changed(names: list[str]) -> str:
    """By the names of the options."""
    from gpuq.cli.edit_text import BY_WIRE

    return f"changed: {', '.join(dict.fromkeys(BY_WIRE.get(name, name) for name in names))}"


# The last job of a run of them stands beside the first; the others are for the metrics.
_NOT_SHOWN = ("last", "waited_s", "gap_s")


def _row(event: Event) -> str:
    job = None if event["job"] is None else _jobs(event)
    told = (event["kind"], job, event["attempt"], event["gpu"], event["actor"])
    return tabbed([event["seq"], rfc3339(event["at"]), *told, _cause(event)])


_COLUMNS = [
    Column("SEQ", lambda event: str(event["seq"]), right=True),
    Column("TIME", lambda event: clock(event["at"])),
    Column("JOB", _job, unused=""),
    Column("WHAT", lambda event: event["kind"].replace("_", " ")),
    Column("BY", lambda event: printable(event["actor"] or ""), unused=""),
    Column("CAUSE", lambda event: printable(_cause(event))),
]
