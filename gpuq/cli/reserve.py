"""`gpuq reserve`: GPUs for a user and a time."""

import time
from collections.abc import Sequence
from os import urandom
from typing import Annotated, Any

import typer
from typer import Option

from gpuq.cli import console
from gpuq.cli.gpu_text import span
from gpuq.cli.job_options import read_option
from gpuq.cli.moments import read_moment
from gpuq.cli.render import Column, Look, clock, plain, printable, tabbed, table
from gpuq.core.units import count, format_indices, format_ranges, name_gpus, parse_seconds
from gpuq.errors import UsageError

View = dict[str, Any]


def reserve(
    context: typer.Context,
    gpus: Annotated[
        int | None, Option("-g", "--gpus", metavar="N", help="So many, those idle the soonest.")
    ] = None,
    gpu_id: Annotated[
        list[str] | None,
        Option(metavar="GPUS", help="These: 0-3,5, a UUID or a bus id; repeatable."),
    ] = None,
    begin: Annotated[
        str | None,
        Option(
            "--from",
            metavar="WHEN",
            help="18:00, tomorrow 08:00, 2026-07-31T18:00 or +2h; now unless said.",
        ),
    ] = None,
    length: Annotated[
        str | None, Option("--for", metavar="TIME", help="How long, like 12h.")
    ] = None,
    user: Annotated[
        str | None, Option("-u", "--user", metavar="NAME", help="For whom; for you unless said.")
    ] = None,
    reason: Annotated[
        str | None, Option("-m", "--message", metavar="WHY", help="Shown to all who look.")
    ] = None,
    cancel: Annotated[
        int | None, Option("--cancel", metavar="ID", help="End a reservation, or call it off.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print reservations as JSON.")] = False,
) -> None:
    """Set GPUs aside for a user and a time; without options, the reservations there are.

    Examples:
      gpuq reserve                                          all of them
      gpuq reserve --gpus 2 --from 18:00 --for 12h --user alice -m "paper deadline"
      gpuq reserve --gpu-id 2,3 --from "tomorrow 08:00" --for 4h
      gpuq reserve --cancel 7

    In that time only jobs of that user start there. Before it others start there if they end in time
    by their time limit (-t). Nothing that runs is ended for it; only --preemptible jobs of others give
    way once that user's jobs need the GPUs. For admins.

    On a pipe the columns are id, user, GPUs, begin, end, active or planned, by whom, reason.
    """
    wants = {"--gpus": gpus, "--gpu-id": gpu_id, "--from": begin, "--for": length, "--user": user}
    said = [option for option, value in wants.items() if value is not None]
    if cancel is not None and said:
        raise UsageError(f"--cancel takes no {said[0]}: it ends the reservation of that number")
    look = console.look(context)
    with console.connect(context) as client:
        if cancel is not None:
            client.call("cancel_reservation", reservation=cancel)
            console.say(f"reservation {cancel} is cancelled")
        elif said or reason is not None:
            # Asked again, as when the daemon is restarted meanwhile, it makes no second one.
            wish = _wish(gpus, gpu_id, begin, length) | {"token": urandom(12).hex()}
            answer = client.call("reserve", user=user, reason=reason, **wish)
            _say_made(answer, look, json)
        else:
            _say_all(client.call("reservations")["reservations"], look, json)


def _wish(
    gpus: int | None, gpu_id: Sequence[str] | None, begin: str | None, length: str | None
) -> View:
    if (gpus is None) == (gpu_id is None):
        both = "--gpus says how many and --gpu-id which: choose one"
        raise UsageError(both if gpus is not None else "which GPUs? Add --gpus N or --gpu-id 2,3")
    if length is None:
        raise UsageError("for how long? Add --for 12h")
    moment = read_moment("--from", begin or "now")
    words = [word.strip() for part in gpu_id or () for word in part.split(",") if word.strip()]
    return {
        "count": gpus,
        "refs": words,
        "begin_at": moment.at,
        "begin_in_s": moment.in_s if moment.at is None else None,
        "length_s": read_option("--for", parse_seconds, length),
    }


def _say_made(answer: View, look: Look, json: bool) -> None:
    made = answer["reservation"]
    if json:
        console.say_json(reservation=made, held=answer["held"])
        return
    if not look.terminal:
        console.say(str(made["id"]))
    else:
        gpus = name_gpus(made["gpus"])
        verb = "are" if len(made["gpus"]) > 1 else "is"
        when = f"from {clock(made['begin_at'])} to {clock(made['end_at'])}"
        words = f"reservation {made['id']}: {gpus} {verb} reserved for {made['user']} {when}"
        console.say(plain(printable(words), look))
        console.say(f"  call it off: gpuq reserve --cancel {made['id']}")
    for held in answer["held"]:
        jobs = f"{count(len(held['jobs']), 'job')} ({format_ranges(held['jobs'])})"
        console.note(
            f"nothing is ended for it: GPU {held['index']} may still be held by {jobs} then"
        )


def _say_all(found: Sequence[View], look: Look, json: bool) -> None:
    if json:
        console.say_json(reservations=found)
    elif not look.terminal:
        console.say(*map(_row, found))
    elif not found:
        console.say("nothing is reserved")
    else:
        console.say(*_table(found, look))


def _row(one: View) -> str:
    times = [
        time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(one[n])) for n in ("begin_at", "end_at")
    ]
    state = "active" if one["active"] else "planned"
    gpus = ",".join(map(str, one["gpus"]))
    return tabbed([one["id"], one["user"], gpus, *times, state, one["actor"], one["reason"]])


def _table(found: Sequence[View], look: Look) -> list[str]:
    columns = [
        Column("ID", lambda one: str(one["id"])),
        Column("GPU", lambda one: format_indices(one["gpus"])),
        Column("USER", lambda one: printable(one["user"])),
        Column("WHEN", lambda one: span(one, look.now)),
        Column("", lambda one: "now" if one["active"] else ""),
        Column("BY", lambda one: printable(one["actor"])),
        Column("WHY", lambda one: printable(one["reason"] or "")),
    ]
    return table(columns, found, look)
