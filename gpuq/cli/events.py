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
        str | None,
        Option(
            metavar="SEQ|TIME",
            help="Those after this number, 0: all that are kept; or since then: 1h, 2026-07-31, ...",
        ),
    ] = None,
    json: Annotated[bool, Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """What happened, each with its number, in order.

    Examples:
      gpuq events                     the last ones
      gpuq events 184                 all about one job
      gpuq events -f --json           one line of JSON for each, as it happens
      gpuq events --since 1h          what happened in the last hour
      gpuq events --since 4711 -f     go on behind the one that was seen last

    On a pipe the columns are seq, time, kind, job, attempt, gpu, actor, cause; what else is known of
    it stands behind the cause in brackets. What nobody asked for is by gpuq itself. A follower
    comes back by itself when the daemon is restarted, and misses nothing; where events after a
    number are kept no more, that is an error.
    """
    look = console.look(context)
    start = None if since is None else _read_since(since, look.now)
    with console.connect(context) as client:
        start = start or _usual_start(client, jobs or [], follow)
        for batch in client.events(jobs or [], follow=follow, **start):
            _say(batch, look, json)


def _read_since(text: str, now: float) -> dict[str, Any]:
    """The number of an event, or a moment."""
    if text.isdecimal() and text.isascii() and len(text) < 19:
        return {"since": int(text)}
    from gpuq.cli.jobs import read_since

    if text.startswith("-"):
        raise UsageError("--since: events are numbered from 1 on")
    return {"since_at": read_since(text, now)}


def _usual_start(client: Client, jobs: list[str], follow: bool) -> dict[str, Any]:
    """Of jobs that are named all, else only the last."""
    if jobs:
        return {"since": 0}
    answer = client.call("events", since=None)
    last = int(answer["last"])
    if follow:
        return {"since": last}
    return {"since": max(last - LAST_ON_A_TERMINAL, answer.get("removed_to", 0))}


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
    """Why, and in brackets what else is known of it."""
    cause, details = event["cause"] or "", _details(event)
    if not details:
        return cause
    return f"{cause} ({details})" if cause else details


def _details(event: Event) -> str:
    detail = event["detail"] or {}
    told = {name: value for name, value in detail.items() if name not in _NOT_SHOWN}
    if not told.get("leftovers"):
        told.pop("leftovers", None)
    changed = told.pop("changed", None)
    said = [] if changed is None else [_changed(changed)]
    said += [f"{name}={_value(value)}" for name, value in told.items() if value is not None]
    return " ".join(said)


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


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
